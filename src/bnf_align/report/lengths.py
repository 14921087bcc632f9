"""Table 5: how long the answers are, and whether they grew or shrank against the base."""

from __future__ import annotations

from collections.abc import Sequence

from bnf_align.report import published
from bnf_align.report.measures import LENGTHS, notes_of, withheld_notes
from bnf_align.report.subjects import BASE, Subject, sections_of
from bnf_align.report.table import WITHHELD, Cell, Row, Section, Table

TOKENS = (
    "Tokens are counted as the answers' files record them: by cl100k in published files, by the model's own tokenizer "
    "in those of bnf-align."
)


def output_lengths(subjects: Sequence[Subject], beside: bool = False) -> Table | None:
    """Table 5; arrows as in the paper, against the base of the section. None where no length was measured."""
    measured = [subject for subject in subjects if any(measure.value(subject) is not None for measure in LENGTHS)]
    if not measured:
        return None
    sections = [_section(base, rows) for base, rows in sections_of(measured).items()]
    notes = [TOKENS, *notes_of(cell for section in sections for row in section.rows for cell in row.cells)]
    if beside:
        reasons = {measure.name: why for measure in LENGTHS if (why := measure.unlike_published(measured))}
        withheld = [measure.name in reasons for measure in LENGTHS]
        sections += [_published(base, block, withheld) for base, block in published.LENGTHS.items()]
        notes += withheld_notes(reasons)
    columns = [measure.column for measure in LENGTHS]
    return Table("5", "Average output length", "Method", columns, sections, notes)


def _section(base: str, subjects: Sequence[Subject]) -> Section:
    cells = [[measure.cell(subject) for measure in LENGTHS] for subject in subjects]
    start = next((row for row, subject in zip(cells, subjects, strict=True) if subject.base), None)
    rows = [_arrows(row, start) for row in cells]
    return Section(base, [Row(subject.label, row) for subject, row in zip(subjects, rows, strict=True)])


def _published(base: str, block: str, withheld: Sequence[bool]) -> Section:
    cells = {
        label: [
            Cell(WITHHELD) if hidden else Cell(text, float(text)) for text, hidden in zip(texts, withheld, strict=True)
        ]
        for label, texts in published.numbers(block).items()
    }
    rows = [Row(label, _arrows(row, cells[BASE])) for label, row in cells.items()]
    return Section(published.heading(base), rows, published=True)


def _arrows(cells: Sequence[Cell], base: Sequence[Cell] | None) -> list[Cell]:
    return [_arrow(cell, start) for cell, start in zip(cells, base or cells, strict=True)]


def _arrow(cell: Cell, base: Cell) -> Cell:
    """`cell` with an arrow where its printed length differs from the base's."""
    if cell.value is None or base.value is None or cell.value == base.value:
        return cell
    return Cell(f"{cell.text} {'↑' if cell.value > base.value else '↓'}", cell.value, marks=cell.marks)
