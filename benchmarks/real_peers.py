"""Training on a real chat model, step by step: our BNF, DPO and KTO beside TRL's DPOTrainer and KTOTrainer.

    python benchmarks/real_peers.py        # needs BNF_ALIGN_DATA and the model (`make real` fetches it)

SmolLM2-135M-Instruct in float32 trains on the same 48 pairs of people's preferences, 12 optimizer steps of 4 pairs
(KTO: of 8 responses), the reference computed beforehand, AdamW, one thread. Each side is a process of its own that
trains with its own `train()`; a step is taken only when its turn comes, in the order ABBA, so the times are paired.
Those of one objective run together: all at once they need more than 23 GB.
The time of a step is CPU time from its first forward pass to the end of the optimizer step. Memory is the peak of the
process after the model is loaded.

Writes the rows real-* of `results/claims.csv` and the losses of every step to `results/real_peers.json`.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from protocol import RESULTS, Estimate, bootstrap, machine, median_ratio, write_claim
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer

from bnf_align.config import PreferenceConfig
from bnf_align.data.batching import StepSampler
from bnf_align.data.read import iter_rows
from bnf_align.models import for_inference, load
from bnf_align.outputs import write_text
from bnf_align.training.record import versions
from bnf_align.training.trainer import PreferenceTrainer

PAIRS, BATCH, LONGEST, SEED, LEARNING_RATE, BETA = 48, 4, 256, 0, 1e-5, 0.1
SIDES = {"bnf": "bnf", "dpo": "dpo", "trl-dpo": DPOTrainer, "kto": "kto", "trl-kto": KTOTrainer}
TOGETHER = (("bnf", "dpo", "trl-dpo"), ("kto", "trl-kto"))
COMMON = {
    "learning_rate": LEARNING_RATE,
    "lr_scheduler_type": "constant",
    "num_train_epochs": 1,
    "max_length": LONGEST,
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "logging_first_step": True,
    "save_strategy": "no",
    "use_cpu": True,
    "bf16": False,
    "report_to": "none",
    "disable_tqdm": True,
    "seed": SEED,
}


def pairs(tokenizer: Any, path: Path) -> list[dict[str, Any]]:
    """The first 48 pairs that fit into 256 tokens, as text that both sides tokenise alike, with their lengths."""
    rows: list[dict[str, Any]] = []
    for row in iter_rows(str(path)):
        prompt = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        sides = {side: row[side][-1]["content"] for side in ("chosen", "rejected")}
        tokens = [len(tokenizer(prompt + text).input_ids) + 1 for text in sides.values()]
        if max(tokens) <= LONGEST and sides["chosen"] != sides["rejected"]:
            rows.append({"prompt": prompt, **sides})
        if len(rows) == PAIRS:
            return rows
    raise SystemExit(f"{path} has only {len(rows)} pairs of at most {LONGEST} tokens.")


class Turns(TrainerCallback):
    """Takes a step when told to, and sends its CPU seconds and its loss back."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe, self.seconds = pipe, 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Wait for the turn."""
        self.pipe.recv()
        self.start = time.process_time()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """The step, its optimizer included, is over."""
        self.seconds = time.process_time() - self.start

    def on_log(self, _: Any, state: Any, __: Any, logs: dict[str, Any], **___: Any) -> None:
        """Trainer logs after the step's end."""
        if "loss" in logs:
            self.pipe.send((self.seconds, float(logs["loss"])))


def side(name: str, model_path: str, data: str, pipe: Connection) -> None:
    """One side, in a process of its own."""
    torch.set_num_threads(1)
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    loaded = load(model_path, **for_inference("float32"))
    model, tokenizer = loaded.model, loaded.tokenizer
    rows = pairs(tokenizer, Path(data))
    folder = tempfile.mkdtemp()
    kind = SIDES[name]
    responses = name.endswith("kto")
    units = [one for row in rows for one in single(row)] if responses else rows
    batch = 2 * BATCH if responses else BATCH
    Path("/proc/self/clear_refs").write_text("5")
    if isinstance(kind, str):
        config = PreferenceConfig(
            output_dir=folder, ref_cache_dir=f"{folder}/cache", loss_type=kind, batch_size=batch, **COMMON
        )
        if kind != "bnf":
            config.beta = BETA
        trainer: Any = PreferenceTrainer(model, config, train_dataset=units, processing_class=tokenizer)
    else:
        units = [units[at] for step in StepSampler(len(units), batch, SEED) for at in step]
        trl_config = DPOConfig if kind is DPOTrainer else KTOConfig
        config = trl_config(
            output_dir=folder,
            per_device_train_batch_size=batch,
            train_sampling_strategy="sequential",
            precompute_ref_log_probs=True,
            beta=BETA,
            dataloader_pin_memory=False,
            **COMMON,
        )
        trainer = kind(model, args=config, train_dataset=Dataset.from_list(units), processing_class=tokenizer)
    trainer.add_callback(Turns(pipe))
    trainer.train()
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    pipe.send(int(peak.split()[1]) * 1024)


