"""What watches a run: one short line a log, and SIGTERM, which ends it with a checkpoint."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback
from transformers.trainer_callback import ProgressCallback

from bnf_align.training.health import COLOURS

if TYPE_CHECKING:
    from bnf_align.training.trainer import PreferenceTrainer

SHOWN = {
    "loss": "loss {:.4f}",
    "learning_rate": "lr {:.2e}",
    "grad_norm": "grad {:.3f}",
    "bnf/weight": "weight {:.3f}",
    "bnf/shift/chosen": "chosen {:+.4f}",
    "bnf/shift/rejected": "rejected {:+.4f}",
    "logps/chosen": "logps {:.1f}",
    "rewards/accuracies": "accuracy {:.1%}",
}
"""The metrics of a line and how they read; chosen and rejected are log-probability per token against the reference."""


class LineCallback(ProgressCallback):
    """`ProgressCallback` with lines that fit a terminal; `state.log_history` and trackers keep every metric."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write the line above the bar."""
        if not state.is_world_process_zero or self.training_bar is None or not logs:
            return
        if "train_runtime" in logs:  # the steps since the last line, all of them in a run shorter than that
            logs = {name: value for name, value in logs.items() if name in SHOWN}
        prefix = "eval_" if "eval_loss" in logs else ""
        shown = [text.format(logs[prefix + name]) for name, text in SHOWN.items() if prefix + name in logs]
        if (colour := COLOURS[int(logs.get(prefix + "bnf/health", 0))]) != "green":
            shown.append(f"health {colour}")
        if shown:
            self.training_bar.write(f"{prefix.rstrip('_') or 'step'} {state.global_step}: {', '.join(shown)}")


STATUS = 128 + signal.SIGTERM
"""The exit status of a process that ends by SIGTERM: 143."""


class StopOnSigterm(TrainerCallback):
    """While it is entered, SIGTERM ends training after the step that is on its way, with a checkpoint.

    Machines that may be taken away ask for it so.
    """

    def __init__(self, trainer: PreferenceTrainer) -> None:
        self.trainer, self._asked = trainer, False
        self.checkpoint: str | None = None
        """The folder of the checkpoint; None as long as no signal has come."""

    def __enter__(self) -> StopOnSigterm:
        self._before = signal.signal(signal.SIGTERM, self._ask)
        self.trainer.add_callback(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.trainer.remove_callback(self)
        signal.signal(signal.SIGTERM, self._before)

    def _ask(self, *_: object) -> None:
        self._asked = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop, on every rank, where any has had the signal: they hear of it at different steps."""
        asked = torch.tensor(float(self._asked), device=args.device)
        if args.world_size > 1:
            asked = self.trainer.accelerator.reduce(asked)
        if asked:
            control.should_save = control.should_training_stop = True
            self.checkpoint = f"{args.output_dir}/checkpoint-{state.global_step}"
