"""The page: one HTML file that needs nothing else, made from a report's tables and the records that it read."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from bnf_align.outputs import write_text
from bnf_align.records import counted
from bnf_align.report import chart, sections
from bnf_align.report.answers import samples_of
from bnf_align.report.changes import FOUND, SYMBOLS, verdict_of
from bnf_align.report.comparison import COMPARISONS
from bnf_align.report.csv import rows_of, text_of
from bnf_align.report.inputs import Document
from bnf_align.report.subjects import method_of
from bnf_align.report.table import Report
from bnf_align.report.tokens import methods_of

COSTS = ("cost", "7")
POLICY = (
    "default-src 'none'; img-src data:; style-src '{style}'; script-src '{script}'; connect-src {connect}; "
    "base-uri 'none'; form-action 'none'"
)


def page(report: Report, live: bool = False) -> str:
    """`report` as a page: every text in it is escaped, and its policy lets only its own script run.

    Args:
        report: What `build_report` made.
        live: Ask the server that the page comes from whether there is something new.
    """
    style, script = read("page.css"), read("page.js")
    connect = "'self'" if live else "'none'"
    html = _template().render(
        policy=POLICY.format(style=sha256(style), script=sha256(script), connect=connect),
        style=Markup(style),  # our own files, the only text that is not escaped
        script=Markup(script),
        live=live,
        counted=counted,
        report=report,
        verdict=verdict_of(report.changes, report.documents),
        symbols=SYMBOLS,
        found=FOUND,
        tiles={found: list(sections.tile(report.changes, found)) for found in FOUND},
        changes=sections.changes_table(report.changes),
        plots=sections.plots(report.changes),
        runs=list(sections.runs(report.documents, report.changes)),
        reports=sections.data_reports(report.documents),
        cards=_of(report, "card"),
        results=[one for one in report.tables if one.name not in (*COMPARISONS, *COSTS)],
        costs=[one for one in (sections.cost_table(report.documents), *report.tables) if one and one.name in COSTS],
        compared=[one for one in report.tables if one.name in COMPARISONS]
        + [sections.methods_table(one) for one in _of(report, "quickstart") if one.data.get("methods")],
        claims=[sections.claims_table(one) for one in _of(report, "claims")],
        figures=[figure for one in _of(report, "analysis") for figure in sections.figures(one)],
        moved=[table for one in _of(report, "analysis") for table in sections.most_changed(one)],
        summaries=[(one.path, [["what", "value"], *sections.flat(one.data)]) for one in _of(report, "analysis")],
        samples=samples_of(report.documents, report.answered),
        methods=methods_of(report.documents),
        unread=_of(report, "unread"),
        unknown=_of(report, "unknown"),
        size=(chart.WIDTH, chart.HEIGHT, chart.LEFT, chart.RIGHT, chart.TOP, chart.BOTTOM, chart.STRIP),
    )
    return html.encode("utf-8", "replace").decode()  # half a surrogate pair would stop the whole page


def write_page(out: str | Path, folders: Iterable[str | Path], **options: Any) -> Path:
    """Write the page of `folders`, as `bnf-align report FOLDERS --html OUT` does.

    Args:
        out: The HTML file.
        folders: Files, or folders that are searched for records.
        options: Of `build_report`: `rows`, `base`, `command`, ...

    Raises:
        BadInput: If there is nothing to show, or `out` cannot be written.
    """
    from bnf_align.report.build import build_report

    write_text(out, page(build_report(folders, **options)))
    return Path(out)


def read(name: str) -> str:
    """A file that lies beside this one."""
    return files("bnf_align.report").joinpath(name).read_text(encoding="utf-8")


def sha256(text: str) -> str:
    """As a content security policy names a script or a style that may be used."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


@cache
def _template() -> Any:
    # Whatever a file says of itself reaches the page as text: autoescape is on for all of it.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(read)
    )
    environment.filters |= {
        "table_csv": lambda table: csv_url(rows_of(table)),
        "csv": csv_url,
        "method": method_of,
        "pretty": lambda value: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
        "base64": lambda data: base64.b64encode(data).decode(),
    }
    return environment.get_template("page.html")


def csv_url(rows: Iterable[Sequence[object]]) -> str:
    """Rows as a CSV file inside a link."""
    return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(text_of(rows).encode('utf-8', 'replace')).decode()}"


def _of(report: Report, kind: str) -> list[Document]:
    return [one for one in report.documents if one.kind == kind]
