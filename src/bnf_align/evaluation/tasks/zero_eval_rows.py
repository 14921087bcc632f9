"""Rows of ZeroEval's tasks: ours, its own and the public data folder's, and the gold answers they may lack."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from bnf_align.evaluation.task import Row
from bnf_align.evaluation.tasks.one_model import UNNAMED, model_of, one_model
from bnf_align.records import BadInput
from bnf_align.thoughts import without_thoughts

IDS = {"gsm8k-main-": "gsm8k", "crux-test-": "crux", "mmlu-redux-": "mmlu_redux"}
"""How ZeroEval's ids begin -> the task; those of `math-l5` are plain numbers."""


def id_of(row: Row) -> str:
    """The item that a row is about, under our name for it or ZeroEval's."""
    return str(row.get("id", row.get("session_id")))


def output_of(row: Row) -> str:
    """A model's text without the reasoning before it; an empty one where it gave none."""
    output = row["output"]
    if isinstance(output, list):
        output = output[0] if output else None
    return without_thoughts(output) if isinstance(output, str) else ""


def outputs_of(rows: Sequence[Row], model: str | None, task: str) -> tuple[list[Row], str | None]:
    """The rows of one model, and its name: `model`, or what the rows say.

    Raises:
        BadInput: If a row has no output, or the rows are of several models and `model` is none of them.
    """
    bad = [number for number, row in enumerate(rows) if "output" not in row]
    if bad or not rows:
        seen = f"; the first is row {bad[0]} with the columns {', '.join(rows[bad[0]])}" if bad else ""
        raise BadInput(
            f"{len(bad):,} of {len(rows):,} rows have no `output`{seen}. {task} scores a model's answers, as "
            "`bnf-align eval run` and ZeroEval write them."
        )
    # Any number has a first number and any text a verdict, so another task's rows would give a number all the same.
    others = {other for start, other in IDS.items() for row in rows if id_of(row).startswith(start)} - {task}
    if others:
        raise BadInput(f"There are rows of {' and of '.join(sorted(others))}, by their ids: score them with --task.")
    name = one_model((model_of(row) for row in rows), model)
    kept = [row for row in rows if model_of(row) == name]
    return kept, (model if name == UNNAMED else name)


def with_gold(
    rows: Sequence[Row], columns: Sequence[str], items: Mapping[str, Row], task: str
) -> tuple[list[Row], list[str]]:
    """`rows` with the gold `columns`, from `items` (by id) where they lack them, and the ids that have none there.

    Raises:
        BadInput: If a row lacks one and there are no items, or no row is left.
    """
    lacking = [id_of(row) for row in rows if _lacks(row, columns)]
    if not lacking:
        return list(rows), []
    filled = [{**row, **_gold(items.get(id_of(row), {}), columns)} if _lacks(row, columns) else row for row in rows]
    kept = [row for row in filled if not _lacks(row, columns)]
    if not items or not kept:
        have = f"none of the {len(items):,} items of --data has their ids" if items else "there are no items"
        raise BadInput(
            f"{len(lacking):,} of {len(rows):,} rows have no {' and '.join(columns)} to grade the output with, the "
            f"first {lacking[0]!r}, and {have}. Give the items of {task} with --data FILE."
        )
    return kept, [id_of(row) for row in filled if _lacks(row, columns)]


def required(rows: Iterable[Row], columns: Sequence[str], task: str) -> list[Row]:
    """Rows that are items of `task`.

    Raises:
        BadInput: If one lacks a column.
    """
    rows = list(rows)
    bad = [number for number, row in enumerate(rows) if _lacks(row, columns)]
    if bad:
        raise BadInput(
            f"{len(bad):,} of {len(rows):,} rows are no items of {task}, the first is row {bad[0]} with the columns "
            f"{', '.join(rows[bad[0]])}; needed: {', '.join(columns)}. Give another file with --data."
        )
    return rows


def _lacks(row: Row, columns: Sequence[str]) -> bool:
    return any(row.get(name) is None for name in columns)


def _gold(item: Row, columns: Sequence[str]) -> Row:
    return {name: item[name] for name in columns if name in item}
