"""What a run leaves behind for people and programs: `health.json`, and after the weights `run.json` and the card."""

from __future__ import annotations

import platform
import resource
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bnf_align.outputs import write_json, write_text
from bnf_align.plan.plan import plan_of_run, resident_bytes
from bnf_align.records import DataReport
from bnf_align.training.health import COLOURS, Health, health, recent, samples_health

if TYPE_CHECKING:
    from bnf_align.training.trainer import PreferenceTrainer

PACKAGES = ("bnf-align", "torch", "transformers", "accelerate", "datasets", "peft", "bitsandbytes")


def versions() -> dict[str, str]:
    """Versions of Python and of every package that a result may depend on; absent packages are left out."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def peak_memory() -> int:
    """Bytes at the peak: of the device where there is one, else of this process since it started."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if (status := Path("/proc/self/status")).exists():  # getrusage has the peak of whoever started this process too
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


class RunRecord:
    """Measures one call of `train` and writes `run.json` and the model card `README.md` beside the weights."""

    def __init__(self, trainer: PreferenceTrainer) -> None:
        self.trainer, self.started, self.seconds, self.tokens = trainer, 0.0, 0.0, 0
        self.plan: dict[str, Any] | None = None
        self.command: str | None = None
        """What made the run, where it was a command."""
        self.resident = resident_bytes()  # before training adds to it: what a plan can know

    def start(self) -> None:
        """Training starts now."""
        self.started, self.trainer.tokens_seen = time.monotonic(), 0

    def finish(self) -> None:
        """Training has ended."""
        self.seconds = time.monotonic() - self.started
        seen = torch.tensor(self.trainer.tokens_seen, device=self.trainer.args.device)
        self.tokens = int(self.trainer.accelerator.reduce(seen))

    def metrics(self) -> dict[str, float]:
        """The last value of everything that was logged."""
        return {name: value for line in self.trainer.state.log_history for name, value in line.items()}

    def health(self) -> Health:
        """The run in plain words, from its evaluation sets where there are any; the colour is that of the worst."""
        metrics, given = self.metrics(), self.trainer.eval_dataset
        sets = given if isinstance(given, dict) else {"": given}
        judged = []
        for name, steps in sets.items():
            if steps is None:  # what --eval_task measures has the prefix of evaluation rows, too
                continue
            prefix = f"eval_{name}_" if name else "eval_"
            found = {key.removeprefix(prefix): value for key, value in metrics.items() if key.startswith(prefix)}
            if found:
                judged.append((f"{name}: " if name else "", health(found, len(steps.responses))))
        judged = judged or [("", health(metrics | recent(self.trainer.state.log_history)))]
        judged += [("", one) for one in samples_health(metrics)]
        colour = max((one.colour for _, one in judged), key=COLOURS.index)
        return Health(colour, " ".join(title + one.text for title, one in judged))

    def write_health(self, finished: bool = False) -> None:
        """Write `health.json`, the verdict so far and every log line with its colour, on the main process."""
        state = self.trainer.state
        if not self.trainer.is_world_process_zero():
            return
        verdict = self.health()
        lines = [
            {**line, "colour": COLOURS[int(line["bnf/health"])]} if "bnf/health" in line else line
            for line in state.log_history
        ]
        record = {
            "colour": verdict.colour,
            "text": verdict.text,
            "step": state.global_step,
            "max_steps": state.max_steps,
            "finished": finished,
            "history": lines,
        }
        write_json(Path(str(self.trainer.args.output_dir)) / "health.json", record)

    def as_dict(self) -> dict[str, Any]:
        """The contents of `run.json`."""
        trainer = self.trainer
        reference = trainer.prepared.reference
        return {
            "model": trainer.model_name,
            "loss_type": trainer.args.loss_type,
            "loss_kwargs": trainer.loss_kwargs,
            "seed": trainer.args.seed,
            "devices": trainer.args.world_size,
            "data": {name: report.as_dict() for name, report in trainer.prepared.reports.items()},
            "reference": reference.as_dict() if reference else None,
            "metrics": self.metrics(),
            "verdict": self.health().text,
            "health": self.health().colour,
            "train_seconds": round(self.seconds, 3),
            "tokens_per_second": round(self.tokens / self.seconds, 1) if self.seconds else None,
            "peak_memory_bytes": peak_memory(),
            "plan": self.plan,
            "command": self.command,
            "versions": versions(),
            "arguments": trainer.args.to_dict(),
        }

    def write(self) -> None:
        """Write both files into the output folder, on the main process."""
        if not self.trainer.is_world_process_zero():
            return
        trainer, evaluation = self.trainer, dict(self.trainer.prepared.steps)
        if self.plan is None and (steps := evaluation.pop("train", None)):
            policy, sharded = trainer.accelerator.unwrap_model(trainer.model), bool(trainer.is_fsdp_enabled)
            others = list(evaluation.values())
            self.plan = plan_of_run(policy, trainer.args, steps, others, sharded=sharded, resident=self.resident)
        record, folder = self.as_dict(), Path(str(self.trainer.args.output_dir))
        write_text(folder / "README.md", model_card(record, self.trainer.prepared.reports))
        write_json(folder / "run.json", record)
        self.write_health(finished=True)


def model_card(record: dict[str, Any], reports: dict[str, DataReport]) -> str:
    """The model card of a run, from its `run.json`; of a model in a folder the folder is named, not the way there."""
    model = Path(record["model"]).name if Path(record["model"]).exists() else record["model"]
    reference = record["reference"]
    settings = ", ".join(f"{name} {value}" for name, value in record["loss_kwargs"].items())
    used = [f"{name} {number}" for name, number in record["versions"].items()]
    data = "\n".join(line for report in reports.values() for line in report.lines())
    numbers = [(name, value) for name, value in sorted(record["metrics"].items()) if isinstance(value, int | float)]
    metrics = "\n".join(f"| {name} | {value:.4g} |" for name, value in numbers)
    return f"""---
library_name: transformers
base_model: {model}
tags: [bnf-align, {record["loss_type"]}]
---

# {model}, trained with {record["loss_type"]}

Trained by bnf-align from `{model}`, the reference of the loss.

* Objective: `{record["loss_type"]}` ({settings or "no hyper-parameters"}), learning rate \
{record["arguments"]["learning_rate"]}, {record["arguments"]["batch_size"]} examples per step, seed {record["seed"]}
* Reference cache: {f"`{reference['namespace']}`" if reference else "not needed"}
* Versions: {", ".join(used)}

## Data

```
{data}
```

## Last logged metrics

{record["verdict"]}

| metric | value |
|---|---|
{metrics}
"""
