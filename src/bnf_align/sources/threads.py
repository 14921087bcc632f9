"""Chat products that keep a conversation as a list: threads of steps, and logs of flagged answers."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport
from bnf_align.sources.fields import dicts, filled, first_of, has, mapping
from bnf_align.sources.files import first_record, records_like, records_of, unpacked
from bnf_align.sources.source import Message, Options, Record, Source, Thumb
from bnf_align.sources.trees import Rated, Shelf, Tree, role_at, without_reasoning
from bnf_align.sources.turns import assistant, message, user

RATED = "forId|stepId"
"""Which step a feedback rates, in the SQLAlchemy and in the official data layer."""
SPEAKERS = {"user_message": "user", "assistant_message": "assistant"}


def _chainlit_kind(record: Record) -> str:
    """What a record of Chainlit's is, by columns that occur together nowhere else; "" for one of anything else."""
    if isinstance(record.get("steps"), list) and "id" in record:
        return "thread"
    if {"value", "comment"} <= record.keys() and first_of(record, RATED) is not None:
        return "feedback"
    return "step" if {"id", "type", "output", "threadId", "parentId"} <= record.keys() else ""


def _chainlit_ratings(paths: Sequence[Path]) -> Iterator[Rated]:
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        record = first_record(path)
        if not (kind := _chainlit_kind(record)):
            raise BadInput(
                f"{path} holds no threads, steps or feedbacks of Chainlit. Its columns: "
                f"{', '.join(map(str, record)):.300}"
            )
        kinds[kind].append(path)
    for number, thread in records_of(kinds["thread"]):
        steps = dicts(thread.get("steps"))
        for step in steps:
            feedback = mapping(step.get("feedback"))
            if feedback.get("value") is not None:
                rater = thread.get("userIdentifier") or thread.get("userId")
                yield _chainlit_rated(number, {**feedback, "rater": rater}, step.get("id"), steps)
    if kinds["step"] and not kinds["feedback"]:
        raise BadInput("There are steps, but no feedbacks: give the table of feedbacks too.")
    if kinds["feedback"]:
        shelf = Shelf((step.get("id"), step.get("threadId"), step) for _, step in records_of(kinds["step"]))
        for number, feedback in records_of(kinds["feedback"]):
            key = first_of(feedback, RATED)
            group = (shelf.get(key) or {}).get("threadId")
            yield _chainlit_rated(number, feedback, key, shelf.group(group) if _is_id(group) else [])


def _chainlit_rated(number: int, feedback: Record, key: Any, steps: Sequence[Record]) -> Rated:
    """A feedback with the turns up to what it rates, each under the one before it; a run's messages are one answer."""
    rated = next((step for step in steps if step.get("id") == key), None)
    turns = sorted((step for step in steps if step.get("type") in tuple(SPEAKERS)), key=_chainlit_time)
    answers = [step for step in turns if step is rated] or ([] if rated is None else _within(rated, turns, steps))
    before = turns[: turns.index(answers[0])] if answers else []
    refused, about, said = None, feedback, []
    if rated is None:
        refused = Reason("step_not_there")
    elif not answers or any(step["type"] == "user_message" for step in answers):
        refused = Reason("not_an_answer")
    elif not all(isinstance(step.get("output"), str) for step in before + answers):
        refused = Reason("not_text")
    else:
        output = "\n\n".join(without_reasoning(step["output"]) for step in answers)
        said = [*before, {**answers[-1], "output": output}]
        about = {**feedback, "created_at": _chainlit_time(answers[-1])}
    nodes = {str(at): {**step, "before": str(at - 1) if at else None} for at, step in enumerate(said)}
    value = feedback.get("value")
    value = None if value == "" else value  # an empty cell of a CSV table
    return Rated(number, nodes, str(len(said) - 1), value, key, about, refused=refused)


def _chainlit_time(step: Record) -> str:
    return str(first_of(step, "startTime|createdAt|start") or "")


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and value != ""


def _within(run: Record, turns: Sequence[Record], steps: Sequence[Record]) -> list[Record]:
    """The assistant's messages in a run, or in steps of it."""
    parents = {step["id"]: step.get("parentId") for step in steps if _is_id(step.get("id"))}

    def inside_run(step: Record) -> bool:
        at, seen = step.get("parentId"), set()
        while _is_id(at) and at not in seen and at != run.get("id"):
            seen.add(at)
            at = parents.get(at)
        return _is_id(at) and at == run.get("id")

    return [step for step in turns if step["type"] == "assistant_message" and inside_run(step)]


CHAINLIT = Tree(
    "chainlit",
    "a Chainlit export",
    knows=lambda record: _chainlit_kind(record) != "",
    parent="before",
    role=role_at("type", SPEAKERS),
    text=lambda step: step["output"],
    rated=_chainlit_ratings,
    values={"1": "up", "0": "down", "1.0": "up", "0.0": "down"},
    extras={"id": "id", "created_at": "created_at", "rater": "rater", "reason": "comment"},
    files=lambda step: (),
)
"""Threads, `{"id", "userIdentifier", "steps": [step, ...]}`, as the data layers' `get_thread` gives them.

A step is `{"id", "threadId", "parentId", "type", "output", "createdAt", "feedback": {"value": 1 | 0, "comment"}}`;
of type user_message or assistant_message it is a turn of the conversation, in the order of time. Or the tables:
one or more files of steps and one of feedbacks, `{"id", "forId" or "stepId", "value", "comment"}`, in any format.

Newer versions rate the run that answers: its assistant messages together are then the answer.

Source: Chainlit/chainlit, backend/chainlit/types.py (FeedbackDict: 0 is a thumb down), data/sql_alchemy.py,
data/chainlit_data_layer.py, frontend/src/components/chat/Messages/Message/Buttons/FeedbackButtons.tsx.
"""


