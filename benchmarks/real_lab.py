"""The methods on a real chat model: equal grids, seeds, a rule to learn, IFEval and plain text as tax.

    python benchmarks/real_lab.py --minutes 120        # another sitting goes on; needs BNF_ALIGN_DATA for the tax
    make real-lab

SmolLM2-135M-Instruct answers prompts of a topic and one rule (`bnf_align.lab.real`); of a prompt with right and wrong
answers one of each is a pair, on which every method trains. `bnf-align compare` does the rest, run by run, with one
method more each time, so that what is finished stands when the time is over. Writes `results/real_lab.csv`: a row for
each method and measure, "not measured" where no sitting has come so far.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from protocol import RESULTS

from bnf_align.construct.choice import Choice
from bnf_align.construct.dataset import write_selection
from bnf_align.data.read import iter_rows
from bnf_align.engines.local import LocalEngine
from bnf_align.lab.real import VERIFIER, Sizes, prompts, thumbs, topics_of
from bnf_align.models import for_inference, load
from bnf_align.outputs import write_text
from bnf_align.training.record import versions

METHODS = ("bnf", "sft", "bnf_asymmetric", "dpo", "kto", "topr", "apo_zero", "nll_pll", "simpo", "orpo")
"""In the order in which they are trained: the first ones are there first."""
RATES = [2e-5, 6e-5]
SEEDS = [0, 1, 2]
MEASURES = ("rule accuracy",)
"""What there is before anything is measured."""
COLUMNS = ("method", "measure", "unit", "mean", "low", "high", "chosen", "prompts", "seeds", "command", "versions")
SIZES = Sizes(topics=48, held_out=16, samples=6)
"""All topics that there are."""
ENDS = ("mean", "low", "high")
UNITS = {"tokens": "tokens", "never_ended": "share", "distinct_3": "share"}
"""Of what answers are like: `answers_summary`."""
ITEMS, IFEVAL_TOKENS = 40, 192
"""Of IFEval and of each set of texts the first so many; an answer to IFEval is cut at so many tokens."""


def main() -> None:
    """Make the data, compare as long as there is time, and write what is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.environ.get("BNF_ALIGN_SMOLLM2", "SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--folder", type=Path, default=Path("outputs/real_lab"))
    parser.add_argument("--results", type=Path, default=RESULTS / "real_lab.csv")
    arguments = parser.parse_args()
    folder = arguments.folder
    ends = time.monotonic() + 60 * arguments.minutes
    if not (folder / "compare.yaml").exists():
        write_text(folder / "compare.yaml", in_order(config(arguments.model, folder, list(METHODS))))
    whole = yaml.safe_load((folder / "compare.yaml").read_text(encoding="utf-8"))
    for count in range(1, len(METHODS) + 1):
        path = folder / f"compare-{count}.yaml"
        methods = dict(list(whole["methods"].items())[:count])
        write_text(path, in_order(whole | {"methods": methods}))
        run = subprocess.Popen([sys.executable, "-m", "bnf_align", "compare", "--config", str(path)])
        try:
            run.wait(max(ends - time.monotonic(), 1))
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGINT)
            run.wait()
            print("The time is over; the same command goes on.")
            break
        if run.returncode:
            sys.exit(run.returncode)
        write_results(folder / "comparison" / "compare.json", arguments.results)


def in_order(found: dict[str, Any]) -> str:
    """As YAML, whose methods stand in the order in which they are trained."""
    return yaml.safe_dump(found, sort_keys=False)


def config(model: str, folder: Path, methods: list[str], sizes: Sizes | None = None) -> dict[str, Any]:
    """The rows and prompts of a comparison, in `folder`, and its configuration."""
    sizes = sizes or SIZES
    seen, held_out = topics_of(0, sizes)
    loaded = load(model, **for_inference("float32"))
    thumbs(LocalEngine(loaded.model, loaded.tokenizer, name=model), seen, folder / "data", 0, sizes)
    write_selection(folder / "data" / "scored.jsonl", folder / "pairs.jsonl", Choice())
    few = len(held_out) // 4
    for name, topics in (("validation", held_out[:few]), ("test", held_out[few:])):
        write_text(folder / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in prompts(topics)))
    evaluations: dict[str, Any] = {
        "rule": {
            "rule": VERIFIER,
            "data": str(folder / "test.jsonl"),
            "validation": str(folder / "validation.jsonl"),
            "temperature": 0.8,
            "max_new_tokens": sizes.max_new_tokens,
        }
    }
    if data := os.environ.get("BNF_ALIGN_DATA"):
        tax = {"ifeval": {"task": "ifeval", "data": f"{data}/ifeval/items.jsonl.gz", "max_new_tokens": IFEVAL_TOKENS}}
        for name, rows in texts(Path(data)).items():
            write_text(folder / f"{name}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
            tax[name] = {"likelihood": str(folder / f"{name}.jsonl")}
        evaluations |= {name: {**one, "limit": ITEMS, "tax": True} for name, one in tax.items()}
    return {
        "model": model,
        "data": str(folder / "pairs.jsonl"),
        "out": str(folder / "comparison"),
        "validation": 0.2,
        "test": 0.2,
        "seeds": SEEDS,
        "grid": {"batch_size": [4], "learning_rate": RATES},
        "methods": dict.fromkeys(methods),
        "evaluations": evaluations,
        "choose_by": "rule",
        "settings": {"num_train_epochs": 1, "max_length": 256},
    }


def texts(data: Path) -> dict[str, list[dict[str, Any]]]:
    """Texts that nobody trained on: worked solutions, and preferred answers of people."""
    solutions = [
        {"prompt": row["question"] + "\n", "completion": row["answer"], "label": True}
        for row, _ in zip(iter_rows(str(data / "gsm8k" / "test.jsonl.gz")), range(ITEMS), strict=False)
    ]
    chosen = [
        row
        for row, _ in zip(
            iter_rows(str(data / "preference" / "hh_rlhf_harmless_base_test.jsonl.gz")), range(ITEMS), strict=False
        )
    ]
    return {"gsm8k": solutions, "hh": chosen}


def write_results(record: Path, out: Path) -> None:
    """A row for each method and measure; what is not in the record is not measured."""
    found = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {"methods": {}, "measures": []}
    measures = found["measures"] or [{"name": name, "unit": "%", "prompts": ""} for name in MEASURES]
    about = {"command": "make real-lab", "versions": " ".join(f"{name}={one}" for name, one in versions().items())}
    rows: list[dict[str, Any]] = []
    for method in ("base", *METHODS):
        of_method = found["methods"].get(method, {})
        seeds = (1 if method == "base" else len(found["seeds"])) if of_method else ""
        same = {"method": method, "chosen": json.dumps(of_method.get("chosen") or {}), "seeds": seeds} | about
        for one in measures:
            value = of_method.get("values", {}).get(one["name"]) or dict.fromkeys(ENDS, "not measured")
            told = {"measure": one["name"], "unit": one["unit"], "prompts": one["prompts"]}
            rows.append(same | told | {end: value[end] for end in ENDS})
        for evaluation, answers in of_method.get("answers", {}).items():
            for what, mean in answers.items():
                told = {"measure": f"{evaluation} answers: {what}", "unit": UNITS[what], "prompts": ""}
                rows.append(same | told | {"mean": mean, "low": "", "high": ""})
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
