"""Tables 1 and 4 to 6: Elo within its pool, benchmark numbers with ranks within a base model, lengths of answers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from bnf_align.report import published
from bnf_align.report.inputs import Document
from bnf_align.report.measures import (
    ELO,
    LENGTHS,
    MEASURES,
    NOTES,
    OURS,
    UNKNOWN,
    Measure,
    notes_of,
    own_measures,
    withheld_notes,
)
from bnf_align.report.subjects import BASE, Subject, sections_of
from bnf_align.report.table import WITHHELD, Cell, Column, Row, Section, Table, number, ranked

RATIO = re.compile(r"(\d+(?:\.\d+)?)\s*%")
AVERAGE = Column("Rank", "Average")


def main_results(subjects: Sequence[Subject], beside: bool = False) -> Table | None:
    """Table 4; `beside` adds the paper's rows. None where no benchmark was measured."""
    methods = [subject for subject in subjects if not RATIO.fullmatch(subject.label)]
    return _table("4", "Benchmark results", "Method", methods, published.RESULTS if beside else {})


def own_results(subjects: Sequence[Subject]) -> Table | None:
    """Benchmarks that are none of the paper's: held-out preferences, IFEval, a user's own tasks. None without one."""
    title = "Results on other benchmarks and your own tasks"
    return _table("own", title, "Method", subjects, {}, own_measures(subjects))


def pairing_ratios(subjects: Sequence[Subject], beside: bool = False) -> Table | None:
    """Table 6: rows labelled with a percentage, the share of whole pairs, and their base. None without such rows."""
    share = {id(one): float(found[1]) for one in subjects if (found := RATIO.fullmatch(one.label))}
    sections = {one.section for one in subjects if id(one) in share}
    rows = [one for one in subjects if id(one) in share or (one.base and one.section in sections)]
    rows.sort(key=lambda one: share.get(id(one), -1.0))
    title = "Results by pairing ratio, the share of preference pairs that kept both responses"
    return _table("6", title, "Pairing ratio", rows, published.PAIRING if beside else {})


def _table(
    name: str,
    title: str,
    label: str,
    subjects: Sequence[Subject],
    paper: Mapping[str, str],
    measures: Sequence[Measure] = MEASURES,
) -> Table | None:
    measured = _measured(subjects, measures)
    if not measured:
        return None
    notes: list[str] = []
    sections = [_section(base, rows, notes, measures) for base, rows in sections_of(measured).items()]
    notes += notes_of(sections)
    if paper:
        withheld = _withheld(measured, MEASURES)
        sections += [_published(base, block, withheld) for base, block in paper.items()]
        notes += withheld_notes(withheld)
    return Table(name, title, label, [*(measure.column for measure in measures), AVERAGE], sections, notes)


def _measured(subjects: Sequence[Subject], measures: Sequence[Measure]) -> list[Subject]:
    return [subject for subject in subjects if any(measure.value(subject) is not None for measure in measures)]


def _withheld(subjects: Sequence[Subject], measures: Sequence[Measure]) -> dict[str, str]:
    """Measure -> why the paper's numbers cannot stand beside those of the subjects."""
    return {measure.name: why for measure in measures if (why := measure.unlike_published(subjects))}


def _section(base: str, subjects: Sequence[Subject], notes: list[str], measures: Sequence[Measure]) -> Section:
    """The rows of one base model; a column is ranked where all its numbers were made alike."""
    columns, where = [], f"{base}: " if base else ""
    for measure in measures:
        cells = [measure.cell(subject) for subject in subjects]
        if differs := _differences(measure, subjects):
            notes.append(f"{where}{measure.name} is not ranked, for its rows differ in {differs}.")
        columns.append(cells if differs else ranked(cells))
    complete = [cells for cells in columns if all(cell.rank for cell in cells)]
    if 0 < len(complete) < len(measures):
        notes.append(f"{where}Average Rank is over {len(complete)} of {len(measures)} columns, those ranked in full.")
    if complete:
        means = [sum(cell.rank or 0 for cell in row) / len(complete) for row in zip(*complete, strict=True)]
        columns.append(ranked([number(mean, 2) for mean in means], lower_is_better=True, shown=False))
    else:
        columns.append([Cell("not ranked")] * len(subjects))
    rows = zip(subjects, zip(*columns, strict=True), strict=True)
    return Section(base, [Row(subject.label, list(cells)) for subject, cells in rows])


def _differences(measure: Measure, subjects: Sequence[Subject]) -> str:
    """In what the numbers of a column differ besides the model."""
    protocols = [measure.protocol(subject) for subject in subjects if measure.value(subject) is not None]
    keys = protocols[0] if protocols else {}
    return ", ".join(key for key in keys if len({str(found[key]) for found in protocols}) > 1)


