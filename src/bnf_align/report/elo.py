"""Table 1: Elo, within one pool of models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bnf_align.report import published
from bnf_align.report.inputs import Document
from bnf_align.report.measures import ELO, OURS, UNKNOWN, notes_of
from bnf_align.report.subjects import Subject
from bnf_align.report.table import WITHHELD, Cell, Column, Row, Section, Table

POOL = "An Elo depends on every model and anchor of its pool: compare within one list, never from list to list."


def elo_ranks(rankings: Iterable[Document], subjects: Sequence[Subject], beside: bool = False) -> Table | None:
    """Table 1: a list for each ranking of WildBench, best first. None where there is no such ranking."""
    lists = [ranking for ranking in rankings if ranking.task == ELO.task]
    sections = [_pool(ranking, subjects) for ranking in lists]
    cells = [row.cells[0] for section in sections for row in section.rows]
    if not cells:
        return None
    said = [str(note) for ranking in lists for note in ranking.data.get("notes") or []]
    notes = [POOL, *dict.fromkeys(said), *notes_of(cells)]
    if beside and any(sign in cell.marks for cell in cells for sign in (OURS, UNKNOWN)):
        notes.append(f"{WITHHELD} the paper's list is not shown: the judge was not told what upstream tells it.")
    elif beside:
        paper = [Row(model, [Cell(str(value), float(value))]) for model, value in published.ELO.items()]
        sections.append(Section(f"{published.heading('Table 1')}, another pool", paper, published=True))
    return Table("1", "Elo on WildBench", "Model", [Column("Elo")], sections, notes)


def _pool(ranking: Document, subjects: Sequence[Subject]) -> Section:
    cells = {}
    for model in ranking.models:
        pool = {ELO.task: (ranking, model)}
        known = next((subject for subject in subjects if subject.pools.get(ELO.task) == pool[ELO.task]), None)
        cells[model] = ELO.cell(known or Subject(model, pools=pool))
    rated = sorted((model for model in cells if cells[model].value is not None), key=lambda model: -_elo(cells[model]))
    return Section(f"Pool of {len(rated):,} models: {ranking.path}", [Row(model, [cells[model]]) for model in rated])


def _elo(cell: Cell) -> float:
    return cell.value or 0.0
