"""Answers while a run trains: a slice of a task every n steps, and a user's own prompts before and after it."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from bnf_align.engines import Generation, Request, Sampling
from bnf_align.engines.local import LocalEngine
from bnf_align.evaluation.run import answered
from bnf_align.evaluation.task import EvalResult, JudgedTask, Row, Task
from bnf_align.journal import read_jsonl
from bnf_align.outputs import write_text
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
        requests = [Request(str(item["id"]), self.task.prompt(item)) for item in self.items]
        answers = _answered(kwargs, requests, self.sampling)
        rows = [{**item, "output": one.texts[0]} for item, one in zip(self.items, answers, strict=True)]
        result = self.task.score(rows)
        self.results.append((state.global_step, result))
        numbers = {name: value for name, value in result.metrics.items() if value is not None}
        self.trainer.log({f"eval_{self.task.name}/{name}": float(value) for name, value in numbers.items()})
        folder = Path(str(args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / f"answers_{self.task.name}.jsonl").open("a", encoding="utf-8") as file:
            for row, one in list(zip(rows, answers, strict=True))[: self.samples]:
                about = {"step": state.global_step, "id": row["id"]}
                line = about | {"output": row["output"], "finish_reason": one.finish_reasons[0]}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        shown = ", ".join(f"{name} {value:.2f}" for name, value in numbers.items())
        logger.warning(f"step {state.global_step}: {self.task.name} on {len(rows)} items: {shown}")


def _answered(given: dict[str, Any], requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
    """The answers by the model that a callback was given."""
    return answered(LocalEngine(given["model"], given["processing_class"], name="in training"), requests, sampling)


def refuse_judged(task: Task) -> None:
    """Stop where `task` is not scored by its answers alone.

    Raises:
        BadInput: If so.
    """
    if isinstance(task, JudgedTask) or not task.template:
        raise BadInput(f"{task.name} cannot be scored during training: it needs more than the answers.")


REPEATED = 4
"""Words of a stretch that counts as repeated where an answer has it again."""


class SampleCallback(TrainerCallback):
    """Answers the same prompts greedily before training and after it, into `samples.jsonl` of the output folder.

    A line: `id`, `prompt` (text or messages), `before` and `after` (text; `before` is null where the run was begun
    without this), `before_ended` and `after_ended` (bool: whether the answer ended by itself). The log gets
    `samples/never_ended`, `samples/repeated` (shares of the answers) and `samples/tokens` (their mean length), each
    with `_before` too. Training goes on bit for bit as without it.

    Args:
        trainer: The trainer that logs.
        prompts: Rows with `id` and `prompt`.
        max_new_tokens: The longest answer.

    Raises:
        BadInput: If the model is sharded: one process alone cannot generate with it.
    """

    def __init__(self, trainer: Trainer, prompts: Sequence[Row], max_new_tokens: int = 256) -> None:
        if trainer.is_fsdp_enabled:
            raise BadInput("--sample_prompts needs a whole model: under FSDP run `bnf-align generate` afterwards.")
        self.trainer, self.prompts, self.sampling = trainer, prompts, Sampling(max_new_tokens=max_new_tokens)
        self.path = Path(str(trainer.args.output_dir)) / "samples.jsonl"

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Answer with the model as it starts; a resumed run finds these answers in the file."""
        if state.is_world_process_zero and state.global_step == 0:
            self._write(self._answers("before", **kwargs))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Answer with the trained model."""
        if not state.is_world_process_zero:
            return
        earlier = {row["id"]: row for row in read_jsonl(self.path)} if self.path.exists() else {}
        if missing := [row["id"] for row in self.prompts if row["id"] not in earlier]:
            logger.warning(f"{self.path}: {len(missing):,} prompts have no answer from before training.")
        after = self._answers("after", **kwargs)
        rows = [{"before": None} | earlier.get(row["id"], {}) | row for row in after]
        self._write(rows)
        self.trainer.log({f"samples/{name}": value for name, value in measures(rows).items()})

    def _answers(self, when: str, **kwargs: Any) -> list[Row]:
        requests = [Request(str(row["id"]), row["prompt"]) for row in self.prompts]
        return [
            {
                "id": request.id,
                "prompt": request.prompt,
                when: one.texts[0],
                f"{when}_ended": one.finish_reasons[0] != "length",
                f"{when}_tokens": one.tokens[0],
            }
            for request, one in zip(requests, _answered(kwargs, requests, self.sampling), strict=True)
        ]

    def _write(self, rows: Sequence[Row]) -> None:
        write_text(self.path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def measures(rows: Sequence[Row]) -> dict[str, float]:
    """Of the rows of `samples.jsonl`: shares that never ended and that repeat themselves, and the mean length."""
    found = {}
    for when, suffix in (("before", "_before"), ("after", "")):
        answered = [row for row in rows if row.get(when) is not None]
        if answered:
            found[f"never_ended{suffix}"] = mean(not row[f"{when}_ended"] for row in answered)
            found[f"repeated{suffix}"] = mean(repeats_itself(row[when]) for row in answered)
            found[f"tokens{suffix}"] = float(mean(row[f"{when}_tokens"] for row in answered))
    return found


def repeats_itself(text: str) -> bool:
    """Whether more than half of the stretches of `REPEATED` words were there before in the same text."""
    words = text.split()
    stretches = list(zip(*(words[start:] for start in range(REPEATED)), strict=False))
    return len(stretches) > 0 and len(set(stretches)) < len(stretches) / 2
