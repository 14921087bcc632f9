"""Answers in, judgments out: a judge model by URL reads every answer; resumable, and a repeat costs nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bnf_align.evaluation.run import Progress
from bnf_align.evaluation.score import model_name
from bnf_align.evaluation.task import UNNAMED, JudgedTask, Question, Row, answer_text, model_of, one_model
from bnf_align.journal import Journal, read_jsonl
from bnf_align.judge import Judge
from bnf_align.judge.wording import wording
from bnf_align.records import BadInput

logger = logging.getLogger(__name__)


def questions(
    task: JudgedTask,
    items: Sequence[Row],
    answers: Mapping[str, Row],
    baseline: Mapping[str, Row] | None = None,
    template: str | None = None,
) -> list[Question]:
    """What the judge is asked about `answers`, in the order of `items`.

    Args:
        task: The benchmark.
        items: Its items.
        answers: Item id -> row with `output`.
        baseline: The same of the model that is compared with, where the task compares.
        template: The wording of the question, instead of ours.

    Raises:
        BadInput: If an item has no answer, or none of the baseline's.
    """
    for rows, whose in ((answers, "The answers"), (baseline, "The baseline's answers")):
        missing = [] if rows is None else [item["id"] for item in items if item["id"] not in rows]
        if missing:
            raise BadInput(
                f"{whose} lack {len(missing):,} of {len(items):,} items of {task.name}, the first {missing[0]!r}: a "
                "score over the others would be another number. Finish them with `bnf-align eval run`, or judge "
                "fewer items with --limit."
            )
    asked: list[Question] = []
    for item in items:
        own, other = answers[item["id"]], (baseline or {}).get(item["id"])
        about = {"tokens": own.get("tokens"), "baseline": other and other.get("model")}
        known = {name: value for name, value in about.items() if value is not None}
        texts = answer_text(own), None if other is None else answer_text(other)
        asked += [one._replace(row={**one.row, **known}) for one in task.questions(item, *texts, template)]
    return asked


def answers_of(task: JudgedTask, path: str | Path) -> tuple[str, dict[str, Row]]:
    """The model of a file of answers and item id -> row with `output`; ours, or the benchmark's native file.

    Raises:
        BadInput: If the file has answers of several models.
    """
    rows = list(read_jsonl(path))
    model = one_model(map(model_of, rows))
    return (model_name(path) if model == UNNAMED else model), task.answers(rows)


def judge_answers(
    task: JudgedTask,
    asked: Sequence[Question],
    judge: Judge,
    out: str | Path,
    *,
    model: str,
    template: str | None = None,
    allow_missing: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Progress:
    """Ask the judge every question that `out` has no judgment for.

    A judgment without a verdict gets the task's follow-up, where it has one. What the judge did not answer after all
    retries is left out, counted, and asked again by a rerun.

    Args:
        task: The benchmark.
        asked: The questions, all of them on a rerun too.
        judge: Whom to ask.
        out: The file of judgments.
        model: Whose answers are judged.
        template: The wording of the question, instead of ours.
        allow_missing: Whether to finish the file without an answer to some, such as one that the judge's server
            always refuses: their judgment is null, and counts as dropped in every number.
        about: What is worth knowing beside the judgments, such as the command.

    Raises:
        BadInput: If `out` was begun with another judge, model or wording, or the budget is used up.
    """
    card = {
        "task": task.name,
        "version": task.version,
        "model": model,
        "judge": judge.model,
        "template": wording(template, task.judge_template),
    } | ({"request": judge.request} if judge.request else {})
    by_id = {question.id: question for question in asked}
    with Journal(out, card=card, about=about) as journal:
        finished = len(journal.done & by_id.keys())
        bar = tqdm(total=len(by_id), initial=finished, desc=f"{task.name} judgments", unit="call")
        todo = [question for question in asked if question.id not in journal.done]
        with bar:
            for question, texts in _asked(task, judge, todo, template):
                bar.update(journal.append([_judgment(question, texts, model, judge)]))
        unanswered = [question for question in asked if question.id not in journal.done]
        missing = len(unanswered)
        if allow_missing:
            journal.append([_judgment(question, {"judgment": None}, model, judge) for question in unanswered])
        path = journal.finish(by_id) if allow_missing or not missing else journal.partial
    if missing:
        then = "They count as dropped." if allow_missing else "The same command asks them again."
        logger.warning(f"{missing:,} of {len(by_id):,} questions have no judgment. {then}")
    return Progress(Path(path), len(by_id) - missing, 0 if allow_missing else missing)


def _judgment(question: Question, texts: Mapping[str, str | None], model: str, judge: Judge) -> Row:
    return {"id": question.id, "model": model, "judge": judge.model, **question.row, **texts}


def _asked(
    task: JudgedTask, judge: Judge, todo: Sequence[Question], template: str | None
) -> Iterator[tuple[Question, dict[str, Any]]]:
    """Questions with the judge's text, and that of the follow-up where there was one."""
    again: dict[str, tuple[Question, str]] = {}
    by_id = {question.id: question for question in todo}
    for one in _judgments(task, judge, todo):
        question = by_id[one.id]
        if (more := task.follow_up(question, one.text, template)) is not None:
            again[question.id] = (more, one.text)
        else:
            yield question, {"judgment": one.text}
    for one in _judgments(task, judge, [question for question, _ in again.values()]):
        question, first = again[one.id]
        yield question, {"judgment": f"{first}\n{one.text}"}


def _judgments(task: JudgedTask, judge: Judge, todo: Sequence[Question]) -> Iterator[Any]:
    asked = [(question.id, question.messages) for question in todo]
    for one in judge.ask(asked, max_tokens=task.judge_tokens, json_mode=task.judge_json):
        if one.error is None:
            yield one
        else:
            logger.info(f"{one.id}: {one.error}")
