"""Small jobs of generate, score and select, and how to kill them in a process of their own."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from bnf_align.cli.main import main
from tiny_models import chatml_tokenizer
from tiny_nets import SIZES, tiny_llama

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    [f"bnf_align.construct.{name}" for name in ("dataset", "generate", "scorers.reward_model", "scorers.judge")]
    + ["bnf_align.engines.local", "bnf_align.endpoint", "openai"]
)
COUNT = 12
"""Prompts."""
KILLS = 10


def write(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def write_jobs(folder: Path) -> Path:
    """A model, a reward model, prompts, candidates that `score` takes some time for, and scored rows."""
    tiny_llama(300, max_position_embeddings=4096).save_pretrained(folder / "model")
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=300, num_labels=1, pad_token_id=256, **{**SIZES, "max_position_embeddings": 4096})
    LlamaForSequenceClassification(config).save_pretrained(folder / "reward")
    for name in ("model", "reward"):
        chatml_tokenizer().save_pretrained(folder / name)
    questions = [{"question": f"What is {i} + {i * i}?", "answer": f"#### {i + i * i}"} for i in range(COUNT)]
    write(folder / "prompts.jsonl", questions)
    rows = [
        {"id": f"c{i}", "prompt": f"Say {i}", "candidates": [{"text": f"{i} {j} " * (i + j)} for j in range(1, 5)]}
        for i in range(40)
    ]
    write(folder / "candidates.jsonl", rows)
    scored = [
        {
            "id": str(i),
            "prompt": f"prompt {i}",
            "candidates": [{"text": f"{w} {i} " * 20} for w in "abcde"],
            "scores": [(i * k) % 7 for k in range(1, 6)],
        }
        for i in range(3000)
    ]
    write(folder / "scored.jsonl", scored)
    return folder


# Commands


def generate(folder: Path, out: Path, *more: str) -> list[str]:
    flags = ["generate", "--prompts", str(folder / "prompts.jsonl"), "--out", str(out), "--chat", "-n", "4"]
    return [*flags, "--max-new-tokens", "24", *more]


def in_process(folder: Path, out: Path, *more: str) -> list[str]:
    return generate(folder, out, "--model", str(folder / "model"), "--batch-rows", "8", *more)


def reward(folder: Path, out: Path) -> list[str]:
    flags = ["score", str(folder / "candidates.jsonl"), "--scorer", "reward_model", "--model", str(folder / "reward")]
    return [*flags, "--out", str(out), "--batch-rows", "8"]


def chosen(folder: Path, out: Path, seed: int = 0) -> list[str]:
    flags = ["select", str(folder / "scored.jsonl"), "--out", str(out), "--pairing-ratio", "0.5"]
    return [*flags, "--test-fraction", "0.2", "--seed", str(seed)]


# Kills


def run(argv: list[str]) -> None:
    """The command as a process of its own, which ends with its exit status."""
    raise SystemExit(main(argv))


def killed(argv: list[str], moment: Callable[[], bool]) -> bool:
    """Run `argv` and kill it as soon as `moment()` is true; whether the kill ended it."""
    process = FORK.Process(target=run, args=(argv,))
    process.start()
    deadline = time.monotonic() + 600
    while process.is_alive() and not moment():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == -signal.SIGKILL


def killed_ten_times(argv: list[str], out: Path, size: int) -> Iterator[bool]:
    """Kill a job of `size` bytes again and again, each time when it has grown by some bytes and some time has passed.

    Yields after every run whether the kill hit it, until ten have; where it came too late the caller starts anew.
    """
    chance = random.Random(seed := random.randrange(10**6))
    print(f"seed {seed}")  # pytest shows it where the test fails
    hits = 0
    for _ in range(4 * KILLS):
        grown = bytes_of(out) + chance.random() * size / 4
        hit = killed(argv, at(lambda grown=grown: bytes_of(out) >= grown, chance.random() / 20))
        hits += hit
        yield hit
        if hits == KILLS:
            return
    raise AssertionError(f"{hits} of {4 * KILLS} kills hit a living process")


def at(reached: Callable[[], bool], pause: float) -> Callable[[], bool]:
    """True once `reached` has been for `pause` seconds."""
    since: list[float] = []

    def moment() -> bool:
        if not since and reached():
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] >= pause

    return moment


def lines_of(path: Path) -> list[bytes]:
    """Whole lines of a file that may be cut short."""
    data = path.read_bytes() if path.exists() else b""
    return data[: data.rfind(b"\n") + 1].splitlines()


def rows_of(out: Path) -> list[Path]:
    """The files with rows of an output, finished and partial."""
    return [file for file in out.parent.glob(f"{out.name}*") if "card" not in file.name]


def bytes_of(out: Path) -> int:
    total = 0
    for file in rows_of(out):
        try:
            total += file.stat().st_size
        except FileNotFoundError:  # it was renamed meanwhile
            continue
    return total


def files(path: Path) -> dict[str, bytes]:
    """The files that belong to an output, but for their cards, in which the command stands."""
    return {
        file.name.replace(path.stem, "out"): file.read_bytes()
        for file in path.parent.iterdir()
        if file.name.startswith(path.stem) and "card" not in file.name
    }
