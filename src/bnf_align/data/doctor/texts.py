"""The texts of rows: whole, for measuring, and as short excerpts, for showing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bnf_align.data.doctor.personal import redact
from bnf_align.data.labels import Settled
from bnf_align.data.template import shared_prefix
from bnf_align.records import PreferenceRow

SHOWN = ("prompt", "messages", "conversations", "chosen", "rejected", "completion")
WIDTH = 90
BEFORE = 30
"""Characters shown before the place where two answers part."""
LOOKED_AT = 5_000


def text_of(value: Any) -> str:
    """A text, or what the messages of a list say, tool calls as JSON."""
    if isinstance(value, str):
        return value
    said = [part for turn in value for name, part in turn.items() if name != "role" and part]
    return "\n".join([part if isinstance(part, str) else _json(part) for part in said])


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def texts_of(row: PreferenceRow) -> dict[str, str]:
    """The texts of a checked row: its prompt, then its answers, a pair's chosen one first."""
    return {name: text_of(row[name]) for name in ("prompt", "chosen", "rejected", "completion") if name in row}


def excerpts(number: int, named: Mapping[str, Any]) -> dict[str, Any]:
    """A row in a line or two, with likely personal data masked.

    Args:
        number: The row's number.
        named: The raw row under this project's column names.
    """
    texts = {name: _readable(named[name]) for name in SHOWN if named.get(name) is not None}
    start = 0
    if {"chosen", "rejected"} <= texts.keys():  # near-identical answers differ further on than an excerpt shows
        parted = min(shared_prefix(texts["chosen"], texts["rejected"]), LOOKED_AT - 2 * WIDTH)
        start = parted - BEFORE if parted > WIDTH - BEFORE else 0
    shown = {name: shorten(text, start if name in ("chosen", "rejected") else 0) for name, text in texts.items()}
    label = named.get("label")
    label = label.value if isinstance(label, Settled) else label
    return {"row": number, **shown, **({} if label is None else {"label": shorten(redact(str(label)))})}


def _readable(value: Any) -> str:
    if isinstance(value, list) and all(isinstance(turn, dict) for turn in value):
        last = value[-1] if value else {}
        said = last.get("content", last.get("value"))
        value = said if isinstance(said, str) else _json(value)
    text = value if isinstance(value, str) else _json(value)
    # Masked before it is cut: half an address or half a key is no longer known for one.
    return redact(" ".join(text.split()))[:LOOKED_AT]


def shorten(text: str, start: int = 0) -> str:
    """A text of one short line that shows on any terminal, from `start`."""
    end = start + WIDTH
    cut = ("... " if start else "") + text[start:end] + (" ..." if len(text) > end else "")
    return printable(cut)


def printable(text: str) -> str:
    r"""A text whose control characters, which could drive a terminal, are spelled out.

    Example:
        >>> print(printable("a\x1b[31mb"))
        a\x1b[31mb
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
