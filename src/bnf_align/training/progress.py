"""What a person sees while a run goes on: Trainer's bar, and one short line per log instead of every metric."""

from __future__ import annotations

from typing import Any

from transformers.trainer_callback import ProgressCallback

from bnf_align.training.health import COLOURS

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
