"""LLaMA-Factory: preference and KTO data in its two formats, sharegpt and alpaca."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bnf_align.data.importers.files import Record
from bnf_align.data.importers.importer import Importer, Message, Options, Pair, Thumb
from bnf_align.data.importers.shape import NO_TOOLS, filled, first_of, has_pictures, records_like, tools_of
from bnf_align.data.importers.turns import asked, assistant, choice, messages, with_system
from bnf_align.records import DataReport

DIALOGUE = ("conversations", "messages")
TAG = ("kto_tag", "label")


class LlamaFactory(Importer):
    """LLaMA-Factory's data files, under the column names of its README.

        {"conversations": [{"from": "human", "value": "Hi"}], "chosen": {"from": "gpt", "value": "Hello"},
         "rejected": {"from": "gpt", "value": "What?"}, "system": "...", "tools": "[...]"}
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}], "kto_tag": true}
        {"instruction": "Translate", "input": "Hallo", "chosen": "Hello", "rejected": "What?", "history": [["q", "a"]]}
        {"instruction": "Translate", "input": "Hallo", "output": "Hello", "kto_tag": false}

    Its demonstration of KTO has `messages` of role and content, and `label` for `kto_tag`; both are read. A
    `function_call` is an assistant's tool call and an `observation` the tool's answer. Other names, which a
    dataset_info.json of one's own may give, are renamed to these first.

    Source: github.com/hiyouga/LLaMA-Factory: data/README.md, data/dataset_info.json and
    src/llamafactory/data/converter.py.
    """

    name = "llamafactory"
    title = "LLaMA-Factory's format, ShareGPT or Alpaca"
    VALUES: ClassVar = {"true": "up", "false": "down"}

    def matches(self, record: Any, path: Path) -> bool:
        """ShareGPT turns or an instruction, with a pair or a tag that is LLaMA-Factory's own."""
        if not isinstance(record, dict):
            return False
        pair = {"chosen", "rejected"} <= record.keys()
        if isinstance(record.get("conversations"), list):
            return pair or any(tag in record for tag in TAG)
        return isinstance(record.get("instruction"), str) and (pair or "kto_tag" in record)

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb | Pair]:
        """Pairs and thumbs, in the order of the file."""
        files = [path for path in paths if path.name != "dataset_info.json"]
        wanted = "a row with conversations, messages or an instruction"
        for row, record in records_like(files or paths, _is_row, wanted, report):
            turns = _turns(record)
            tools = tools_of(record.get("tools"))
            extras = filled(tools=tools)
            if has_pictures(record) or turns is None:
                report.drop("images, video or audio" if turns else "turns that are not all text", row)
            elif tools is None:
                report.drop(NO_TOOLS, row)
            elif record.get("chosen") is not None or record.get("rejected") is not None:
                pair = choice(row, turns, record.get("chosen"), record.get("rejected"), extras, report)
                yield from [] if pair is None else [pair]
            elif turns[-1]["role"] != "assistant":
                report.drop("no answer at the end", row)
            else:
                yield Thumb(row, turns[:-1], turns[-1:], first_of(record, TAG), extras=extras)


def _is_row(record: Record) -> bool:
    return any(isinstance(record.get(name), list | str) for name in (*DIALOGUE, "instruction"))


def _turns(record: Record) -> list[Message] | None:
    """All turns of a row, with the answer where it is no pair's."""
    dialogue = first_of(record, DIALOGUE)
    if dialogue is not None:
        turns = messages(dialogue)
        return turns and with_system(turns, record.get("system"))
    question = asked(
        record.get("instruction"), record.get("input"), system=record.get("system"), history=record.get("history")
    )
    output = record.get("output")
    return [*question, assistant(output)] if question and isinstance(output, str) and output else question
