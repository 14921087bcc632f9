"""The paper's tables for a user's own models, and one page that shows everything that was recorded of them."""

from bnf_align.report.build import build_report, render
from bnf_align.report.page import write_page
from bnf_align.report.table import Report, Table

__all__ = ["Report", "Table", "build_report", "render", "write_page"]