FLAGGED = ("conversation", "index", "value", "flag")
"""Columns that a chat's flagging log has, and no other export."""


class Gradio(Source):
    """Gradio's `gr.ChatInterface(flagging_mode="manual")`: `.gradio/flagged/log.csv`.

        conversation,index,value,flag,timestamp
        "[{""role"": ""user"", ""content"": [...]}, ...]",1,Like,2026-05-29 13:46:19.963000

    Five names stand above four fields: Gradio 5 and 6 write the rating under `value` and the time under `flag`. A row
    of five fields is read as the header says. `index` is the rated message, or in the older format of pairs (pair, 1).
    Several bot messages in one bubble are rated together; messages shown as thoughts are left out of the answer.
    A thumb that is taken back is written as an empty rating: it and the click it takes back count for nothing. Of a
    Like and a Dislike of one answer by one person, as far as the log tells people apart, the last click counts.
    Logs of `gr.Interface` have the columns of their own components: they are a `table`.

    Source: gradio 6.31, gradio/flagging.py (ChatCSVLogger), events.py (LikeData) and the chatbot's front end.
    """

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb]:
        """Ratings as thumbs, in the order of the log."""
        gone = self._gone(self._clicks(paths, DataReport("")))
        for row, record in self._clicks(paths, report):
            rating, time = self._rating(record)
            if row in gone:
                report.drop(gone[row], row)
            elif isinstance(texts := _exchange(record), Reason):
                report.drop(texts, row)
            else:
                yield Thumb(row, *texts, rating, extras=filled(created_at=time, rater=record.get("username")))

    def _clicks(self, paths: Sequence[Path], report: DataReport) -> Iterator[tuple[int, Record]]:
        return records_like(paths, has(*FLAGGED), "a line of a chat's flagging log", report)

    def _rating(self, record: Record) -> tuple[Any, Any]:
        """The rating, empty for a click that takes one back, and its time."""
        if record.get("timestamp") is None:
            return record["value"], record["flag"]
        return record["flag"], record["timestamp"]

    def _gone(self, clicks: Iterator[tuple[int, Record]]) -> dict[int, Reason]:
        """Rows of clicks that a later one by the same person took back or changed, each with its reason."""
        standing: dict[int, list[tuple[int, Any]]] = defaultdict(list)
        gone: dict[int, Reason] = {}
        for row, record in clicks:
            rating = self._rating(record)[0]
            earlier = standing[hash(json.dumps([_exchange(record), record.get("username")], default=str))]
            if rating in (None, ""):
                taken = [row, *([earlier.pop()[0]] if earlier else [])]
                gone |= dict.fromkeys(taken, Reason("taken_back"))
                continue
            if earlier and earlier[-1][1] != rating:
                gone[earlier.pop()[0]] = Reason("changed")
            earlier.append((row, rating))
        return gone


def _exchange(record: Record) -> tuple[list[Message], list[Message]] | Reason:
    """The rated answer and all before it, or why there is none."""
    # Gradio 5 wrote an apostrophe before JSON that a spreadsheet might take for a formula.
    turns = unpacked(str(record["conversation"]).removeprefix("'"))
    index = [part.strip() for part in str(record["index"]).strip("()[] ").split(",")]  # 3, [1, 1] or (1, 1)
    if not isinstance(turns, list) or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in index):
        return Reason("no_conversation")
    at = [int(part) for part in index]
    if turns and all(isinstance(turn, list) and len(turn) == 2 for turn in turns):
        turns = [turn for question, answer in turns for turn in (user(question), assistant(answer))]
        at = [at[0] * 2 + at[1]] if len(at) == 2 else []
    if len(at) != 1 or at[0] >= len(turns):
        return Reason("message_not_there")
    said = [message(turn) for turn in turns]
    if any(turn is None for turn in said):
        return Reason("message_unread")
    roles = [turn["role"] if turn else "" for turn in said]
    if roles[at[0]] != "assistant":
        return Reason("message_no_answer")
    end = next((i for i in range(at[0], len(said)) if roles[i] != "assistant"), len(said))
    spoken = [i for i, turn in enumerate(turns) if not mapping(turn.get("metadata")).get("title")]  # no thoughts
    before = [turn for i in spoken if i < at[0] and (turn := said[i]) and turn.get("content") is not None]
    answer = [turn for i in spoken if at[0] <= i < end and (turn := said[i])]
    return (before, answer) if answer else Reason("only_thoughts")


GRADIO = Gradio("gradio", "answers flagged in Gradio", knows=FLAGGED, values={"Like": "up", "Dislike": "down"})
THREADS: tuple[Source, ...] = (CHAINLIT, GRADIO)
