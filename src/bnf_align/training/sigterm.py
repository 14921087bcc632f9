"""SIGTERM while training: a checkpoint at the end of the step, as machines that may be taken away ask for."""

from __future__ import annotations

import signal
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

if TYPE_CHECKING:
    from bnf_align.training.trainer import PreferenceTrainer

STATUS = 128 + signal.SIGTERM
"""The exit status of a process that ends by SIGTERM: 143."""


class StopOnSigterm(TrainerCallback):
    """While it is entered, SIGTERM ends training after the step that is on its way, with a checkpoint.

    Args:
        trainer: Whose training.
    """

    def __init__(self, trainer: PreferenceTrainer) -> None:
        self.trainer, self._asked = trainer, False
        self.checkpoint: str | None = None
        """The folder of the checkpoint; None as long as no signal has come."""

    def __enter__(self) -> StopOnSigterm:
        self._before = signal.signal(signal.SIGTERM, self._ask)
        self.trainer.add_callback(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
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
