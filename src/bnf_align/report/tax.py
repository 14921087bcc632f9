"""The alignment tax: what a method loses on reasoning against its base, item by item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bnf_align.evaluation.paired import Comparison, compare
from bnf_align.report.measures import REASONING, Measure, notes_of, own_measures
from bnf_align.report.subjects import Subject, sections_of
from bnf_align.report.table import NOT_MEASURED, Cell, Row, Section, Table, printed

INTERVAL = (
    "Points of accuracy above (+) or below (−) the base on the same items, with the 95 % interval of a "
    "bootstrap over these items. * p < 0.05 (McNemar's exact test); with many rows and columns a few such stars are "
    "chance."
)


OF_ITEMS = ("accuracy", "prompt_strict")
"""Numbers that are the share of right items."""

Pair = tuple[Measure, Subject, Subject, Comparison | None]
"""A measure, a row, the base of its section, and how they compare; None where they do not."""


def alignment_tax(pairs: Sequence[Pair]) -> Table | None:
    """Differences to the base of the section. None where no section has a base beside something else."""
    if not pairs:
        return None
    measures = list(dict.fromkeys(measure for measure, *_ in pairs))
    notes = [INTERVAL]
    cells = {
        (id(subject), measure): _cell(measure, subject, base, found, notes) for measure, subject, base, found in pairs
    }
    rows = list({id(subject): subject for _, subject, *_ in pairs}.values())
    sections = [
        Section(name, [Row(one.label, [cells[id(one), measure] for measure in measures]) for one in own])
        for name, own in sections_of(rows).items()
    ]
    notes += notes_of(sections)
    return Table("tax", "Alignment tax", "Method", [measure.column for measure in measures], sections, notes)


def paired(subjects: Sequence[Subject]) -> Iterator[Pair]:
    """Every row beside the base of its section, in each measure whose results hold right and wrong items."""
    measures = [*REASONING, *(one for one in own_measures(subjects) if one.metric in OF_ITEMS)]
    measured = [subject for subject in subjects if any(_verdicts(measure, subject) for measure in measures)]
    for rows in sections_of(measured).values():
        base = next((subject for subject in rows if subject.base), None)
        for subject in rows:
            if base is not None and not subject.base:
                for measure in measures:
                    mine, other = (_verdicts(measure, one) for one in (subject, base))
                    alike = mine and other and not _differing(measure, subject, base)
                    yield measure, subject, base, compare(mine, other) if alike else None


def _differing(measure: Measure, subject: Subject, base: Subject) -> list[str]:
    ours, theirs = measure.protocol(subject), measure.protocol(base)
    return [key for key in ours if key != "number of items" and ours[key] != theirs.get(key)]


def _cell(measure: Measure, subject: Subject, base: Subject, found: Comparison | None, notes: list[str]) -> Cell:
    if found is None:
        differs = _differing(measure, subject, base)
        if not (differs and _verdicts(measure, subject) and _verdicts(measure, base)):
            return Cell(NOT_MEASURED)
        notes.append(
            f"{subject.title}: {measure.name} is not compared with the base, they differ in {', '.join(differs)}."
        )
        return Cell("not comparable")
    if found.unpaired:
        notes.append(f"{subject.title}: {found.unpaired:,} items of {measure.name} were asked of only one of the two.")
    shown, low, high = (printed(100 * value, 1, signed=True) for value in (found.difference, *found.interval))
    star = "*" if found.p_value < 0.05 else ""
    return Cell(f"{shown}{star} [{low}, {high}]", 100 * found.difference, marks=measure.marks(subject))


def _verdicts(measure: Measure, subject: Subject) -> dict[str, float]:
    """Item id -> whether it was answered right; no answer (None) is wrong, as in the accuracy."""
    result = subject.results.get(measure.task)
    items = result.data.get("items", []) if result else []
    return {str(item["id"]): bool(item["correct"]) for item in items if "correct" in item}