def single(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The two responses of a pair, one by one."""
    return [
        {"prompt": row["prompt"], "completion": row[name], "label": up}
        for name, up in (("chosen", True), ("rejected", False))
    ]


def gemm_rate() -> float:
    """Multiply-adds of this core, in FLOP per CPU second, at the sizes of the model's own layers."""
    torch.set_num_threads(1)
    a, b = torch.randn(1024, 576), torch.randn(576, 1536)
    for _ in range(3):
        a @ b
    rounds, start = 100, time.process_time()
    for _ in range(rounds):
        a @ b
    return rounds * 2 * 1024 * 576 * 1536 / (time.process_time() - start)


def needed(model_path: str, data: str) -> list[float]:
    """FLOPs that each pair needs, forward and backward: layers on every token, the head on scored ones, attention."""
    loaded = load(model_path, **for_inference("float32"))
    config, tokenizer = loaded.model.config, loaded.tokenizer
    head = config.vocab_size * config.hidden_size
    layers = sum(one.numel() for one in loaded.model.parameters()) - head  # the embedding is tied to the head
    rows = pairs(tokenizer, Path(data))
    flops = []
    for row in rows:
        total = 0.0
        for name in ("chosen", "rejected"):
            prompt = len(tokenizer(row["prompt"]).input_ids)
            length = len(tokenizer(row["prompt"] + row[name]).input_ids) + 1
            attention = 2 * config.num_hidden_layers * config.hidden_size * length * length / 2 * 2
            total += 3 * (2 * layers * length + attention + 2 * head * (length - prompt))
        flops.append(total)
    return flops


def in_turns(
    names: Sequence[str], model_path: str, data: str
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, int], list[float]]:
    """CPU seconds and loss of each step of these sides, their peak memory, and the rate of matmuls at each step."""
    context = multiprocessing.get_context("spawn")
    pipes, taken, rates = {}, {name: [] for name in names}, []
    for name in names:
        pipes[name], other = context.Pipe()
        context.Process(target=side, args=(name, model_path, data, other), daemon=True).start()
        other.close()
    for step in range(PAIRS // BATCH):
        rates.append(gemm_rate())
        for name in names[:: 1 if step % 2 == 0 else -1]:
            pipes[name].send("go")
            taken[name].append(pipes[name].recv())
        said = {name: f"{seconds[-1][0]:.1f} s, loss {seconds[-1][1]:.4f}" for name, seconds in taken.items()}
        print(f"\nstep {step + 1}: {said}", flush=True)
    return taken, {name: pipes[name].recv() for name in names}, rates


def main() -> None:
    """Train all sides in turns, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.environ.get("BNF_ALIGN_SMOLLM2", "SmolLM2-135M-Instruct.Q4_1.gguf"))
    arguments = parser.parse_args()
    data = os.path.join(os.environ["BNF_ALIGN_DATA"], "preference", "hh_rlhf_harmless_base_test.jsonl.gz")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    taken: dict[str, list[tuple[float, float]]] = {}
    peaks: dict[str, int] = {}
    rates: dict[str, list[float]] = {}
    for names in TOGETHER:
        found, memory, rate = in_turns(names, arguments.model, data)
        taken, peaks, rates = taken | found, peaks | memory, rates | dict.fromkeys(names, rate)
    times = {name: np.array([seconds for seconds, _ in steps]) for name, steps in taken.items()}
    flops = np.array(needed(arguments.model, data))
    flops = np.array([flops[step].sum() for step in StepSampler(PAIRS, BATCH, SEED)])
    setting = f"SmolLM2-135M-Instruct, float32, {PAIRS} pairs of people, batch {BATCH}, {len(flops)} steps"
    for claim, theirs, ours, bound in (
        ("real-dpo-trl", "trl-dpo", "dpo", 1.4),
        ("real-kto-trl", "trl-kto", "kto", 1.8),
    ):
        words = f"CPU time of an optimizer step, TRL's {theirs[4:].upper()} over our {ours.upper()}; {setting}"
        write_claim(claim, words, median_ratio(times[theirs], times[ours]), f"low >= {bound}")
        memory = peaks[ours] / peaks[theirs]
        words = (
            f"peak memory of the process, our {ours.upper()} ({peaks[ours] / 2**20:.0f} MiB) over TRL's "
            f"{theirs[4:].upper()} ({peaks[theirs] / 2**20:.0f}); {setting}"
        )
        write_claim(f"{claim}-memory", words, Estimate(memory, memory, memory), "figure <= 0.8")
    shares = {
        name: bootstrap(
            np.stack([flops, of * np.array(rates[name])], 1), lambda rows: rows[:, 0].sum() / rows[:, 1].sum()
        )
        for name, of in times.items()
    }
    listed = ", ".join(f"{name} {one.figure:.0%}" for name, one in shares.items())
    words = (
        f"needed FLOPs over CPU time, as a share of the machine's matrix-multiply rate, BNF; all: {listed}; {setting}"
    )
    write_claim("real-gemm-share", words, shares["bnf"], "low >= 0.7")
    record = {
        "setting": setting,
        "machine": machine(),
        "versions": versions(),
        "command": "python benchmarks/real_peers.py",
        "losses": {name: [loss for _, loss in steps] for name, steps in taken.items()},
        "step_time_over_bnf": {name: (of / times["bnf"]).tolist() for name, of in times.items()},
        "peak_memory_over_bnf": {name: one / peaks["bnf"] for name, one in peaks.items()},
    }
    write_text(RESULTS / "real_peers.json", json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
