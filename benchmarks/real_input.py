"""The main job on real input: fine-tune a small Llama on the ups, align it with BNF, measure on held-out prompts.

    BNF_ALIGN_DATA=... python benchmarks/real_input.py [--output_dir outputs/real-input]

For each data set it runs the three commands that docs/real-input.md shows, through the command line, and then measures
on the prompts that `--eval_fraction` held out of both trainings: the mean log-probability per token of ups and of
downs, before and after BNF, and the growth of the gap between them with a bootstrap interval over prompts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bnf_align.data.read import iter_rows
from bnf_align.data.responses import Responses
from bnf_align.data.rows import preference_rows, split_by_prompt
from bnf_align.data.tokenize import tokenize_rows
from bnf_align.logps import completion_logps
from bnf_align.training.record import versions

DATA = {
    "gsm8k": "preference/gsm8k_model_solutions.unpaired.jsonl.gz",
    "hh": "preference/hh_rlhf_harmless_base_test.jsonl.gz",
}
EVAL_FRACTION = 0.3
COMMON = ["--max_length", "512", "--eval_fraction", str(EVAL_FRACTION), "--save_strategy", "no", "--batch_size", "32"]
SFT = ["--loss_type", "sft", "--learning_rate", "1e-3", "--num_train_epochs", "6"]
BNF = ["--loss_type", "bnf", "--learning_rate", "1e-5", "--num_train_epochs", "3"]
RESULTS = Path(__file__).parent / "results"


def commands(data: str, folder: Path) -> list[list[str]]:
    """The three commands: a base with random weights, fine-tuning on the ups, alignment."""
    small, sft, bnf = (str(folder / name) for name in ("small", "sft", "bnf"))
    train = ["bnf-align", "train", "--dataset_name", data]
    cache = ["--ref_cache_dir", str(folder / "cache")]
    return [
        ["python", "benchmarks/small_llama.py", data, small],
        [*train, "--model_name_or_path", small, "--output_dir", sft, *SFT, *COMMON],
        [*train, "--model_name_or_path", sft, "--output_dir", bnf, *BNF, *COMMON, *cache],
    ]


def run(command: list[str]) -> None:
    """Run one command with this Python, showing what it prints."""
    programs = {"python": [sys.executable], "bnf-align": [sys.executable, "-m", "bnf_align"]}
    print(f"\n$ {' '.join(command)}", flush=True)
    subprocess.run([*programs[command[0]], *command[1:]], check=True)


@torch.no_grad()
def held_out_logps(model_path: Path, data: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean log-probability per token, label and prompt number of every held-out response."""
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    model = AutoModelForCausalLM.from_pretrained(model_path, dtype=torch.float32).eval()
    rows, _ = preference_rows(iter_rows(data), source=data)
    held, report = preference_rows(split_by_prompt(rows, EVAL_FRACTION)[1], source="held-out rows")
    dataset = tokenize_rows(held, tokenizer, report, max_length=512)
    responses = Responses(dataset)
    logps = []
    for start in range(0, len(responses), 16):
        batch = responses.collate(range(start, min(start + 16, len(responses))), tokenizer.pad_token_id)
        logps.append(completion_logps(model, batch).mean_logp)
    prompts = {row["row"]: json.dumps(row["prompt"]) for row in held}
    _, numbers = np.unique([prompts[row] for row in dataset["row"]], return_inverse=True)
    return torch.cat(logps).numpy(), responses.labels, numbers


def gap(logps: np.ndarray, labels: np.ndarray) -> float:
    """Mean of ups minus mean of downs."""
    return float(logps[labels].mean() - logps[~labels].mean())


def growth_interval(change: np.ndarray, labels: np.ndarray, prompts: np.ndarray, draws: int = 4000) -> list[float]:
    """95 % interval of the gap's growth: prompts are drawn with replacement, with all their responses."""
    random = np.random.default_rng(0)
    counts = np.zeros((prompts.max() + 1, 4))  # per prompt: sum and number of ups, sum and number of downs
    np.add.at(counts, (prompts, np.where(labels, 0, 2)), change)
    np.add.at(counts, (prompts, np.where(labels, 1, 3)), 1)
    drawn = [counts[random.integers(0, len(counts), len(counts))].sum(0) for _ in range(draws)]
    growths = [up / ups - down / downs for up, ups, down, downs in drawn]
    return [round(float(value), 5) for value in np.quantile(growths, [0.025, 0.975])]


def measure(name: str, data: str, folder: Path) -> dict:
    """Run the three commands and measure."""
    steps = commands(data, folder)
    for command in steps:
        run(command)
    before, labels, prompts = held_out_logps(folder / "sft", data)
    after, _, _ = held_out_logps(folder / "bnf", data)
    return {
        "data": name,
        "held_out": {"prompts": int(prompts.max()) + 1, "ups": int(labels.sum()), "downs": int((~labels).sum())},
        "ups": [round(float(values[labels].mean()), 4) for values in (before, after)],
        "downs": [round(float(values[~labels].mean()), 4) for values in (before, after)],
        "gap": [round(gap(values, labels), 4) for values in (before, after)],
        "gap_growth": round(gap(after, labels) - gap(before, labels), 5),
        "gap_growth_95": growth_interval(after - before, labels, prompts),
    }


def main() -> None:
    """Run both data sets, print a table, and keep the figures with machine and versions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("outputs/real-input"))
    parser.add_argument("--only", choices=sorted(DATA), help="one of the two data sets")
    arguments = parser.parse_args()
    root = os.environ.get("BNF_ALIGN_DATA")
    if not root:
        sys.exit("Set BNF_ALIGN_DATA to the folder of the public data.")
    names = [arguments.only] if arguments.only else sorted(DATA)
    results = [measure(name, str(Path(root) / DATA[name]), arguments.output_dir / name) for name in names]
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "versions": versions()}
    settings = {"sft": SFT, "bnf": BNF, "common": COMMON}
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"results": results, "settings": settings, **machine}, indent=1)
    (RESULTS / "real_input.json").write_text(text + "\n")
    print("\n| data | held-out prompts | ups before, after | downs before, after | growth of the gap (95 %) |")
    print("|---|---|---|---|---|")
    for found in results:
        sides = [f"{found[side][0]:.3f}, {found[side][1]:.3f}" for side in ("ups", "downs")]
        low, high = found["gap_growth_95"]
        growth = f"{found['gap_growth']:+.4f} ({low:+.4f} to {high:+.4f})"
        print(f"| {found['data']} | {found['held_out']['prompts']} | {sides[0]} | {sides[1]} | {growth} |")


if __name__ == "__main__":
    main()
