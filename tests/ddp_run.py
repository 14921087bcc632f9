"""Run by every process of `test_distributed.py`: the same small runs, whatever the processes and the sharding.

usage: torchrun ddp_run.py FOLDER [fsdp2]
"""

import os
import sys
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.distributed.tensor import DTensor

import conftest  # noqa: F401 (environment and threads, before anything else)
from bnf_align.reference.cache import namespaces
from bnf_align.reference.compute import Forward
from fsdp_on_cpu import end_here, shard_on_cpu
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
    "bco": {"rows": singles(10), "loss_type": "bco", "batch_size": 4, "max_steps": 4},
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


def own_disks(folder: Path) -> dict:
    """Processes on nodes of their own, each with a disk of its own: what each computed, read and stored."""
    rank = os.environ.get("RANK", "0")
    here = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    before = {name: os.environ.get(name) for name in here}
    os.environ.update(here)
    forwarded, compute = [], Forward.__call__

    def counted(self, model, responses, rows):
        forwarded.extend(rows)
        return compute(self, model, responses, rows)

    Forward.__call__ = counted
    PartialState().local_process_index = 0
    try:
        disk = folder / f"disk {rank}"
        trainer = make_trainer(folder, singles(20), ref_cache_dir=str(disk), max_tokens_per_micro_batch=40)
        stored = sum(info.rows for info in namespaces(disk))
        values = torch.from_numpy(trainer.train_dataset.responses.ref_logps.copy())
        again = make_trainer(folder, singles(20), ref_cache_dir=str(disk)).prepared.reference.computed_tokens
    finally:
        Forward.__call__ = compute
        PartialState().local_process_index = int(before["LOCAL_RANK"] or 0)
        os.environ.update({name: value for name, value in before.items() if value is not None})
    return {"computed": len(forwarded), "stored": stored, "values": values, "again": again}


class WholeGradients:
    """Counts the gradients that a device holds unsharded between two micro-batches."""

    def __init__(self):
        self.found, self.micro_batches = 0, 0

    def look(self, model) -> None:
        self.micro_batches += 1
        for module in model.modules():
            group = getattr(getattr(module, "_get_fsdp_state", lambda: None)(), "_fsdp_param_group", None)
            for parameter in group.fsdp_params if group else ():
                whole = getattr(parameter, "_unsharded_param", None)
                self.found += parameter.unsharded_accumulated_grad is not None
                self.found += whole is not None and whole.grad is not None


def whole_gradients(folder: Path) -> dict:
    """What a step of several micro-batches keeps on each device between them."""
    trainer = make_trainer(folder, singles(12), max_tokens_per_micro_batch=40)
    seen, backward = WholeGradients(), trainer.accelerator.backward

    def look_after(loss, **kwargs):
        backward(loss, **kwargs)
        seen.look(trainer.model)

    trainer.accelerator.backward = look_after
    trainer.train()
    return {"whole": seen.found, "micro_batches": seen.micro_batches}


def main(folder: Path, sharding: str | None = None) -> None:
    if sharding == "fsdp2":
        shard_on_cpu()
    results = {name: run(folder / name, **options) for name, options in RUNS.items()}
    results["bfloat16"] = run(folder / "bfloat16", singles(24), batch_size=24, bf16=True, use_cpu=True, untouched=True)
    results["resume"] = resume(folder / "resume")
    results["whole gradients"] = whole_gradients(folder / "whole gradients")
    results["own disks"] = gather_object([own_disks(folder / "own disks")])
    if os.environ.get("RANK", "0") == "0":
        torch.save(results, folder / "results.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
    end_here()
