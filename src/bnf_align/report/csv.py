"""Tables as CSV: one after the other with an empty line between, the numbers as printed."""

from __future__ import annotations

import csv as writer
import io
import re
from collections.abc import Iterable, Sequence

from bnf_align.report.table import Report, Table

FORMULA = re.compile(r"[=@\t\r]|[+\-](?![\d.])")


def csv(report: Report) -> str:
    """The report; a line holds its table, its section and its row, the sources are the last table."""
    tables = [rows_of(table) for table in report.tables]
    if report.sources:
        tables.append([list(report.sources[0].texts()), *(list(one.texts().values()) for one in report.sources)])
    return "\n".join(map(text_of, tables))


def rows_of(table: Table) -> list[list[str]]:
    """A table's heading and rows."""
    names = [f"{column.group} {column.name}".strip() for column in table.columns]
    rows = [
        [table.heading, section.title, row.label, *(cell.text + cell.marks for cell in row.cells)]
        for section in table.sections
        for row in section.rows
    ]
    return [["table", "section", table.label, *names], *rows]


def text_of(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV. What a spreadsheet would take for a formula gets an apostrophe before it."""
    file = io.StringIO()
    lines = writer.writer(file, lineterminator="\n")
    lines.writerows([f"'{text}" if FORMULA.match(text) else text for text in map(str, row)] for row in rows)
    return file.getvalue()
