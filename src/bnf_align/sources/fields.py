"""Parts of a record that may hold anything: what is asked for, or nothing, and never a stumble."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

from bnf_align.sources.files import unpacked
from bnf_align.sources.source import Record

Where = str | Callable[[Record], Any]
"""Where a part of a record stands, such as `feedback.rating|rating` (see `first_of`), or what makes it of a record."""


def dicts(value: Any) -> list[Record]:
    """The objects in a list; none of what is no list."""
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def mapping(value: Any) -> Record:
    """An object, or an empty one for what is none."""
    return value if isinstance(value, dict) else {}


def has(*fields: str) -> Callable[[Record], bool]:
    """Whether a record has all of these fields."""
    return lambda record: all(field in record for field in fields)


def inside(record: Any, path: str) -> Any:
    """What stands under a path such as `input.messages`, None where there is no such place.

    A name that itself holds dots, as in a table of spans, comes before a way down.
    """
    if not isinstance(record, dict):
        return None
    if path in record:
        return record[path]
    head, _, rest = path.partition(".")
    return inside(unpacked(record.get(head)), rest) if rest else None


def first_of(record: Record, paths: str) -> Any:
    """The value of the first of some paths, with `|` between them, that the record has; None where it has none."""
    found = (inside(record, path) for path in paths.split("|") if path)
    return next((value for value in found if value is not None), None)


def part(record: Record, where: Where) -> Any:
    """A part of a record, None where it has none."""
    return first_of(record, where) if isinstance(where, str) else where(record)


def filled(**extras: Any) -> Record:
    """The extras that the source has a value for; a time stamp of a Parquet file as JSON can have it, as text."""
    there = {name: value for name, value in extras.items() if value not in (None, "", [], {})}
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in there.items()}


def joined(*parts: Any) -> str | None:
    """Why someone rated as they did: a chosen reason and their own words, as far as there are any."""
    return ": ".join(part for part in parts if isinstance(part, str) and part.strip()) or None
