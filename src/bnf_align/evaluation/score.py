"""Answers or judgments in, numbers out: pure functions, offline, of our files and of the published ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bnf_align.evaluation.task import EvalResult, Row, Task
from bnf_align.evaluation.tasks import TASKS
from bnf_align.journal import read_jsonl
from bnf_align.records import BadInput

EXTENSION = re.compile(r"\.jsonl?(\.gz)?$")
CARD = ("model", "template", "judge", "seed", "command")
"""What a number always travels with, as far as a file's card has it."""
FILES = ("data", "answers", "base", "tags")
"""Options that take rows, or the path of a file of rows."""


def score_outputs(task: str | Task, rows: Iterable[Row], model: str | None = None, **options: Any) -> EvalResult:
    """Score rows that are in memory.

    Args:
        task: A benchmark or its name.
        rows: Answers, or the judgments of a task with a judge. No published label in them is looked at.
        model: Which model, where the rows are of several, or its name, where they do not say.
        options: Of the task: `data`, `math_verify`, `tags`, `base`, ...

    Raises:
        BadInput: If there is no such task, or the rows are not what it scores.

    Example:
        >>> rows = [{"id": 0, "output": '{"reasoning": "9 * 2", "answer": "18"}', "answer": "# 18"}]
        >>> score_outputs("gsm8k", rows).metrics["accuracy"]
        100.0
    """
    return task_named(task).score(list(rows), model=model, **options)


def score_file(path: str | Path, task: str | Task, model: str | None = None, **options: Any) -> EvalResult:
    """Score a file of ours, ZeroEval's, WildBench's, Arena-Hard's or the public data folder's, .gz or not.

    Args:
        path: The file; what it was made with is read from its card, where there is one.
        task: A benchmark or its name.
        model: As in `score_outputs`.
        options: As in `score_outputs`; where one takes rows, a path does too.

    Raises:
        BadInput: If the file cannot be read, is another task's, or has not what the task scores.
    """
    path, task = Path(path), task_named(task)
    card = card_of(path)
    if card.get("task", task.name) != task.name:
        raise BadInput(
            f"{path} was made for {card['task']}, not for {task.name}. Score it with --task {card['task']}."
        )
    options |= {name: _rows(options[name], name) for name in FILES if isinstance(options.get(name), str | Path)}
    stem = model_name(path)
    result = score_outputs(task, read_jsonl(path), model, file=stem, **options)
    known = {name: value for name, value in result.provenance.items() if value is not None}
    recorded = {name: card[name] for name in CARD if name in card}
    result.provenance = dict.fromkeys(CARD) | {"model": model or stem} | recorded | known | {"file": str(path)}
    return result


def model_name(path: str | Path) -> str:
    """The model that a file is named after, as ZeroEval names them; dots belong to names (`Llama-3.1-8B.json`)."""
    return EXTENSION.sub("", Path(path).name)


def card_of(path: Path) -> dict[str, Any]:
    """What the rows were made with and by which command; nothing for a file that is not ours.

    Raises:
        BadInput: If the card cannot be read.
    """
    file = path.parent / f"{path.name.removesuffix('.partial')}.card.json"
    if not file.is_file():
        return {}
    try:
        card = json.loads(file.read_text(encoding="utf-8"))
        return {"seed": card.get("sampling", {}).get("seed"), **card.get("about", {}), **card}
    except (ValueError, AttributeError, TypeError) as error:
        raise BadInput(
            f"{file} says what {path.name} was made with, and cannot be read: {error}. Delete it."
        ) from error


def task_named(task: str | Task) -> Task:
    """The task of that name.

    Raises:
        BadInput: If there is none.
    """
    if isinstance(task, Task):
        return task
    if task not in TASKS:
        raise BadInput(f"There is no task {task!r}. Choose one with --task: {', '.join(TASKS)}.")
    return TASKS[task]


def _rows(path: str | Path, option: str) -> Any:
    rows = list(read_jsonl(path))
    if option == "tags" and len(rows) == 1 and not {"id", "session_id"} & rows[0].keys():
        return rows[0]  # one object: session id -> tags
    return rows
