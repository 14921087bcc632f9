"""From raw rows to checked preference rows, with every row that is left out counted under its reason."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import datasets

from bnf_align.data.arrow import dataset_rows
from bnf_align.data.check import RowChecker, shared_prompt
from bnf_align.data.columns import cell, read_columns
from bnf_align.data.ledger import OUT, Ledger, canonical, with_label
from bnf_align.records import BadInput, DataReport, PreferenceRow, counted
from bnf_align.sources import ImportedRows

ASKING = ("system", "user", "tool")


def preference_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    source: str,
    column_map: Mapping[str, str] | None = None,
    label_map: Mapping[str, str] | None = None,
    role_map: Mapping[str, str] | None = None,
    conflicting_labels: str = "drop",
) -> tuple[list[PreferenceRow], DataReport]:
    """Check and normalise raw rows of TRL's types; pairs and single answers may stand in one source.

    Read are `prompt, chosen, rejected`; `chosen, rejected` that begin with their prompt; `prompt, completion, label`;
    and `messages, label`, where the last assistant turn is the answer. A text in `system` becomes the system message.
    `tools` and `chat_template_kwargs` stay.

    Args:
        rows: Raw rows, or an Arrow dataset of them. A row's position is its number in every message.
        source: Name of the source, for messages.
        column_map: Our column name -> the source's (`--map`).
        label_map: Label value -> "up", "down" or "drop" (`--label_map`).
        role_map: The source's role -> ours (`--role_map`).
        conflicting_labels: What becomes of single answers labelled both up and down: "drop" all of them, "keep" them,
            or keep those with the "majority" label (`--conflicting_labels`).

    Returns:
        The rows kept, in their order, and what became of all of them.

    Raises:
        BadInput: If the source cannot be read for certain, or no row of it is usable.
    """
    report = DataReport(source)
    raw = list(_raw_rows(rows, source))
    if isinstance(rows, ImportedRows):
        rows.say(report)
    checker = RowChecker(read_columns(raw, column_map, report), role_map, report)
    checked = [row for position, given in enumerate(raw) if (row := checker.row(position, given))]
    checker.finish()
    ledger = Ledger(report)
    for row in checked:
        ledger.add(row)
    for finding in ledger.settle(label_map, conflicting_labels):
        finding.say(report)
    sides = ledger.sides.tolist()
    return [with_label(row, side) for row, side in zip(checked, sides, strict=True) if side != OUT], report


def split_by_prompt(
    rows: Iterable[Mapping[str, Any]],
    fraction: float,
    seed: int = 0,
    column_map: Mapping[str, str] | None = None,
    flag: str = "--eval_fraction",
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Split rows, raw or checked, into training and evaluation so that all rows of one prompt land on one side.

    The side follows from a hash of the prompt and the seed alone, so it stays the same when rows are appended or
    shuffled. Held out is a `fraction` of the prompts; the share of rows comes close where prompts are many. `flag` is
    what set it.

    Returns:
        Training and evaluation rows, each with its number in `row`, which `preference_rows` keeps.

    Raises:
        BadInput: If the fraction is no share, or one above 0 leaves one side empty.
    """
    if not 0 <= fraction <= 1:
        raise BadInput(f"{flag} {fraction} is no share of the prompts: it goes from 0 to 1.")
    sides: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    places: dict[str, int] = {}
    for number, row in enumerate(_raw_rows(rows, "the rows")):
        prompt = _prompt_key(row, column_map or {})
        digest = hashlib.blake2b(f"{seed}\0{prompt}".encode(errors="backslashreplace"), digest_size=8).digest()
        places[prompt] = int.from_bytes(digest, "big")
        sides[places[prompt] < fraction * 2**64].append({"row": number, **row})
    if fraction > 0 and not all(sides):
        mend = "Take more prompts"
        if len(places) > 1:
            low, high = min(places.values()) / 2**64, max(places.values()) / 2**64
            mend = f"Choose one above {low:.3f} and below {high:.3f}"
        raise BadInput(
            f"{flag} {fraction} leaves no {'training' if sides[1] else 'evaluation'} rows: "
            f"{counted(len(sides[0]) + len(sides[1]), 'row')} with {counted(len(places), 'different prompt')}, and "
            f"all rows of one stay together. {mend}."
        )
    return sides


def _raw_rows(rows: Any, source: str) -> Iterator[Mapping[str, Any]]:
    """The rows, and a word where what is given holds rows without being any."""
    if isinstance(rows, Mapping):
        kind, names = type(rows).__name__, [str(name) for name in rows]
        raise BadInput(
            f"{source}: a {kind} of {', '.join(names)} is given where rows are wanted. Give one of them: "
            f"{'dataset' if kind.endswith('DatasetDict') else 'rows'}[{(names or ['train'])[0]!r}]"
        )
    if hasattr(rows, "to_dict") and hasattr(rows, "columns"):
        raise BadInput(f"{source}: a table of pandas is given where rows are wanted: give table.to_dict('records').")
    for number, row in enumerate(dataset_rows(rows) if isinstance(rows, datasets.Dataset) else rows):
        if not isinstance(row, Mapping):
            raise BadInput(
                f"{source}, row {number}: a row is a dict of columns, not {type(row).__name__}: {row!r:.60}"
            )
        yield row


def _prompt_key(row: Mapping[str, Any], column_map: Mapping[str, str]) -> str:
    """The prompt of a row that may be raw: its column, the conversation before the answer, or what answers share."""
    prompt, messages, chosen, rejected = (
        cell(row.get(column_map.get(name, name))) for name in ("prompt", "messages", "chosen", "rejected")
    )
    if prompt is None and isinstance(messages, list):
        turns = [i for i, turn in enumerate(messages) if isinstance(turn, dict) and turn.get("role") not in ASKING]
        prompt = messages[: turns[-1]] if turns else messages
    elif prompt is None and chosen and rejected and isinstance(chosen, type(rejected)):
        prompt = chosen[: shared_prompt(None, chosen, rejected)]
    return canonical(prompt)
