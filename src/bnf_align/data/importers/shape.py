"""Records of one known shape out of files that may hold anything: the others are counted, never stumbled over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from bnf_align.data.columns import IMAGES
from bnf_align.data.importers.files import Record, records_of, unpacked
from bnf_align.data.importers.importer import Options
from bnf_align.records import BadInput, DataReport

PROMPTS = ("prompt", "instruction")
ANSWERS = ("completion", "response")


def records_like(
    paths: Sequence[Path],
    fits: Callable[[Record], bool],
    wanted: str,
    report: DataReport,
    read: Callable[[Sequence[Path]], Iterator[tuple[int, Record]]] = records_of,
) -> Iterator[tuple[int, Record]]:
    """The records that fit, each with its number; the others are counted as left out.

    Args:
        paths: Files of one shape.
        fits: Whether a record has the shape.
        wanted: The shape in words, for messages.
        report: Where the others are counted.
        read: What makes records of the files, where it is not one per row.

    Raises:
        BadInput: At the end, if no record fitted.
    """
    fitted, seen = False, ""
    for number, record in read(paths):
        if fits(record):
            fitted = True
            yield number, record
        else:
            seen = seen or ", ".join(map(str, record)) or "nothing"
            report.drop(f"not {wanted}", number)
    if not fitted:
        names = ", ".join(path.name for path in paths)
        raise BadInput(f"{names}: no record is {wanted}. The first one has: {seen:.300}")


def dicts(value: Any) -> list[Record]:
    """The objects in a list; none of what is no list."""
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def mapping(value: Any) -> Record:
    """An object, or an empty one for what is none."""
    return value if isinstance(value, dict) else {}


def first_of(record: Record, names: Sequence[str]) -> Any:
    """The value of the first of `names` that the record has, and None where it has none of them."""
    return next((record[name] for name in names if record.get(name) is not None), None)


def has_pictures(record: Record) -> bool:
    """Whether a record comes with images, video or audio, which no row here can hold."""
    return any(record.get(name) for name in IMAGES)


NO_TOOLS = "tools that are no JSON list"


def tools_of(value: Any) -> list[Any] | None:
    """Tools from a list or its JSON text, an empty list where there are none; None for what a template cannot show."""
    value = unpacked(value) or []
    return value if isinstance(value, list) else None


def field_named(fields: Record, ours: str, known: Sequence[str], options: Options) -> str:
    """What the source calls a field of ours.

    Args:
        fields: A record's fields.
        ours: Our name for it.
        known: Names that are read without being told.
        options: Where `--map` may name another.

    Raises:
        BadInput: If none of them is there.
    """
    name = options.column_map.get(ours) or next((name for name in known if name in fields), None)
    if name is None or name not in fields:
        what = f"`{name}`, which --map names as the {ours}" if name else f"{' or '.join(f'`{one}`' for one in known)}"
        listed = ", ".join(map(str, fields))
        raise BadInput(f"There is no field {what}. The fields are {listed}: say --map {ours}=FIELD")
    return name


def filled(**extras: Any) -> dict[str, Any]:
    """The extras that the source has a value for; a time stamp of a Parquet file as JSON can have it, as text."""
    there = {name: value for name, value in extras.items() if value not in (None, "", [], {})}
    return {name: value.isoformat() if isinstance(value, date) else value for name, value in there.items()}
