"""Evaluation during training: a small fixed slice of a task every n steps, with sample answers."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from bnf_align.engines import Generation, Request, Sampling
from bnf_align.engines.local import LocalEngine
from bnf_align.evaluation.result import EvalResult
from bnf_align.evaluation.task import JudgedTask, Row, Task
from bnf_align.records import BadInput

logger = logging.getLogger(__name__)


class EvalCallback(TrainerCallback):
    """Answers the same items every `every` optimizer steps, greedily, and logs the task's metrics.

    The log gets `eval_TASK/METRIC`; `answers_TASK.jsonl` in the output folder gets `samples` answers a time, so that
    one can read what a number stands for. Training goes on bit for bit as without it: no random state is touched.
    Only for tasks without a judge: nothing is sent anywhere.

    Example:
        trainer.add_callback(EvalCallback(trainer, TASKS["gsm8k"], load_items(TASKS["gsm8k"], limit=50), every=100))

    Args:
        trainer: The trainer that logs.
        task: The benchmark.
        items: The slice; it stays the same, so its numbers compare along a run.
        every: Optimizer steps between two evaluations; one comes before the first step and one after the last.
        samples: Answers to keep each time, those of the first items.
        max_new_tokens: The longest answer.

    Raises:
        BadInput: If the task needs a judge, or the model is sharded (one process alone cannot generate with it).
    """

    def __init__(
        self,
        trainer: Trainer,
        task: Task,
        items: list[Row],
        *,
        every: int = 100,
        samples: int = 3,
        max_new_tokens: int = 1024,
    ) -> None:
        refuse_judged(task)
        if trainer.is_fsdp_enabled:
            raise BadInput(
                "Evaluation during training needs a whole model: under FSDP run `bnf-align eval` afterwards."
            )
        self.trainer, self.task, self.items, self.every, self.samples = trainer, task, items, every, samples
        self.sampling = Sampling(max_new_tokens=max_new_tokens)
        self.results: list[tuple[int, EvalResult]] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate the model as it starts, unless this run goes on from a checkpoint."""
        if state.global_step == 0:
            self._evaluate(args, state, **kwargs)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Evaluate every `every` steps and at the end."""
        if state.global_step % self.every == 0 or state.global_step >= state.max_steps:
            self._evaluate(args, state, **kwargs)

    def _evaluate(self, args: TrainingArguments, state: TrainerState, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        engine = LocalEngine(kwargs["model"], kwargs["processing_class"], name="in training")
        requests = [Request(str(item["id"]), self.task.prompt(item)) for item in self.items]
        found = {one.id: one for batch in engine.generate(requests, self.sampling) for one in batch}
        rows = [{**item, "output": found[str(item["id"])].texts[0]} for item in self.items]
        result = self.task.score(rows)
        self.results.append((state.global_step, result))
        numbers = {name: value for name, value in result.metrics.items() if value is not None}
        self.trainer.log({f"eval_{self.task.name}/{name}": float(value) for name, value in numbers.items()})
        self._keep_samples(Path(str(args.output_dir)), state.global_step, rows, found)
        shown = ", ".join(f"{name} {value:.2f}" for name, value in numbers.items())
        logger.warning(f"step {state.global_step}: {self.task.name} on {len(rows)} items: {shown}")

    def _keep_samples(self, folder: Path, step: int, rows: list[Row], found: dict[str, Generation]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"answers_{self.task.name}.jsonl").open("a", encoding="utf-8") as file:
            for row in rows[: self.samples]:
                reason = found[str(row["id"])].finish_reasons[0]
                line = {"step": step, "id": row["id"], "output": row["output"], "finish_reason": reason}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


def refuse_judged(task: Task) -> None:
    """Stop where `task` is not scored by its answers alone.

    Raises:
        BadInput: If so.
    """
    if isinstance(task, JudgedTask) or not task.template:
        raise BadInput(f"{task.name} cannot be scored during training: it needs more than the answers.")
