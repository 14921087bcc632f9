"""A report as text of a format."""

from __future__ import annotations

from collections.abc import Callable

from bnf_align.report.html import html
from bnf_align.report.latex import latex
from bnf_align.report.markdown import markdown
from bnf_align.report.table import Report

FORMATS: dict[str, Callable[[Report], str]] = {"markdown": markdown, "html": html, "latex": latex}


def render(report: Report, format: str = "markdown") -> str:
    """`report` as markdown, one self-contained HTML page, or LaTeX for booktabs."""
    return FORMATS[format](report)
