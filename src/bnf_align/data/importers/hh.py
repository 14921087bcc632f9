"""Anthropic HH: two transcripts of one conversation, which differ in their last answer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bnf_align.data.importers.files import Record
from bnf_align.data.importers.importer import Importer, Message, Options, Pair
from bnf_align.data.importers.shape import records_like
from bnf_align.data.importers.turns import assistant, choice, user
from bnf_align.records import DataReport

TURN = re.compile(r"\n\n(Human|Assistant):")


class HH(Importer):
    r"""Anthropic's helpful and harmless transcripts (hh-rlhf), and what others write like them.

        {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello", "rejected": "\n\nHuman: Hi\n\nAssistant: What?"}

    A prompt that stands beside the answers, as in Nectar's, is read too: {"prompt": "\n\nHuman: Hi\n\nAssistant:",
    "chosen": "Hello", "rejected": "What?"}. White space at the ends of a turn is the transcript's, not the turn's.

    Source: github.com/anthropics/hh-rlhf.
    """

    name = "hh"
    title = "transcripts as in Anthropic's HH"

    def matches(self, record: Any, path: Path) -> bool:
        """Transcripts begin like no other text."""
        return isinstance(record, dict) and _is_pair(record)

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Pair]:
        """Pairs, in the order of the file."""
        for row, record in records_like(paths, _is_pair, "a pair of transcripts (chosen and rejected)", report):
            prompt = record.get("prompt") if isinstance(record.get("prompt"), str) else ""
            better, worse = (transcript(f"{prompt}{record[side]}") for side in ("chosen", "rejected"))
            pair = choice(row, None, better, worse, {}, report)
            if pair is not None:
                yield pair


def _is_pair(record: Record) -> bool:
    texts = [record.get("chosen"), record.get("rejected")]
    if not all(isinstance(text, str) for text in texts):
        return False
    return any(isinstance(text, str) and TURN.match(text) for text in (record.get("prompt"), texts[0]))


def transcript(text: str) -> list[Message] | None:
    r"""The turns of a transcript, or None for a text that is none.

    Example:
        >>> transcript("\n\nHuman: Hi\n\nAssistant: Hello")
        [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]
    """
    before, *parts = TURN.split(text)
    if before.strip() or not parts:
        return None
    speakers, said = parts[::2], (part.strip() for part in parts[1::2])
    return [
        user(words) if speaker == "Human" else assistant(words) for speaker, words in zip(speakers, said, strict=True)
    ]
