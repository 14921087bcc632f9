"""What many rows cost: reading, tokenising, the reference cache and batching; candidates through score and select.

    python benchmarks/many_rows.py                       # 10,000 to 1,000,000 rows, 8,000 to 200,000 candidates
    python benchmarks/many_rows.py --soak_minutes 60     # one training run for an hour: memory, open files, threads

Each size runs in a fresh process. The model is a Llama of one layer and width 16, so that what is measured is what a
row costs outside the model. Times are CPU seconds of one thread; memory is the resident set, as the kernel counts it.
Writes `results/many_rows.json` or `results/soak.json`. The doctor on a million rows: `doctor.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

import torch
from doctor import command
from protocol import RESULTS, machine
from scipy.stats import theilslopes
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback, set_seed

from bnf_align.config import PreferenceConfig
from bnf_align.data.read import iter_rows
from bnf_align.outputs import write_json
from bnf_align.training.prepare import starting_point
from bnf_align.training.record import versions
from bnf_align.training.trainer import PreferenceTrainer

ROWS = (10_000, 100_000, 1_000_000)
CANDIDATES = (8_000, 40_000, 200_000)
FOR_ONE_PROMPT = 4
WORDS = [f"w{number}" for number in range(1_000)]
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
PROMPT_WORDS, ANSWER_WORDS = 12, 30


def tokenizer() -> PreTrainedTokenizerFast:
    """A word is a token."""
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(["<eos>", *WORDS])}, "<eos>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>")


def model(**sizes: int) -> LlamaForCausalLM:
    """A tiny Llama with random weights."""
    set_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(WORDS) + 1, **{**SIZES, **sizes}))


def write_rows(path: Path, count: int) -> None:
    """Single answers with a label, all different."""
    random = Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            prompt, answer = (" ".join(random.choices(WORDS, k=k)) for k in (PROMPT_WORDS, ANSWER_WORDS))
            row = {"prompt": f"w{number % 1000} {prompt} ", "completion": answer, "label": random.random() < 0.5}
            file.write(json.dumps(row) + "\n")


def write_candidates(path: Path, count: int) -> None:
    """What `generate` writes: prompts with four candidates each, some of which hold the right number."""
    random = Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count // FOR_ONE_PROMPT):
            texts = [
                f"{' '.join(random.choices(WORDS, k=ANSWER_WORDS))} #### {random.choice((7, 8))}" for _ in range(4)
            ]
            candidates = [
                {"text": text, "tokens": 32, "finish_reason": "stop", "model": "m", "sampling": {}} for text in texts
            ]
            prompt = " ".join(random.choices(WORDS, k=PROMPT_WORDS))
            row = {"id": str(number), "prompt": prompt, "answer": "7", "candidates": candidates}
            file.write(json.dumps(row) + "\n")


def prepared(path: str, pipe: Any) -> None:
    """All of a row's way until its step, in a process of its own."""
    torch.set_num_threads(1)
    folder = tempfile.mkdtemp()
    started, held = time.process_time(), _resident()
    config = PreferenceConfig(
        output_dir=folder, ref_cache_dir=f"{folder}/cache", batch_size=64, use_cpu=True, bf16=False, report_to="none"
    )
    _, _, found = starting_point(model(), tokenizer(), {"train": iter_rows(path)}, config)
    ready, after = time.process_time(), _resident()
    steps = found.steps["train"]
    tokens = sum(
        int(batch["attention_mask"].sum())
        for first in range(0, len(steps.units), 64)
        for batch in steps.__getitems__(range(first, min(first + 64, len(steps.units)))).micro_batches
    )
    cache = sum(file.stat().st_size for file in Path(folder, "cache").rglob("*.arrow"))
    pipe.send(
        {
            "prepare_cpu_seconds": ready - started,
            "batching_cpu_seconds": time.process_time() - ready,
            "resident_bytes": after - held,
            "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - held,
            "cache_bytes": cache,
            "tokens": tokens,
        }
    )


