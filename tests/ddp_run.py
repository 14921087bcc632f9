"""Run by every process of `test_distributed.py`: the same small runs, whatever the number of processes.

usage: torchrun ddp_run.py FOLDER
"""

import os
import sys
from pathlib import Path

import torch

import conftest  # noqa: F401 (environment and threads, before anything else)
from runs import GradientProbe, make_trainer, pairs, perturb, singles

WORLD = int(os.environ.get("WORLD_SIZE", "1"))
TRL_KEYS = {"batch_size": None, "per_device_train_batch_size": 4 // WORLD, "gradient_accumulation_steps": 4}

RUNS = {
    "bnf": {"rows": [*pairs(5), *singles(7)], "batch_size": 12},
    "small micro-batches": {"rows": [*pairs(5), *singles(7)], "batch_size": 12, "max_tokens_per_micro_batch": 60},
    "TRL keys": {"rows": singles(16), **TRL_KEYS},
    "dpo": {"rows": pairs(6), "loss_type": "dpo"},
    "kto": {"rows": singles(10), "loss_type": "kto"},
    # Three units in steps of two: the second step has one unit, so one of two processes has nothing to do.
    "an idle process": {"rows": singles(3), "batch_size": 2, "max_steps": 2},
    "an idle process, pairs": {"rows": pairs(3), "loss_type": "dpo", "batch_size": 2, "max_steps": 2},
}


def run(folder: Path, rows: list[dict], **options) -> dict:
    probe = GradientProbe()
    trainer = perturb(make_trainer(folder, rows, eval_rows=rows[:-1], callbacks=[probe], **options))
    trainer.train()
    reported = trainer.evaluate()
    return {
        "gradient": probe.steps[-1],
        "log": {name: value for name, value in trainer.state.log_history[0].items() if name != "epoch"},
        "eval": {name: v for name, v in reported.items() if not name.endswith(("runtime", "per_second"))},
        "reference": trainer.prepared.reference.as_dict(),
    }


def main(folder: Path) -> None:
    results = {name: run(folder / name, **options) for name, options in RUNS.items()}
    if os.environ.get("RANK", "0") == "0":
        torch.save(results, folder / "results.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
