"""How cost grows with the tokens of a step, the vocabulary and the width of the model: curves and their slopes.

    python benchmarks/growth.py
    python benchmarks/growth.py --draw       report and picture anew, from the points that are there

Time and peak memory of the head (ours with BNF and with fine-tuning, Appendix B mended, TRL's; see head.py) and of a
whole BNF step of a tiny Llama (see steps.py), float32, one thread. Writes `results/growth.csv` (the points), and from
them `growth.md` (the slopes) and the picture `growth.svg`, `growth.png` (see growth_report.py).
"""

from __future__ import annotations

import csv
import itertools
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from growth_report import Point, draw, read_points, write_report
from head import Problem, appendix_b, fresh, prepare, problem, through_call, trl_head
from protocol import RESULTS, Estimate, paired_seconds, peak_memory
from steps import EQUAL_COMPLETION, EQUAL_PROMPT, Bench, equal_rows, small_llama

from bnf_align.config import PreferenceConfig

SIZES = {
    "tokens": (256, 512, 1024, 2048, 4096),
    "vocabulary": (32_000, 64_000, 128_000, 256_000),
    "width": (128, 256, 512, 1024),
}
HELD = {"tokens": 256, "width": 256, "vocabulary": 32_000}
"""The sizes that are not varied."""
ROUNDS = 3
ROW = EQUAL_PROMPT + EQUAL_COMPLETION

HEADS: dict[str, Callable[[Problem], Any]] = {
    "head, BNF": partial(through_call, "bnf"),
    "head, fine-tuning": partial(through_call, "sft"),
    "head, Appendix B": appendix_b,
    "head, TRL": trl_head,
}
STEPS = {"step, BNF": 8192, "step, BNF, cut to 512": 512}
"""Tokens of a micro-batch: the default, which no step here fills, and one that cuts the longer steps."""

Shape = tuple[int, int, int]
"""Tokens, width, vocabulary: what `head.problem` takes."""
Key = tuple[str, int]
"""Curve and size."""


def shapes(axis: str) -> dict[int, Shape]:
    """The shape of each size on an axis."""
    return {size: tuple((HELD | {axis: size}).values()) for size in SIZES[axis]}  # type: ignore[misc]


def head_calls(axis: str) -> dict[Key, Callable[[], Any]]:
    """Every head at every size."""
    for run in HEADS.values():
        run(problem(8, 16, 64))  # the libraries are warm from here on
    given = {size: problem(*shape) for size, shape in shapes(axis).items()}
    return {(curve, size): partial(fresh, run, given[size]) for size in given for curve, run in HEADS.items()}


class CutBench(Bench):
    """A `steps.Bench` with a token budget of its own."""

    def __init__(self, shape: Shape, folder: str, budget: int) -> None:
        tokens, width, vocabulary = shape
        model = small_llama(vocabulary, hidden_size=width, intermediate_size=4 * width)
        super().__init__(model, Path(tempfile.mkdtemp(dir=folder)))
        self.budget, self.rows = budget, tokens // ROW

    def config(self, loss: str, units: int) -> PreferenceConfig:
        """As in `Bench`."""
        config = super().config(loss, units)
        config.max_tokens_per_micro_batch = self.budget
        return config


def step_call(shape: Shape, folder: str, budget: int) -> Callable[[], None]:
    """A BNF step on rows of `ROW` tokens, two thirds of them scored."""
    bench = CutBench(shape, folder, budget)
    rows = equal_rows(np.random.default_rng(0), bench.rows, EQUAL_PROMPT, EQUAL_COMPLETION)
    call, tokens = bench.ours("bnf", [row | {"label": True} for row in rows])
    assert tokens == shape[0]
    return call


def steps_at(axis: str) -> Iterator[tuple[str, int, int, Shape]]:
    """Curve, budget, size and shape of the steps on an axis; cutting matters to their tokens alone."""
    for (curve, budget), (size, shape) in itertools.product(STEPS.items(), shapes(axis).items()):
        if axis == "tokens" or curve == "step, BNF":
            yield curve, budget, size, shape


def step_calls(axis: str, folder: str) -> dict[Key, Callable[[], Any]]:
    """Every step at every size."""
    return {(curve, size): step_call(shape, folder, budget) for curve, budget, size, shape in steps_at(axis)}


def peaks(axis: str, folder: str) -> dict[Key, int]:
    """Peak bytes above what is held before, gradients included."""
    found = {}
    for (curve, run), (size, shape) in itertools.product(HEADS.items(), shapes(axis).items()):
        found[curve, size] = peak_memory(prepare, run, shape, start="fork")
    for curve, budget, size, shape in steps_at(axis):
        found[curve, size] = peak_memory(step_call, shape, folder, budget, start="fork")
    return found


def seconds(calls: Mapping[Key, Callable[[], Any]]) -> dict[Key, Estimate]:
    """CPU seconds of each call, all of them in every round: the median, the least and the most."""
    measured = paired_seconds(*calls.values(), rounds=ROUNDS, warm_up=0)
    found = np.stack([np.median(measured, axis=0), measured.min(axis=0), measured.max(axis=0)], axis=1)
    return {key: Estimate(*values.tolist()) for key, values in zip(calls, found, strict=True)}


def measure() -> list[Point]:
    """All points. Memory comes first: its processes are forks of this one, which has computed nothing yet."""
    points = []
    with tempfile.TemporaryDirectory() as folder:
        memory = {axis: peaks(axis, folder) for axis in SIZES}
        for axis in SIZES:
            time = seconds(head_calls(axis)) | seconds(step_calls(axis, folder))
            points += [Point(axis, *key, *time[key], peak) for key, peak in memory[axis].items()]
    return points


def write(points: list[Point], folder: Path) -> None:
    """The table, the report and the picture."""
    with (folder / "growth.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Point._fields)
        for *names, median, least, most, peak in points:
            writer.writerow([*names, *(f"{value:.6g}" for value in (median, least, most)), peak])
    report(points, folder)


def report(points: list[Point], folder: Path) -> None:
    """The report and the picture."""
    write_report(points, HELD, folder / "growth.md")
    draw(points, folder / "growth.svg", folder / "growth.png")


def main() -> None:
    """Measure and write."""
    torch.set_num_threads(1)
    if sys.argv[1:] == ["--draw"]:
        report(read_points(RESULTS / "growth.csv"), RESULTS)
    else:
        write(measure(), RESULTS)


if __name__ == "__main__":
    main()
