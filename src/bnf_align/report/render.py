"""A report as text of a format."""

from __future__ import annotations

from collections.abc import Callable

from bnf_align.records import BadInput
from bnf_align.report.csv import csv
from bnf_align.report.latex import latex
from bnf_align.report.markdown import markdown
from bnf_align.report.page import page
from bnf_align.report.table import Report

FORMATS: dict[str, Callable[[Report], str]] = {"markdown": markdown, "html": page, "latex": latex, "csv": csv}


def render(report: Report, format: str = "markdown") -> str:
    """`report` as markdown, one self-contained HTML page, LaTeX for booktabs, or CSV.

    Raises:
        BadInput: If there is no table, and the format shows nothing else.
    """
    if not report.tables and format != "html":
        raise BadInput("There is no table to show: the files have only what the page shows (--html FILE).")
    return FORMATS[format](report)
