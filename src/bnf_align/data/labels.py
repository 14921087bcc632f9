"""From whatever marks an answer as good or bad to a bool, without ever asking whether a foreign value is truthy.

Feedback tools write a thumbs down as -1, 0, false, "thumbsDown" or "Dislike", and `bool("thumbsDown")` is True: a
label read by truthiness trains on the answers people disliked. What is read is a short table; all else is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import numpy as np

from bnf_align.records import BadInput, rows_text


class Settled(Enum):
    """A label that an importer has read from its source's values: no map is applied to it a second time."""

    UP = True
    DOWN = False


UP, DOWN = True, False
MEANINGS = {"up": UP, "down": DOWN, "drop": None}
SHOWN = 20


def read_labels(
    values: Sequence[Any],
    label_map: Mapping[str, str] | None = None,
    *,
    rows: Sequence[int] | None = None,
    table: Mapping[str, str] | None = None,
    strict: bool = False,
    placed: bool = False,
) -> tuple[list[bool | None], str | None]:
    """Labels as bools, and how they were read.

    Without a map: bool, and `Settled`; "true" and "false" in any case; 1 with 0 or 1 with -1, as int, float (Arrow
    turns a column of integers with gaps into floats) or text, which a .csv has; NumPy's too. With a map or a table,
    every value that occurs must be in one of them.

    Args:
        values: The column, None or NaN where a row has no label, or an empty text among texts.
        label_map: Value, as text -> "up", "down" or "drop", as `--label_map` gives it.
        rows: The rows' numbers, for messages; their positions if not given.
        table: What a known source's values mean, written as in `label_map`, which stands above it.
        strict: Whether a map that names no value at all is an error. Held-out rows may lack them all.
        placed: Whether `--up_from` and `--down_to` said what the numbers in `label_map` mean; messages name them.

    Returns:
        True for up, False for down, None for a row without a label or mapped to drop; and a sentence for the report,
        None where every label was a bool already.

    Raises:
        BadInput: If a value has no certain meaning, or a strict map names none; the message lists every value seen
            with its count.

    Example:
        >>> read_labels([1, -1, None, 1])
        ([True, False, None, True], '2 x 1 read as up, 1 x -1 read as down; another meaning? --label_map')
    """
    values = [plain(value) for value in values]
    if "nan" not in (label_map or {}):  # a gap in a column of numbers, as Parquet and pandas write it
        values = [None if isinstance(value, float) and value != value else value for value in values]
    if "" not in (label_map or {}) and all(isinstance(value, str | None) for value in values):
        values = [value or None for value in values]  # and in a .csv, which has texts alone
    texts = [None if value is None or isinstance(value, Settled) else _text(value) for value in values]
    counts = Counter(text for text in texts if text is not None)
    kinds = {text: value for text, value in zip(texts, values, strict=True) if text is not None}
    words = {**_on_its_scale(kinds, table or {}), **(label_map or {})}
    meaning = _mapped(kinds, words) if words or table else _read(kinds, counts)
    if unread := [text for text in counts if text not in meaning]:
        at = [position for position, text in enumerate(texts) if text in unread]
        numbers = at if rows is None else [rows[position] for position in at]
        raise BadInput(_unread(counts, unread, numbers, bool(label_map) and not table, placed))
    # Where the table knows all values, entries of the map that name none would pass for obeyed.
    named = {*kinds, *map(str, kinds.values())}
    idle = [f"{value}={to}" for value, to in (label_map or {}).items() if value not in named]
    obeyed = len(idle) < len(label_map or {})
    if strict and idle and counts and not obeyed:
        raise BadInput(
            f"--label_map {' '.join(idle)}: no rating has such a value, so it would change nothing. Seen: "
            f"{_listed(counts)}. Write the values as they are listed."
        )
    settled = [value.value if isinstance(value, Settled) else None for value in values]
    labels = [sure if text is None else meaning[text] for sure, text in zip(settled, texts, strict=True)]
    if not counts or (not label_map and all(isinstance(value, bool) for value in kinds.values())):
        return labels, None
    words_of = {UP: "read as up", DOWN: "read as down", None: "left out"}
    note = _listed(counts, {text: words_of[to] for text, to in meaning.items()})
    note += f" ({'--up_from, --down_to' if placed else '--label_map'})" if obeyed else "; another meaning? --label_map"
    return labels, note + (f"; no value is what {' '.join(idle)} names" if idle else "")


