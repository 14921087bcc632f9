"""The doctor's findings as one HTML page that needs nothing else."""

from __future__ import annotations

from importlib.resources import files

from jinja2 import Environment, StrictUndefined

from bnf_align.data.doctor.result import DoctorResult
from bnf_align.data.doctor.texts import printable

SHOWN_ROWS = 200


def page(result: DoctorResult) -> str:
    """The findings as a page: every text is escaped, and its policy lets it load and run nothing."""
    # Rows hold what strangers wrote: autoescape is on for all of it.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["printable"] = printable
    template = files("bnf_align.data.doctor").joinpath("page.html").read_text(encoding="utf-8")
    return environment.from_string(template).render(result=result, shown_rows=SHOWN_ROWS)
