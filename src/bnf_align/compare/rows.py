"""The rows of a comparison: checked once, split by prompt, each split a file of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bnf_align.data.assignments import assignments
from bnf_align.data.ledger import canonical
from bnf_align.data.prepare import checked_rows
from bnf_align.data.read import iter_rows
from bnf_align.data.rows import split_by_prompt
from bnf_align.journal.lines import row_bytes
from bnf_align.losses import LOSSES
from bnf_align.outputs import whole_files
from bnf_align.records import DataReport, PreferenceRow
from bnf_align.reference.cache import digest
from bnf_align.sources import Options

if TYPE_CHECKING:
    from bnf_align.compare.config import Plan

ALREADY_READ: dict[str, Any] = {"map": None, "label_map": None, "role_map": None, "conflicting_labels": "keep"}
"""Settings for the rows of a split, which are checked rows with our names."""

SMALLEST = 20
"""Prompts of a split: with fewer, one prompt is more than five points of accuracy."""


class Splits(NamedTuple):
    """Checked rows by `train`, `validation` and `test`, and what became of all of them."""

    rows: dict[str, list[PreferenceRow]]
    report: DataReport

    def prompts(self, name: str) -> int:
        """Different prompts of a split."""
        return len({canonical(row["prompt"]) for row in self.rows[name]})


def split(plan: Plan) -> Splits:
    """Read and check the rows, and split them: all rows of a prompt are on one side.

    Raises:
        BadInput: If they cannot be read, or a split gets none.
    """
    config = plan.config("sft", {})
    options = Options(assignments("label_map", config.label_map), assignments("map", config.map))
    checked, report = checked_rows("the", iter_rows(plan.data, plan.split, options), config)
    rest, test = split_by_prompt(checked, plan.test, plan.split_seed, flag="a share of")
    # With another seed: with the same one the prompts of the smallest hashes would be gone already.
    train, validation = split_by_prompt(
        rest, plan.validation / (1 - plan.test), plan.split_seed + 1, flag="a share of"
    )
    return Splits({"train": train, "validation": validation, "test": test}, report)


def faults_of(plan: Plan, splits: Splits) -> list[tuple[str, ...]]:
    """What keeps the rows from being compared on: a text, and the key that it is about."""
    found: list[tuple[str, ...]] = [
        (f"{name} gets {count} prompts, and fewer than {SMALLEST} tell nothing: other shares, or more rows.", "data")
        for name in splits.rows
        if (count := splits.prompts(name)) < SMALLEST
    ]
    report = splits.report
    for name, method in plan.methods.items():
        spec, singles = LOSSES[method.loss_type], report.ups + report.downs
        if spec.pairwise and singles:
            text = (
                f"{method.loss_type} compares the two answers of a pair, and {singles:,} answers are in none: it "
                "would not see what the others see. Make pairs of them (bnf-align select), or leave it out."
            )
            found.append((text, "methods", name))
        if spec.only is not None and not (report.pairs or (report.ups if spec.only else report.downs)):
            text = f"{method.loss_type} trains on thumbs {'up' if spec.only else 'down'} alone, and there is none."
            found.append((text, "methods", name))
    return found


def file_of(plan: Plan, name: str) -> Path:
    """The file of a split's rows."""
    return Path(plan.out) / "rows" / f"{name}.jsonl"


def write(plan: Plan, splits: Splits) -> dict[str, Mapping[str, Any]]:
    """Write each split; the counts and the hash of each."""
    with whole_files(*(file_of(plan, name) for name in splits.rows)) as files:
        for file, rows in zip(files, splits.rows.values(), strict=True):
            file.writelines(row_bytes(row).decode() for row in rows)
    return {
        name: {"rows": len(rows), "prompts": splits.prompts(name), "hash": digest(file_of(plan, name).read_bytes())}
        for name, rows in splits.rows.items()
    }
