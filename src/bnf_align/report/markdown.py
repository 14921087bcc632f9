"""Tables as GitHub's markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

from bnf_align.report.table import Cell, Report, Table

SPECIAL = re.compile(r"([\\`*_\[\]|~$])")


def markdown(report: Report) -> str:
    """The report, its sources as the last table."""
    parts = [_table(table) for table in report.tables]
    if report.sources:
        head, shown = list(report.sources[0].texts()), [[*map(escape, one.texts().values())] for one in report.sources]
        parts.append("\n\n".join(["## Where the numbers come from", "\n".join(_lines(head, shown))]))
    if report.command:
        parts.append(f"Made with {escape(report.command)}")
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """`text` as itself: no markup, no HTML, on one line."""
    return html.escape(SPECIAL.sub(r"\\\1", " ".join(str(text).split())), quote=False)


def _table(table: Table) -> str:
    head = [table.label, *(f"{column.group} {column.name}".strip() for column in table.columns)]
    rows: list[list[str]] = []
    for section in table.sections:
        if section.title:
            rows.append([f"*{escape(section.title)}*", *[""] * len(table.columns)])
        rows += [[escape(row.label), *map(_cell, row.cells)] for row in section.rows]
    parts = [f"## {escape(table.heading)}", "\n".join(_lines([escape(name) for name in head], rows))]
    return "\n\n".join([*parts, *(escape(note) for note in table.notes)])


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    text = f"**{text}**" if cell.rank == 1 else f"<ins>{text}</ins>" if cell.rank == 2 else text
    return text + cell.marks + (f" ({cell.rank})" if cell.rank and cell.rank_shown else "")


def _lines(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]