def _published(base: str, block: str, withheld: Mapping[str, str]) -> Section:
    """The paper's rows on one base model, without the columns that would be misread beside the user's."""
    printed = published.numbers(block)
    *texts, averages = zip(*printed.values(), strict=True)
    columns = [
        ranked([_paper(text, measure.name in withheld) for text in column])
        for measure, column in zip(MEASURES, texts, strict=True)
    ]
    # An average over columns that are not all shown would be one that nobody can check.
    columns.append(ranked([_paper(text, bool(withheld)) for text in averages], lower_is_better=True, shown=False))
    rows = zip(printed, zip(*columns, strict=True), strict=True)
    return Section(published.heading(base), [Row(label, list(cells)) for label, cells in rows], published=True)


def _paper(text: str, hidden: bool) -> Cell:
    return Cell(WITHHELD) if hidden else Cell(text, float(text))


POOL = "An Elo depends on every model and anchor of its pool: compare within one list, never from list to list."


def elo_ranks(rankings: Iterable[Document], subjects: Sequence[Subject], beside: bool = False) -> Table | None:
    """Table 1: a list for each ranking of WildBench, best first. None where there is no such ranking."""
    lists = [ranking for ranking in rankings if ranking.task == ELO.task]
    sections = [_pool(ranking, subjects) for ranking in lists]
    if not any(section.rows for section in sections):
        return None
    said = [str(note) for ranking in lists for note in ranking.data.get("notes") or []]
    signs = notes_of(sections)
    notes = [POOL, *dict.fromkeys(said), *signs]
    if beside and any(NOTES[sign] in signs for sign in (OURS, UNKNOWN)):
        notes.append(f"{WITHHELD} the paper's list is not shown: the judge was not told what upstream tells it.")
    elif beside:
        paper = [Row(model, [Cell(str(value), float(value))]) for model, value in published.ELO.items()]
        sections.append(Section(f"{published.heading('Table 1')}, another pool", paper, published=True))
    return Table("1", "Elo on WildBench", "Model", [Column("Elo")], sections, notes)


def _pool(ranking: Document, subjects: Sequence[Subject]) -> Section:
    rows = []
    for model in ranking.models:
        pool = {ELO.task: (ranking, model)}
        known = next((subject for subject in subjects if subject.pools.get(ELO.task) == pool[ELO.task]), None)
        rows.append(Row(model, [ELO.cell(known or Subject(model, pools=pool))]))
    rated = [row for row in rows if row.cells[0].value is not None]
    rated.sort(key=lambda row: -(row.cells[0].value or 0.0))
    return Section(f"Pool of {len(rated):,} models: {ranking.path}", rated)


TOKENS = (
    "Tokens are counted as the answers' files record them: by cl100k in published files, by the model's own tokenizer "
    "in those of bnf-align."
)


def output_lengths(subjects: Sequence[Subject], beside: bool = False) -> Table | None:
    """Table 5; arrows as in the paper, against the base of the section. None where no length was measured."""
    measured = _measured(subjects, LENGTHS)
    if not measured:
        return None
    sections = []
    for base, own in sections_of(measured).items():
        cells = [[measure.cell(subject) for measure in LENGTHS] for subject in own]
        start = next((row for row, subject in zip(cells, own, strict=True) if subject.base), None)
        rows = [Row(subject.label, _arrows(row, start)) for subject, row in zip(own, cells, strict=True)]
        sections.append(Section(base, rows))
    notes = [TOKENS, *notes_of(sections)]
    if beside:
        withheld = _withheld(measured, LENGTHS)
        hidden = [measure.name in withheld for measure in LENGTHS]
        for base, block in published.LENGTHS.items():
            paper = {label: list(map(_paper, texts, hidden)) for label, texts in published.numbers(block).items()}
            rows = [Row(label, _arrows(row, paper[BASE])) for label, row in paper.items()]
            sections.append(Section(published.heading(base), rows, published=True))
        notes += withheld_notes(withheld)
    columns = [measure.column for measure in LENGTHS]
    return Table("5", "Average output length", "Method", columns, sections, notes)


def _arrows(cells: Sequence[Cell], base: Sequence[Cell] | None) -> list[Cell]:
    """`cells` with an arrow where a printed length differs from the base's."""
    shown = []
    for cell, start in zip(cells, base or cells, strict=True):
        if cell.value is not None and start.value is not None and cell.value != start.value:
            cell = replace(cell, text=f"{cell.text} {'↑' if cell.value > start.value else '↓'}")
        shown.append(cell)
    return shown
