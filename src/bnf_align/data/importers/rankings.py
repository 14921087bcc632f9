"""Argilla's responses that compare the fields of a record: rankings, and labels that are names of fields."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bnf_align.data.importers.choices import Choice, settled
from bnf_align.data.importers.files import Record
from bnf_align.data.importers.importer import Options
from bnf_align.data.importers.shape import PROMPTS, dicts
from bnf_align.records import DataReport

OWN = ("id", "_server_id", "status", "inserted_at", "updated_at")
"""Columns that are Argilla's, and no field."""

NO_RANKS = (
    "a ranking without its ranks (Argilla's Python export has the options in one order, whatever was answered: take "
    "the records from its API)"
)


def compares(value: Any, record: Record) -> bool:
    """Whether a response ranks, or names a field, rather than rate one."""
    return isinstance(value, list) or (isinstance(value, str) and value in record)


def chosen_fields(
    row: int, record: Record, values: Sequence[Any], options: Options, report: DataReport
) -> Iterator[Choice]:
    """The better and the worse field, as the raters together have it; or a reason in the report.

    Args:
        row: The record's number.
        record: The record, flat.
        values: The responses to one question.
        options: Rule for several raters, and the prompt's name.
        report: Where a record without a choice is counted.
    """
    choices = [_choice(value, record, options) for value in values if not _lacks_ranks(value)]
    found = settled(choices, options.raters)
    if not choices:
        report.drop(NO_RANKS, row)
    elif not found:
        disagree = f"its raters disagree (--raters {options.raters})"
        report.drop(disagree if len(set(choices)) > 1 else "a response that prefers no field", row)
    yield from found


def _lacks_ranks(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 1 and not dicts(value)


def _choice(value: Any, record: Record, options: Options) -> Choice | None:
    """The best and the worst field of one response; None where it prefers none."""
    if isinstance(value, list):
        ranks = [(part["rank"], str(part.get("value"))) for part in dicts(value) if type(part.get("rank")) is int]
        if len(ranks) < 2 or len(ranks) != len(value) or any(name not in record for _, name in ranks):
            return None
        best, worst = min(ranks), max(ranks)
        return (best[1], worst[1]) if best[0] < worst[0] else None
    fields = _fields(record, options)
    others = [name for name in fields if name != value]
    return (value, others[0]) if value in fields and len(others) == 1 else None


def _fields(record: Record, options: Options) -> list[str]:
    """The fields that hold an answer: all text but the prompt, Argilla's own columns and those of questions."""
    prompts = {options.column_map.get("prompt"), *PROMPTS}
    texts = [name for name, value in record.items() if isinstance(value, str) and "." not in name]
    return [name for name in texts if name not in prompts and name not in OWN]
