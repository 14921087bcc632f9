"""Tables as one HTML page that needs nothing else."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from bnf_align.report.table import Report


def html(report: Report) -> str:
    """The report as a page: every text is escaped, and its policy lets the page load and run nothing."""
    # Whatever a file says of itself reaches the page as text: autoescape is on for all of it.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = files("bnf_align.report").joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(report=report)
