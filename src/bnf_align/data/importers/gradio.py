"""Gradio: what `ChatInterface` writes when a message is flagged."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bnf_align.data.importers.files import Record, unpacked
from bnf_align.data.importers.importer import Importer, Message, Options, Thumb
from bnf_align.data.importers.shape import filled, mapping, records_like
from bnf_align.data.importers.turns import assistant, message, user
from bnf_align.records import DataReport

HEADER = {"conversation", "index", "value", "flag"}


class Gradio(Importer):
    """Gradio's `gr.ChatInterface(flagging_mode="manual")`: `.gradio/flagged/log.csv`.

        conversation,index,value,flag,timestamp
        "[{""role"": ""user"", ""content"": [...]}, ...]",1,Like,2026-05-29 13:46:19.963000

    Five names stand above four fields: Gradio 5 and 6 write the rating under `value` and the time under `flag`. A row
    of five fields is read as the header says. `index` is the rated message, or in the older format of pairs (pair, 1).
    Several bot messages in one bubble are rated together; messages shown as thoughts are left out of the answer.
    A thumb that is taken back is written as an empty rating: it and the click it takes back count for nothing.
    Logs of `gr.Interface` have the columns of their own components: they are a `table`.

    Source: gradio 6.31, gradio/flagging.py (ChatCSVLogger), events.py (LikeData) and the chatbot's front end.
    """

    name = "gradio"
    title = "answers flagged in Gradio"
    VALUES: ClassVar = {"Like": "up", "Dislike": "down"}

    def matches(self, record: Any, path: Path) -> bool:
        """The header is Gradio's own."""
        return isinstance(record, dict) and record.keys() >= HEADER

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb]:
        """Ratings as thumbs, in the order of the log."""
        withdrawn = _withdrawn(_clicks(paths, DataReport("")))
        for row, record in _clicks(paths, report):
            rating, time = _rating(record)
            if row in withdrawn:
                report.drop("a thumb that was taken back", row)
            elif isinstance(texts := _exchange(record), str):
                report.drop(texts, row)
            else:
                yield Thumb(row, *texts, rating, extras=filled(created_at=time, rater=record.get("username")))


def _clicks(paths: Sequence[Path], report: DataReport) -> Iterator[tuple[int, Record]]:
    return records_like(paths, lambda record: record.keys() >= HEADER, "a line of a chat's flagging log", report)


def _rating(record: Record) -> tuple[Any, Any]:
    """The rating, empty for a click that takes one back, and its time."""
    if record.get("timestamp") is None:
        return record["value"], record["flag"]
    return record["flag"], record["timestamp"]


def _withdrawn(clicks: Iterator[tuple[int, Record]]) -> set[int]:
    """Rows of the clicks that take a thumb back, and of the thumbs they take back."""
    standing: dict[int, list[int]] = {}
    rows: set[int] = set()
    for row, record in clicks:
        texts = _exchange(record)
        earlier = standing.setdefault(hash(json.dumps(texts, default=str)), [])
        if _rating(record)[0] not in (None, ""):
            earlier.append(row)
        else:
            rows |= {row, earlier.pop()} if earlier else {row}
    return rows


def _exchange(record: Record) -> tuple[list[Message], list[Message]] | str:
    """The rated answer and all before it, or why there is none."""
    # Gradio 5 wrote an apostrophe before JSON that a spreadsheet might take for a formula.
    turns, index = unpacked(str(record["conversation"]).removeprefix("'")), _index(record["index"])
    if not isinstance(turns, list) or index is None:
        return "no conversation or no index"
    pairs = bool(turns) and all(isinstance(turn, list) and len(turn) == 2 for turn in turns)
    if len(index) != 1 + pairs:
        return "the rated message is not in the conversation"
    turns, at = (_flat(turns), index[0] * 2 + index[1]) if pairs else (turns, index[0])
    return _split(turns, at) if at < len(turns) else "the rated message is not in the conversation"


def _split(turns: list[Any], at: int) -> tuple[list[Message], list[Message]] | str:
    said = [message(turn) for turn in turns]
    if None in said:
        return "a message without role or content"
    if said[at]["role"] != "assistant":  # type: ignore[index]
        return "the rated message is not an answer"
    end = next((i for i in range(at, len(said)) if said[i]["role"] != "assistant"), len(said))  # type: ignore[index]
    spoken = [i for i, turn in enumerate(turns) if not mapping(turn.get("metadata")).get("title")]
    before = [turn for i in spoken if i < at and (turn := said[i]) and turn.get("content") is not None]
    answer = [turn for i in spoken if at <= i < end and (turn := said[i])]
    return (before, answer) if answer else "nothing but thoughts was rated"


def _flat(pairs: list[list[Any]]) -> list[Any]:
    """Pairs of what the user and the bot said; None stands for a side that said nothing."""
    return [turn for asked, answered in pairs for turn in (user(asked), assistant(answered))]


def _index(value: Any) -> tuple[int, ...] | None:
    """3, [1, 1] or (1, 1), as a number, a list or text."""
    text = str(value).strip("()[] ")
    parts = [part.strip() for part in text.split(",")]
    return tuple(int(part) for part in parts) if all(part.isascii() and part.isdigit() for part in parts) else None
