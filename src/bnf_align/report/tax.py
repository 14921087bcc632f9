"""The alignment tax: what a method loses on reasoning against its base, item by item."""

from __future__ import annotations

from collections.abc import Sequence

from bnf_align.evaluation.paired import compare
from bnf_align.evaluation.ranks import half_up
from bnf_align.report.measures import REASONING, Measure, notes_of
from bnf_align.report.subjects import Subject, sections_of
from bnf_align.report.table import NOT_MEASURED, Cell, Row, Section, Table

INTERVAL = (
    "Points of accuracy above (+) or below (−) the base on the same items, with the 95 % interval of a "
    "bootstrap over these items. * p < 0.05 (McNemar's exact test); with many rows and columns a few such stars are "
    "chance."
)


def alignment_tax(subjects: Sequence[Subject]) -> Table | None:
    """Differences to the base of the section. None where no section has a base beside something else."""
    notes: list[str] = []
    sections = []
    measured = [subject for subject in subjects if any(_verdicts(measure, subject) for measure in REASONING)]
    for name, rows in sections_of(measured).items():
        base = next((subject for subject in rows if subject.base), None)
        others = [subject for subject in rows if not subject.base]
        if base is not None and others:
            sections.append(Section(name, [_row(subject, base, notes) for subject in others]))
    if not sections:
        return None
    notes = [INTERVAL, *notes, *notes_of(cell for section in sections for row in section.rows for cell in row.cells)]
    return Table("tax", "Alignment tax", "Method", [measure.column for measure in REASONING], sections, notes)


def _row(subject: Subject, base: Subject, notes: list[str]) -> Row:
    return Row(subject.label, [_cell(measure, subject, base, notes) for measure in REASONING])


def _cell(measure: Measure, subject: Subject, base: Subject, notes: list[str]) -> Cell:
    mine, other = (_verdicts(measure, one) for one in (subject, base))
    if not mine or not other:
        return Cell(NOT_MEASURED)
    ours, theirs = measure.protocol(subject), measure.protocol(base)
    differs = [key for key in ours if key != "number of items" and ours[key] != theirs[key]]
    if differs:
        notes.append(
            f"{subject.title}: {measure.name} is not compared with the base, they differ in {', '.join(differs)}."
        )
        return Cell("not comparable")
    found = compare(mine, other)
    if found.unpaired:
        notes.append(f"{subject.title}: {found.unpaired:,} items of {measure.name} were asked of only one of the two.")
    shown, low, high = (_signed(100 * value) for value in (found.difference, *found.interval))
    star = "*" if found.p_value < 0.05 else ""
    return Cell(f"{shown}{star} [{low}, {high}]", 100 * found.difference, marks=measure.marks(subject))


def _verdicts(measure: Measure, subject: Subject) -> dict[str, float]:
    """Item id -> whether it was answered right; no answer (None) is wrong, as in the accuracy."""
    result = subject.results.get(measure.task)
    items = result.data.get("items", []) if result else []
    return {str(item["id"]): bool(item["correct"]) for item in items if "correct" in item}


def _signed(value: float) -> str:
    text = half_up(abs(value), 1)
    return text if float(text) == 0 else f"{'−' if value < 0 else '+'}{text}"
