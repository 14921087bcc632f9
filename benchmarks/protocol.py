"""How every benchmark here measures: paired CPU times, peak memory of a fresh process, one row per claim.

Times are CPU seconds of one pinned thread, in rounds of ABBA order; on a GPU its own seconds, between two events. What
is reported is the median over rounds of the log-ratio with a bootstrap 95 % interval: a ratio of neighbours survives a
busy machine, seconds do not. `noise_floor` is the same measurement of a call against itself.
"""

from __future__ import annotations

import csv
import ctypes
import fcntl
import functools
import gc
import multiprocessing
import operator
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from bnf_align.training.record import versions

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
COLUMNS = ("id", "claim", "figure", "low", "high", "threshold", "holds", "machine", "versions", "command")
SIGNS = {"<": operator.lt, "<=": operator.le, "==": operator.eq, ">=": operator.ge, ">": operator.gt}
REPORTED = "reported"
"""The threshold of a figure that claims nothing."""

M_MMAP_THRESHOLD = -3
"""Of glibc's malloc.h."""

Clock = Callable[[Callable[[], Any]], float]
"""Calls a function and says how many seconds it took."""


class Estimate(NamedTuple):
    """A figure and its 95 % interval; a figure without noise is its own interval."""

    figure: float
    low: float
    high: float


def bootstrap(samples: np.ndarray, statistic: Callable[[np.ndarray], float], draws: int = 10_000) -> Estimate:
    """The statistic of `samples` (rounds, ...), and its percentile interval when rounds are drawn with replacement."""
    random = np.random.default_rng(0)
    drawn = [statistic(samples[random.integers(0, len(samples), len(samples))]) for _ in range(draws)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float(statistic(samples)), float(low), float(high))


def median_ratio(first: np.ndarray, second: np.ndarray) -> Estimate:
    """The median of first / second over paired rounds, with its interval."""
    logs = bootstrap(np.log(np.asarray(first) / np.asarray(second)), np.median)
    return Estimate(*np.exp(logs).tolist())


def cpu_seconds(call: Callable[[], Any]) -> float:
    """CPU seconds that `call` takes."""
    start = time.process_time()
    call()
    return time.process_time() - start


def gpu_seconds(call: Callable[[], Any]) -> float:
    """Seconds on the current CUDA device between the start of `call` and its last kernel."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()  # nothing queued before may fall into this call
    start.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1e3


def paired_seconds(
    *calls: Callable[[], Any], rounds: int = 30, warm_up: int = 1, clock: Clock = cpu_seconds
) -> np.ndarray:
    """Seconds of each call, (rounds, calls), the order turned over from round to round (ABBA)."""
    seconds = np.zeros((rounds, len(calls)))
    with one_thread():
        for call in calls * warm_up:
            call()
        for number in range(rounds):
            for side in range(len(calls))[:: 1 if number % 2 == 0 else -1]:
                gc.collect()
                seconds[number, side] = clock(calls[side])
    return seconds


def compare(first: Callable[[], Any], second: Callable[[], Any], rounds: int = 30) -> Estimate:
    """CPU time of the first call over that of the second."""
    return median_ratio(*paired_seconds(first, second, rounds=rounds).T)


def noise_floor(call: Callable[[], Any], rounds: int = 30) -> Estimate:
    """A call against itself (A/A): what `compare` finds where there is nothing to find."""
    return compare(call, call, rounds)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread on one core inside, and the collector off: it would run in whichever call comes next."""
    cores, threads, collecting = os.sched_getaffinity(0), torch.get_num_threads(), gc.isenabled()
    os.sched_setaffinity(0, {min(cores)})
    torch.set_num_threads(1)
    gc.disable()
    gc.collect()
    gc.freeze()  # what is alive now need not be looked through between any two calls
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
        torch.set_num_threads(threads)
        gc.unfreeze()
        if collecting:
            gc.enable()


def peak_memory(prepare: Callable[..., Callable[[], Any]], *arguments: Any, start: str = "spawn") -> int:
    """Bytes that a call needs at its peak, its result included, above what its process held before.

    The process is a fresh one: a heap that has been used before would hide what is taken from it.

    Args:
        prepare: A function of a module (it is pickled) that returns the call. It may warm the libraries up.
        arguments: What `prepare` is called with.
        start: How the process starts. "fork" saves the imports, where this process has computed nothing yet.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(start)) as process:
        return process.submit(_peak_of, prepare, arguments).result()


def _peak_of(prepare: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> int:
    torch.set_num_threads(1)
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(M_MMAP_THRESHOLD, 256 * 1024)  # larger blocks go back to the system as soon as they are freed
    call = prepare(*arguments)
    gc.collect()
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # sets the high-water mark back to the present size
    held = _resident("VmRSS")
    result = call()
    peak = _resident("VmHWM") - held
    del result  # so that it lived until here
    return peak


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def verdict(estimate: Estimate, threshold: str) -> str:
    """`yes`, `no` or `reported`.

    >>> verdict(Estimate(0.994, 0.96, 1.01), "high <= 1.02"), verdict(Estimate(4.3, 4.3, 4.3), "3.8 <= figure <= 4.2")
    ('yes', 'no')
    """
    if threshold == REPORTED:
        return REPORTED
    words = threshold.split()
    values = [getattr(estimate, word) if word in Estimate._fields else float(word) for word in words[::2]]
    compared = zip(words[1::2], values[:-1], values[1:], strict=True)
    return "yes" if all(SIGNS[sign](left, right) for sign, left, right in compared) else "no"


def write_claim(
    claim_id: str,
    claim: str,
    estimate: Estimate | str,
    threshold: str = REPORTED,
    path: Path = RESULTS / "claims.csv",
) -> str:
    """Put a row into the table of claims, in the place of the row with the same id, and return its verdict.

    Args:
        claim_id: What stands in the column `id`.
        claim: The claim in words, with the unit of the figure.
        estimate: The figure and its interval; or why there is none, such as "not measured".
        threshold: A comparison of `figure`, `low` or `high` with a number, such as `high <= 1.02`.
        path: The table.
    """
    if isinstance(estimate, str):
        figures, holds = {"figure": estimate, "low": "", "high": ""}, estimate
    else:
        figures = dict(zip(Estimate._fields, (f"{value:.6g}" for value in estimate), strict=True))
        holds = verdict(estimate, threshold)
    row = {"id": claim_id, "claim": claim, **figures, "threshold": threshold, "holds": holds}
    row |= {"machine": machine(), "versions": _versions(), "command": _command()}
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # two benchmarks that end together must not lose each other's row
        _write_rows(path, {**read_rows(path), claim_id: row})
    finally:
        os.close(folder)
    return holds


def measured_here(claim_ids: Iterable[str], path: Path) -> bool:
    """Whether the table has a figure for each of these ids from this machine and these versions."""
    rows, here = read_rows(path), (machine(), _versions())
    found = [rows.get(claim_id, {}) for claim_id in claim_ids]
    return all(row.get("low") and (row["machine"], row["versions"]) == here for row in found)


def read_rows(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a table by id; none where there is no table yet."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def _write_rows(path: Path, rows: dict[str, dict[str, str]]) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows.values())
    os.replace(temporary, path)


def machine() -> str:
    """Processor, cores and system in words, and the GPU where there is one."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    device = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}{device}"


@functools.cache
def _versions() -> str:
    return " ".join(f"{name}={version}" for name, version in versions().items())


def _command() -> str:
    script = Path(sys.argv[0]).resolve()
    name = str(script.relative_to(ROOT)) if script.is_relative_to(ROOT) else script.name
    return shlex.join(["python", name, *sys.argv[1:]])
