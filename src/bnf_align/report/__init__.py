"""The paper's tables for a user's own models, as markdown, HTML or LaTeX."""

from bnf_align.report.build import build_report
from bnf_align.report.render import render
from bnf_align.report.table import Report, Table

__all__ = ["Report", "Table", "build_report", "render"]
