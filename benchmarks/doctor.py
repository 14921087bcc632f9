"""The doctor on a million rows: seconds, memory, and rows per second with a tokenizer.

    python benchmarks/doctor.py

Pairs and single answers in text and in messages, of lengths as chats have them, with Zipf's words, numbers, addresses,
repeats and near-identical pairs among them, are written to a temporary folder, as lines and as one JSON list. The
command runs on each in a fresh process; start-up counts. The tokenizer is a BPE of 8,000 tokens trained on the same
texts. Writes the rows doctor-seconds, doctor-memory and doctor-tokens of `results/claims.csv`.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

from protocol import RESULTS, Estimate, write_claim
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

ROWS, TOKEN_ROWS = 1_000_000, 20_000
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
FACTS = (
    " In {n} days it was {n}.5 % more (see table {n}).",
    " Write to user{n}@example.org.",
    " It costs $ {n}, or 1,{n}.",
    " Übrigens: {n} °C – ça va?",
)


COMMAND = """
import sys
from bnf_align.cli.main import main
status = main()
sys.stderr.write(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
sys.exit(status)
"""
"""The kernel's own account of a child would count what this process, which imports torch, held when it forked."""


class Run(NamedTuple):
    """What one process took."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    output: str


def texts(generator: random.Random) -> Iterator[str]:
    """Texts of lognormal length, about 90 words, out of one long stream of words."""
    letters = "etaoinshrdlucmfwypvbgk"
    often = range(len(letters), 0, -1)
    words = ["".join(generator.choices(letters, often, k=generator.randint(2, 9))) for _ in range(20_000)]
    weights = list(accumulate(1 / rank for rank in range(1, len(words) + 1)))
    stream = " ".join(generator.choices(words, cum_weights=weights, k=1_000_000))
    while True:
        length = min(int(generator.lognormvariate(5.1, 0.7)), 8_000)
        start = generator.randrange(len(stream) - length)
        fact = generator.choice(FACTS).format(n=generator.randrange(10_000)) if generator.random() < 0.2 else ""
        yield stream[start : start + length] + fact


def rows(count: int) -> Iterator[dict[str, Any]]:
    """Rows of about 1 kB as JSON: half of them pairs, half of them messages."""
    generator = random.Random(0)
    text = texts(generator)
    row: dict[str, Any] = {}
    for number in range(count):
        if row and generator.random() < 0.002:
            yield row
            continue
        kind = number % 4
        prompt, answer, other = next(text), f"{next(text)} {next(text)}", f"{next(text)} {next(text)}"
        if kind < 2:
            answer, other = answer[: -len(answer) // 3], other[: -len(other) // 3]
        if generator.random() < 0.05:
            other = f"{answer[:-8]} otherwise"
        label = generator.random() < 0.6
        turns = [{"role": "user", "content": prompt}]
        if kind == 0:
            row = {"prompt": prompt, "chosen": answer, "rejected": other}
        elif kind == 1:
            chosen, rejected = ([*turns, {"role": "assistant", "content": side}] for side in (answer, other))
            row = {"chosen": chosen, "rejected": rejected, "id": number}
        elif kind == 2:
            row = {"prompt": prompt, "completion": answer, "label": label, "created_at": 1_700_000_000 + number}
        else:
            history = [{"role": "user", "content": next(text)}, {"role": "assistant", "content": other[:200]}]
            row = {"messages": [*history, *turns, {"role": "assistant", "content": answer}], "label": label}
        yield row


def write(path: Path, count: int) -> None:
    """Write rows as lines, or as one list where the name ends in .json."""
    listed = path.suffix == ".json"
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(rows(count)):
            before = ("[\n" if number == 0 else ",\n") if listed else ""
            file.write(before + json.dumps(row, ensure_ascii=False) + ("" if listed else "\n"))
        file.write("\n]\n" if listed else "")


def command(*arguments: str) -> Run:
    """Run a command of bnf-align in a fresh process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run([sys.executable, "-c", COMMAND, *arguments], capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode in (0, 1), done.stderr
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = int(done.stderr.rpartition("VmHWM:")[2].split()[0]) * 1024
    return Run(seconds, cpu, peak, done.stdout)


def doctor(path: Path, *flags: str) -> Run:
    """The doctor on a file."""
    return command("doctor", str(path), "--json", *flags)


def save_tokenizer(folder: Path, count: int) -> None:
    """A chat tokenizer trained on the rows' own texts."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=8_000, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    bpe.train_from_iterator((json.dumps(row) for row in rows(min(count, 5_000))), trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=specials[0], pad_token=specials[0])
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)


def write_seconds_and_memory(folder: Path, count: int, path: Path) -> None:
    """Lines and a list of the same rows: the figure is that of the lines, the interval reaches to the list."""
    runs = []
    for name in ("rows.jsonl", "rows.json"):
        write(folder / name, count)
        size = (folder / name).stat().st_size
        runs.append(doctor(folder / name))
        (folder / name).unlink()
    assert json.loads(runs[0].output)["findings"] == json.loads(runs[1].output)["findings"]
    cpu = " and ".join(f"{run.cpu_seconds:.0f}" for run in runs)
    what = f"`bnf-align doctor` on {count:,} rows of {size / count:,.0f} bytes, start-up included"
    for claim_id, claim, threshold, values in (
        ("doctor-seconds", f"wall seconds of {what}; CPU seconds {cpu}", "high < 60", [run.seconds for run in runs]),
        ("doctor-memory", f"peak MB of {what}", "high < 1000", [run.peak_bytes / 1e6 for run in runs]),
    ):
        claim += "; low and high: lines and one JSON list"
        estimate = Estimate(values[0], min(values), max(values))
        print(claim, estimate, write_claim(claim_id, claim, estimate, threshold, path), sep="\n")


def write_tokens(folder: Path, count: int, path: Path) -> None:
    """Rows per second with a tokenizer, the start-up (one row) taken off."""
    save_tokenizer(folder / "tokenizer", count)
    seconds = []
    for size in (4, count):
        write(folder / "rows.jsonl", size)
        run = doctor(folder / "rows.jsonl", "--model-name-or-path", str(folder / "tokenizer"))
        seconds.append(run.seconds)
    lengths = json.loads(run.output)["lengths"]
    rate = count / (seconds[1] - seconds[0])
    claim = (
        f"rows per second of `bnf-align doctor` with a BPE tokenizer, {count:,} rows (prompt and answer: p50 "
        f"{lengths['p50']} tokens), {seconds[0]:.1f} s of start-up taken off"
    )
    estimate = Estimate(rate, rate, rate)
    print(claim, estimate, write_claim("doctor-tokens", claim, estimate, path=path), sep="\n")


def main() -> None:
    """Write, run and put the rows into the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS, help="default %(default)s")
    parser.add_argument("--claims", type=Path, default=RESULTS / "claims.csv", help="default %(default)s")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_seconds_and_memory(Path(folder), arguments.rows, arguments.claims)
        write_tokens(Path(folder), min(TOKEN_ROWS, arguments.rows), arguments.claims)


if __name__ == "__main__":
    main()