def plain(value: Any) -> Any:
    """NumPy's bools and numbers as Python's; everything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _on_its_scale(kinds: Mapping[str, Any], table: Mapping[str, str]) -> Mapping[str, str]:
    """`table`, without its numbers where others occur: a 1 among marks from 1 to 5 is the lowest, not a thumb up."""
    marks = {text: value for text, value in kinds.items() if not isinstance(value, bool) and _is_number(str(value))}
    numbers = {value if isinstance(value, str) else text for text, value in marks.items()}
    if numbers <= table.keys():
        return table
    return {text: to for text, to in table.items() if not _is_number(text)}


def spelled(value: Any) -> str:
    """A value as a table and `--label_map` write it: true, -1, 0.5, good."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _text(value: Any) -> str:
    """The same, but a string that could be taken for another value is quoted."""
    quoted = isinstance(value, str) and (_is_number(value) or not value.strip())
    return repr(value) if quoted else spelled(value)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _read(kinds: Mapping[str, Any], counts: Counter[str]) -> dict[str, bool | None]:
    """The meaning of each value that has a certain one."""
    # A .csv has texts alone.
    numbers = {text: int(value) if value in ("1", "0", "-1") else value for text, value in kinds.items()}
    if {0, -1} <= {value for value in numbers.values() if type(value) in (int, float)}:
        raise BadInput(
            f"The labels hold both 0 and -1 ({_listed(counts)}): one may mean down and the other no opinion. "
            "Say what each means, for example --label_map 1=up -1=down 0=drop"
        )
    meaning: dict[str, bool | None] = {}
    for text, value in numbers.items():
        if isinstance(value, bool):
            meaning[text] = value
        elif isinstance(value, int | float) and value in (1, 0, -1):
            meaning[text] = value == 1
        elif isinstance(value, str) and value.lower() in ("true", "false"):
            meaning[text] = value.lower() == "true"
    return meaning


def _mapped(kinds: Mapping[str, Any], label_map: Mapping[str, str]) -> dict[str, bool | None]:
    wrong = {value: to for value, to in label_map.items() if to not in MEANINGS}
    if wrong:
        listed = " ".join(f"{value}={to}" for value, to in wrong.items())
        raise BadInput(f"--label_map {listed}: a value is mapped to up, down or drop.")
    # A map comes from the command line as text, where the string "1" and the number 1 or 1.0 look the same.
    found = {text: label_map.get(text, label_map.get(str(value))) for text, value in kinds.items()}
    return {text: MEANINGS[to] for text, to in found.items() if to is not None}


def _unread(counts: Counter[str], unread: list[str], rows: list[int], mapped: bool, placed: bool) -> str:
    why = "are not labels that can be read for certain"
    if mapped:
        why = "are no numbers, nor in --label_map" if placed else "are not in --label_map"
    values = ", ".join(text if text == text.strip() else repr(text) for text in unread[:3]) + (
        ", ..." if len(unread) > 3 else ""
    )
    first = sorted(counts, key=lambda text: text not in unread)  # those that nothing is known of
    quoted = [f"'{text}'" if " " in text else text for text in first[:3]]  # as a shell takes them
    form = " ".join(f"{text}=up|down|drop" for text in quoted) + (" ..." if len(counts) > 3 else "")
    return (
        f"Values {values} in {rows_text(rows)} {why}. Seen: {_listed(counts)}. A label taken for its opposite trains "
        f"on the answers people disliked, so nothing is guessed: say what each value means with --label_map {form}"
    )


def _listed(counts: Counter[str], words: Mapping[str, str] | None = None) -> str:
    """The most frequent values with their counts, and what became of each."""
    listed = [
        f"{count:,} x {text}" + (f" {words[text]}" if words else "") for text, count in counts.most_common(SHOWN)
    ]
    more = len(counts) - SHOWN
    return ", ".join(listed) + (f" and {more:,} other values" if more > 0 else "")