def growing() -> dict[str, Any]:
    """Every size, and what a further row costs between the two largest ones."""
    context = get_context("spawn")
    found: dict[str, Any] = {"rows": {}, "candidates": {}}
    with tempfile.TemporaryDirectory() as folder:
        for count in ROWS:
            write_rows(path := Path(folder, "rows.jsonl"), count)
            pipe, other = context.Pipe()
            process = context.Process(target=prepared, args=(str(path), other))
            process.start()
            found["rows"][count] = pipe.recv()
            process.join()
            print(count, found["rows"][count], flush=True)
        for count in CANDIDATES:
            write_candidates(path := Path(folder, f"candidates-{count}.jsonl"), count)
            scored, out = str(path.with_suffix(".scored.jsonl")), str(path.with_suffix(".pairs.jsonl"))
            runs = {"score": command("score", str(path), "--out", scored, "--scorer", "verifier")}
            runs["select"] = command("select", scored, "--out", out)
            of = {verb: {"cpu_seconds": run.cpu_seconds, "peak_bytes": run.peak_bytes} for verb, run in runs.items()}
            found["candidates"][count] = of
            print(count, of, flush=True)
    small, large = (found["rows"][count] for count in ROWS[-2:])
    further = {name: (large[name] - small[name]) / (ROWS[-1] - ROWS[-2]) for name in large}
    for verb in ("score", "select"):
        small, large = (found["candidates"][count][verb] for count in CANDIDATES[-2:])
        apart = CANDIDATES[-1] - CANDIDATES[-2]
        further |= {f"{verb} {name}": (large[name] - small[name]) / apart for name in large}
    return found | {"for_a_further_row_or_candidate": further}


class Watch(TrainerCallback):
    """What the process holds, every half minute, until the time is over."""

    def __init__(self, minutes: float) -> None:
        self.started = self.looked = time.monotonic()
        self.minutes, self.seen = minutes, [self.look()]

    def look(self) -> dict[str, float]:
        """Minutes since the start, resident bytes, open files, threads."""
        minutes = (time.monotonic() - self.started) / 60
        counts = {name: len(os.listdir(f"/proc/self/{name}")) for name in ("fd", "task")}
        return {"minutes": minutes, "resident": _resident(), **counts}

    def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
        """Look, and stop in time."""
        now = time.monotonic()
        if now - self.looked >= 30:
            self.looked = now
            self.seen.append(self.look() | {"step": state.global_step})
        control.should_training_stop = now - self.started > 60 * self.minutes


def soak(minutes: float) -> dict[str, Any]:
    """One training run for so long, with evaluation and checkpoints on the way."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        write_rows(path := Path(folder, "rows.jsonl"), 2_000)
        write_rows(held := Path(folder, "held.jsonl"), 100)
        config = PreferenceConfig(
            output_dir=f"{folder}/run",
            ref_cache_dir=f"{folder}/cache",
            num_train_epochs=1_000_000,
            lr_scheduler_type="constant",
            learning_rate=1e-5,
            batch_size=32,
            eval_strategy="steps",
            eval_steps=200,
            save_steps=200,
            save_total_limit=2,
            logging_steps=50,
            use_cpu=True,
            bf16=False,
            report_to="none",
            disable_tqdm=True,
        )
        watch = Watch(minutes)
        trainer = PreferenceTrainer(
            model(hidden_size=64, num_hidden_layers=2),
            config,
            list(iter_rows(str(path))),
            list(iter_rows(str(held))),
            processing_class=tokenizer(),
            callbacks=[watch],
        )
        trainer.train()
    settled = watch.seen[len(watch.seen) // 10 :]  # the libraries are warm, and the first checkpoints are written
    hours = [one["minutes"] / 60 for one in settled]
    slopes = {name: theilslopes([one[name] for one in settled], hours) for name in ("resident", "fd", "task")}
    return {
        "minutes": minutes,
        "steps": settled[-1]["step"],
        "resident_bytes": {"first": settled[0]["resident"], "last": settled[-1]["resident"]},
        "change_an_hour": {
            name: dict(zip(("slope", "low", "high"), _three(of), strict=True)) for name, of in slopes.items()
        },
        "seen": watch.seen,
    }


def _three(found: Any) -> list[float]:
    return [float(found.slope), float(found.low_slope), float(found.high_slope)]


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Measure, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--soak_minutes", type=float, default=0.0)
    minutes = parser.parse_args().soak_minutes
    found, name = (soak(minutes), "soak") if minutes else (growing(), "many_rows")
    write_json(RESULTS / f"{name}.json", found | {"machine": machine(), "versions": versions()})


if __name__ == "__main__":
    main()
