"""Chainlit: threads with their steps, or the tables of its data layer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bnf_align.data.importers.files import first_record, records_of
from bnf_align.data.importers.importer import Importer, Message, Options, Thumb
from bnf_align.data.importers.shape import dicts, filled, first_of, mapping
from bnf_align.data.importers.shelf import Shelf
from bnf_align.data.importers.threads import BrokenThread, without_reasoning
from bnf_align.data.importers.turns import assistant, user
from bnf_align.records import BadInput, DataReport

Step = Mapping[str, Any]

RATED = ("forId", "stepId")
"""Which step a feedback rates, in the SQLAlchemy and in the official data layer."""
TIMES = ("startTime", "createdAt", "start")


class Chainlit(Importer):
    """Threads, `{"id", "userIdentifier", "steps": [step, ...]}`, as the data layers' `get_thread` gives them.

    A step is `{"id", "threadId", "parentId", "type", "output", "createdAt", "feedback": {"value": 1 | 0, "comment"}}`;
    of type user_message or assistant_message it is a turn of the conversation, in the order of time. Or the tables:
    one or more files of steps and one of feedbacks, `{"id", "forId" or "stepId", "value", "comment"}`, in any format.

    Newer versions rate the run that answers: its assistant messages together are then the answer.

    Source: Chainlit/chainlit, backend/chainlit/types.py (FeedbackDict: 0 is a thumb down), data/sql_alchemy.py,
    data/chainlit_data_layer.py, frontend/src/components/chat/Messages/Message/Buttons/FeedbackButtons.tsx.
    """

    name = "chainlit"
    title = "a Chainlit export"
    VALUES: ClassVar = {"1": "up", "0": "down", "1.0": "up", "0.0": "down"}

    def matches(self, record: Any, path: Path) -> bool:
        """A thread, a step or a feedback, by columns that occur together nowhere else."""
        return _is_thread(record) or _is_feedback(record) or _is_step(record)

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb]:
        """A thumb per feedback."""
        kinds: dict[str, list[Path]] = defaultdict(list)
        for path in paths:
            kinds[_kind(path)].append(path)
        for number, thread in records_of(kinds["thread"]):
            steps = dicts(thread.get("steps"))
            for step in steps:
                feedback = mapping(step.get("feedback"))
                if feedback.get("value") is not None:
                    extras = {"rater": thread.get("userIdentifier") or thread.get("userId")}
                    yield from _thumb(number, feedback, step.get("id"), steps, extras, report)
        yield from _from_tables(kinds["feedback"], kinds["step"], report)


def _is_thread(record: Step) -> bool:
    return isinstance(record.get("steps"), list) and "id" in record


def _is_feedback(record: Step) -> bool:
    return "value" in record and "comment" in record and any(name in record for name in RATED)


def _is_step(record: Step) -> bool:
    return {"id", "type", "output", "threadId", "parentId"} <= record.keys()


def _kind(path: Path) -> str:
    record = first_record(path)
    kinds = {"thread": _is_thread, "feedback": _is_feedback, "step": _is_step}
    kind = next((kind for kind, fits in kinds.items() if fits(record)), None)
    if kind is None:
        raise BadInput(
            f"{path} holds no threads, steps or feedbacks of Chainlit. Its columns: {', '.join(map(str, record)):.300}"
        )
    return kind


def _from_tables(feedbacks: Sequence[Path], tables: Sequence[Path], report: DataReport) -> Iterator[Thumb]:
    """Feedbacks joined to their steps."""
    if not feedbacks:
        if tables:
            raise BadInput("There are steps, but no feedbacks: give the table of feedbacks too.")
        return
    shelf = Shelf((step.get("id"), step.get("threadId"), step) for _, step in records_of(tables))
    for number, feedback in records_of(feedbacks):
        step_id = first_of(feedback, RATED)
        thread = (shelf.get(step_id) or {}).get("threadId")
        yield from _thumb(number, feedback, step_id, shelf.group(thread) if _is_id(thread) else [], {}, report)


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and value != ""


def _thumb(
    number: int, feedback: Step, step_id: Any, steps: Sequence[Step], extras: Step, report: DataReport
) -> Iterator[Thumb]:
    try:
        rated = next((step for step in steps if step.get("id") == step_id), None)
        if rated is None:
            raise BrokenThread("the step that is rated is not there")
        turns = sorted((step for step in steps if _is_turn(step)), key=_time)
        answers = [step for step in turns if step is rated] or _written_in(rated, turns, steps)
        if not answers or any(step["type"] == "user_message" for step in answers):
            raise BrokenThread("what is rated is not an assistant's answer")
        prompt = [_message(step) for step in turns[: turns.index(answers[0])]]
        text = "\n\n".join(_message(step)["content"] for step in answers)
    except BrokenThread as error:
        report.drop(str(error), number)
        return
    value = feedback.get("value")
    yield Thumb(
        number,
        prompt,
        [assistant(text)],
        None if value == "" else value,  # an empty cell of a CSV table
        answer=str(step_id),
        extras=filled(id=feedback.get("id"), created_at=_time(answers[-1]), reason=feedback.get("comment"), **extras),
    )


def _is_turn(step: Step) -> bool:
    return step.get("type") in ("user_message", "assistant_message")


def _written_in(run: Step, turns: Sequence[Step], steps: Sequence[Step]) -> list[Step]:
    """The assistant's messages in a run, or in steps of it."""
    parents = {step["id"]: step.get("parentId") for step in steps if _is_id(step.get("id"))}

    def inside(step: Step) -> bool:
        at, seen = step.get("parentId"), set()
        while _is_id(at) and at not in seen and at != run.get("id"):
            seen.add(at)
            at = parents.get(at)
        return _is_id(at) and at == run.get("id")

    return [step for step in turns if step["type"] == "assistant_message" and inside(step)]


def _message(step: Step) -> Message:
    text = step.get("output")
    if not isinstance(text, str):
        raise BrokenThread("a message that is not text")
    return user(text) if step["type"] == "user_message" else assistant(without_reasoning(text))


def _time(step: Step) -> str:
    return str(first_of(dict(step), TIMES) or "")
