"""Claim 5: how far each method of the quickstart moved its base, on five seeds, each with a base and data of its own.

    python benchmarks/shifts.py [FOLDER]

FOLDER (build/shifts) keeps the quickstart and the analysis of every seed; what is finished there is not made again.
Some seven minutes a seed on one core. Writes `results/lab/shifts.json`, which `lab_claims.py` turns into the table.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from protocol import RESULTS

from bnf_align.outputs import write_json
from bnf_align.training.record import versions

SEEDS = range(5)
NAMES = {"BNF": "model", "bnf_asymmetric": "bnf_asymmetric", "DPO": "dpo", "KTO": "kto", "SFT": "sft"}
"""Method -> its folder in the quickstart's."""
LEFT_OUT = ("most_changed", "pairs", "rows", "read")
"""Of a method's summary: what is long, or is no number."""


def commands(seed: int) -> tuple[list[str], list[str]]:
    """The two that make one seed, in its folder."""
    models = [f"{name}=quickstart/{folder}" for name, folder in NAMES.items()]
    data = ["--reference", f"quickstart/base-{seed}", "--data", "quickstart/unseen/preferences.jsonl"]
    quickstart = ["quickstart", "--seed", str(seed), "--output_dir", "quickstart"]
    return quickstart, ["analyze", "--model", *models, *data, "--out", "shifts"]


def of_seed(folder: Path, seed: int) -> dict[str, Any]:
    """The numbers of one seed, made where they are not there yet."""
    done = folder / "shifts" / "summary.json"
    if not done.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for command in commands(seed):
            subprocess.run([sys.executable, "-m", "bnf_align", *command], cwd=folder, check=True)
    found = json.loads(done.read_text(encoding="utf-8"))
    methods = {
        method: {name: value for name, value in numbers.items() if name not in LEFT_OUT}
        for method, numbers in found["methods"].items()
    }
    return {"bins": found["bins"], "methods": methods}


def main() -> None:
    """Make what is missing and write all of it."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "build/shifts")
    seeds = {str(seed): of_seed(folder / f"s{seed}", seed) for seed in SEEDS}
    said = "; ".join(" ".join(["bnf-align", *command]) for command in commands(0))
    write_json(RESULTS / "lab" / "shifts.json", {"command": said, "versions": versions(), "seeds": seeds})


if __name__ == "__main__":
    main()
