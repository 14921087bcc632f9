"""ms-swift: its standard format for DPO and KTO, and the three others that it converts to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bnf_align.data.importers.files import Record
from bnf_align.data.importers.importer import Importer, Message, Options, Pair, Thumb
from bnf_align.data.importers.shape import NO_TOOLS, filled, first_of, has_pictures, records_like, tools_of
from bnf_align.data.importers.turns import asked, assistant, choice, messages, user, with_system
from bnf_align.records import DataReport

REJECTED = ("rejected_response", "rejected_messages")


class MsSwift(Importer):
    """ms-swift's data files: the last assistant turn is the answer, the preferred one of a pair.

        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
         "rejected_response": "What?"}
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "What?"}], "label": false}

    For `messages` there may stand {"system", "query", "response", "history"}, {"system", "instruction", "input",
    "output"} or {"system", "conversation": [{"human", "assistant"}, ...]}; for `rejected_response` the whole
    conversation as `rejected_messages`. A `label` that is a number is a class of its classification tasks, whose
    meaning is asked for.

    Source: github.com/modelscope/ms-swift, docs/source_en/Customization/Custom-dataset.md.
    """

    name = "ms-swift"
    title = "ms-swift's format"
    VALUES: ClassVar = {"true": "up", "false": "down"}

    def matches(self, record: Any, path: Path) -> bool:
        """A conversation that ends in an answer, with the answer it was preferred to, or a label."""
        if not isinstance(record, dict) or not (turns := _turns(record)) or turns[-1]["role"] != "assistant":
            return False
        tagged = "messages" in record and isinstance(record.get("label"), bool) and "chosen" not in record
        return tagged or first_of(record, REJECTED) is not None

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb | Pair]:
        """Pairs and thumbs, in the order of the file."""
        wanted = "a row with a conversation and rejected_response or label"
        for row, record in records_like(paths, _is_row, wanted, report):
            turns, rejected = _turns(record), first_of(record, REJECTED)
            tools = tools_of(record.get("tools"))
            extras = filled(tools=tools)
            if has_pictures(record) or turns is None:
                report.drop("images, video or audio" if turns else "turns that are not all text", row)
            elif tools is None:
                report.drop(NO_TOOLS, row)
            elif turns[-1]["role"] != "assistant":
                report.drop("no answer at the end", row)
            elif rejected is not None:
                pair = choice(row, turns[:-1], turns[-1], rejected, extras, report)
                yield from [] if pair is None else [pair]
            else:
                yield Thumb(row, turns[:-1], turns[-1:], record.get("label"), extras=extras)


def _is_row(record: Record) -> bool:
    return bool(record.keys() & {"messages", "query", "conversation", "instruction"}) and bool(
        record.keys() & {*REJECTED, "label"}
    )


def _turns(record: Record) -> list[Message] | None:
    """All turns of a row, the answer too."""
    system = record.get("system")
    if record.get("messages") is not None:
        turns = messages(record["messages"])
        return turns and with_system(turns, system)
    if isinstance(record.get("conversation"), list):
        turns = _rounds(record["conversation"])
        return turns and with_system(turns, system)
    answer = first_of(record, ("response", "output"))
    texts = [first_of(record, ("query", "instruction")), record.get("input")]
    question = asked(*texts, system=system, history=record.get("history"))
    return [*question, assistant(answer)] if question and isinstance(answer, str) else None


def _rounds(rounds: list[Any]) -> list[Message] | None:
    if not rounds or not all(isinstance(said, dict) and {"human", "assistant"} <= said.keys() for said in rounds):
        return None
    return [turn for said in rounds for turn in (user(said["human"]), assistant(said["assistant"]))]
