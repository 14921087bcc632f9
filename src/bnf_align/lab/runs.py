"""The training runs of the quickstart: SFT makes the base, BNF aligns it, other methods beside it, by one trainer."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers.trainer_callback import ProgressCallback

from bnf_align.config import PreferenceConfig
from bnf_align.lab.model import MAX_TOKENS, build_model, build_tokenizer
from bnf_align.lab.world import demonstrations
from bnf_align.losses import LOSSES
from bnf_align.outputs import write_json
from bnf_align.records import PreferenceRow
from bnf_align.training.record import versions
from bnf_align.training.trainer import PreferenceTrainer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How long everything is. The defaults take four to five minutes of one core."""

    sft_steps: int = 700
    sft_batch_size: int = 64
    sft_learning_rate: float = 2e-3
    prompts: int = 1000
    """Prompts that the base answers for the preference data."""
    samples: int = 5
    """Answers to each."""
    steps: int = 120
    batch_size: int = 48
    learning_rate: float = 1e-4
    eval_prompts: int = 2000
    """Fresh prompts of each skill."""


def base_model(
    folder: Path, seed: int, settings: Settings, held_out: Mapping[str, Sequence[str]]
) -> tuple[Path, bool]:
    """The folder of a base trained on demonstrations, and whether a finished one with these settings was there."""
    made_with = {name: value for name, value in asdict(settings).items() if name.startswith("sft_")}
    made_with |= {"seed": seed, "eval_prompts": settings.eval_prompts, "versions": versions()}
    finished = folder / "finished.json"
    if finished.exists() and json.loads(finished.read_text(encoding="utf-8")) == made_with:
        logger.info(f"using the finished base in {folder}")
        return folder, True
    finished.unlink(missing_ok=True)
    tokenizer = build_tokenizer()
    avoid = {prompt for prompts in held_out.values() for prompt in prompts}
    config = PreferenceConfig(
        loss_type="sft",
        batch_size=settings.sft_batch_size,
        learning_rate=settings.sft_learning_rate,
        max_steps=settings.sft_steps,
        adam_beta2=0.98,
        logging_steps=20,
        **common(folder, seed),
    )
    rows = demonstrations(settings.sft_steps * settings.sft_batch_size, f"demonstrations {seed}", avoid)
    trainer = PreferenceTrainer(build_model(tokenizer, seed), config, rows, processing_class=tokenizer)
    train(trainer, "SFT")
    write_json(finished, made_with)
    return folder, False


def align(
    base: Path, rows: Sequence[PreferenceRow], out: Path, seed: int, settings: Settings, method: str = "bnf"
) -> PreferenceTrainer:
    """The trainer after `method` on `rows`, from the base; its model is in `out/METHOD`, that of bnf in `out/model`.

    A step has as many answers whatever the method: half as many pairs where it takes pairs.
    """
    config = PreferenceConfig(
        loss_type=method,
        batch_size=settings.batch_size // (2 if LOSSES[method].pairwise else 1),
        learning_rate=settings.learning_rate,
        max_steps=settings.steps,
        ref_cache_dir=str(out / "cache"),
        logging_steps=5,
        **common(out / ("model" if method == "bnf" else method), seed),
    )
    trainer = PreferenceTrainer(str(base), config, train_dataset=rows)
    train(trainer, method)
    return trainer


def common(folder: Path, seed: int) -> dict[str, Any]:
    """Settings that every training of the tiny world has."""
    # On the CPU even where there is a GPU: it is as fast at this size, and the numbers compare between machines.
    quiet = {"report_to": "none", "save_strategy": "no", "use_cpu": True}
    return {"output_dir": str(folder), "seed": seed, "max_length": MAX_TOKENS, **quiet}


def train(trainer: PreferenceTrainer, name: str) -> None:
    """Train and save, with one bar called `name`."""
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(_Bar(name))
    trainer.train()
    trainer.save_model()


class _Bar(ProgressCallback):
    """Trainer's progress bar with the loss behind it, where Trainer would print every log line."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        super().on_train_begin(*args, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description(self.name)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.set_postfix_str(f"loss {logs['loss']:.3f}")
