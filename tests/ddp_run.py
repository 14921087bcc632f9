"""Run by every process of `test_distributed.py`: the same small runs, whatever the processes and the sharding.

usage: torchrun ddp_run.py FOLDER [fsdp2]
"""

import os
import sys
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

import conftest  # noqa: F401 (environment and threads, before anything else)
from fsdp_on_cpu import shard_on_cpu
from runs import GradientProbe, make_trainer, pairs, perturb, singles

WORLD = int(os.environ.get("WORLD_SIZE", "1"))
TRL_KEYS = {"batch_size": None, "per_device_train_batch_size": 4 // WORLD, "gradient_accumulation_steps": 4}

RUNS = {
    "bnf": {"rows": [*pairs(5), *singles(7)], "batch_size": 12},
    "small micro-batches": {"rows": [*pairs(5), *singles(7)], "batch_size": 12, "max_tokens_per_micro_batch": 60},
    "packing": {"rows": [*pairs(5), *singles(7)], "packing": True, "batch_size": 12, "max_tokens_per_micro_batch": 90},
    "TRL keys": {"rows": singles(16), **TRL_KEYS},
    "dpo": {"rows": pairs(6), "loss_type": "dpo"},
    "kto": {"rows": singles(10), "loss_type": "kto"},
    # Three units in steps of two: the second step has one unit, so one of two processes has nothing to do.
    "an idle process": {"rows": singles(3), "batch_size": 2, "max_steps": 2},
    "an idle process, pairs": {"rows": pairs(3), "loss_type": "dpo", "batch_size": 2, "max_steps": 2},
    "packed, an idle one": {"rows": pairs(3), "loss_type": "dpo", "packing": True, "batch_size": 2, "max_steps": 2},
}


RESUMED = {"batch_size": 4, "max_steps": 6, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch"}


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of `tensor`, gathered from all processes where it is sharded."""
    return tensor.full_tensor().clone() if isinstance(tensor, DTensor) else tensor.detach().clone()


def run(folder: Path, rows: list[dict], untouched: bool = False, **options) -> dict:
    """The last step's gradient and what was reported, of a policy that is not the reference any more."""
    probe = GradientProbe(whole)
    trainer = make_trainer(folder, rows, eval_rows=rows[:-1], callbacks=[probe], **options)
    if not untouched:
        perturb(trainer)
    trainer.train()
    reported = trainer.evaluate()
    return {
        "gradient": probe.steps[-1],
        "log": {name: value for name, value in trainer.state.log_history[0].items() if name != "epoch"},
        "eval": {name: v for name, v in reported.items() if not name.endswith(("runtime", "per_second"))},
        "reference": trainer.prepared.reference.as_dict(),
        "sharded": all(isinstance(p, DTensor) for p in trainer.model.parameters()),
    }


def resume(folder: Path) -> dict:
    """Final weights of an uninterrupted run, and of one that goes on from its second checkpoint."""
    weights = {}
    for name, checkpoint in (("uninterrupted", None), ("resumed", str(folder / "run" / "checkpoint-2"))):
        trainer = make_trainer(folder, singles(14), **RESUMED)
        trainer.train(resume_from_checkpoint=checkpoint)
        weights[name] = {key: whole(p) for key, p in trainer.model.named_parameters()}
        trainer.save_model(str(folder / name))
    return weights


def main(folder: Path, sharding: str | None = None) -> None:
    if sharding == "fsdp2":
        shard_on_cpu()
    results = {name: run(folder / name, **options) for name, options in RUNS.items()}
    results["bfloat16"] = run(folder / "bfloat16", singles(24), batch_size=24, bf16=True, use_cpu=True, untouched=True)
    results["resume"] = resume(folder / "resume")
    if os.environ.get("RANK", "0") == "0":
        torch.save(results, folder / "results.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
