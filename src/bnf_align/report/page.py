"""The page: one HTML file that needs nothing else, made from a report's tables and the records that it read."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from bnf_align.outputs import write_text
from bnf_align.report import chart
from bnf_align.report.answers import samples_of
from bnf_align.report.changes import FOUND, SYMBOLS, verdict_of
from bnf_align.report.costs import plan_of
from bnf_align.report.csv import rows_of, text_of
from bnf_align.report.inputs import Document
from bnf_align.report.subjects import METHODS, Subject
from bnf_align.report.table import Cell, Change, Column, Report, Row, Section, Table
from bnf_align.report.tokens import methods_of

COMPARED = ("compare", "differences", "compare-tax", "answers", "tuning")
COSTS = ("7",)
FIGURES = {
    "figure1": "Figure 1. How hard the loss pushes a token, by its likelihood: NLL and BNF.",
    "figure2": "Figure 2. A pair's overlap, its log-likelihood gap and the contrastive function's value.",
    "figure3": "Figure 3. How far each method moved the responses: log-likelihoods, logits, and how unevenly.",
    "figure4": "Figure 4. Share of each method's tokens in the tenths of one method's token shifts.",
}
LARGEST = 700_000
"""Bytes of a figure that is embedded."""
LINES = 2_000
"""Log lines of a run in the CSV file of its curves; of more every so manyth."""
SIDES = ("chosen", "rejected")
CURVES: Sequence[tuple[str, str, dict[str, str], tuple[float, ...]]] = (
    ("Loss", "nats per token", {"loss": "loss"}, ()),
    ("Log-ratio to the reference", "nats per token", {f"bnf/shift/{side}": side for side in SIDES}, (0.0,)),
    ("BNF weight", "mean over tokens", {f"bnf/weight/{side}": side for side in SIDES}, (0.0, 1.0)),
    ("End of the answer", "probability", {f"bnf/end_probability/{side}": side for side in SIDES}, (0.0, 1.0)),
)
"""Title, unit, metric -> its line, values that are shown in any case."""
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
        report=report,
        verdict=verdict_of(report.changes, report.documents),
        symbols=SYMBOLS,
        found=FOUND,
        tiles={found: list(_tile(report.changes, found)) for found in FOUND},
        changes=changes_table(report.changes),
        plots=plots(report.changes),
        runs=list(_runs(report.documents)),
        cards=_of(report, "card"),
        results=[one for one in report.tables if one.name not in (*COMPARED, *COSTS)],
        costs=[one for one in report.tables if one.name in COSTS],
        compared=[one for one in report.tables if one.name in COMPARED],
        claims=[claims_table(one) for one in _of(report, "claims")],
        figures=[figure for one in _of(report, "analysis") for figure in _figures(one)],
        summaries=[(one.path, [["what", "value"], *_flat(one.data)]) for one in _of(report, "analysis")],
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
        "table_csv": lambda table: data_url("text/csv;charset=utf-8", text_of(rows_of(table))),
        "csv": lambda rows: data_url("text/csv;charset=utf-8", text_of(rows)),
        "method": lambda loss: METHODS.get(loss, loss),
        "pretty": lambda value: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False),
        "base64": lambda data: base64.b64encode(data).decode(),
    }
    return environment.get_template("page.html")


def data_url(kind: str, text: str) -> str:
    """A file inside a link."""
    return f"data:{kind};base64,{base64.b64encode(text.encode('utf-8', 'replace')).decode()}"


def _of(report: Report, kind: str) -> list[Document]:
    return [one for one in report.documents if one.kind == kind]


def changes_table(changes: Sequence[Change]) -> Table | None:
    """Before, after and difference of every measure. None where nothing was measured twice."""
    if not changes:
        return None
    columns = [Column(name) for name in ("Measure", "Before", "After", "Difference", "Found")]
    rows = [
        Row(
            one.method,
            [
                Cell(f"{one.measure} ({one.unit})"),
                *(
                    Cell(value.text(one.digits), value.mean) if value else Cell("not measured")
                    for value in (one.before, one.after)
                ),
                Cell(one.difference.text(one.digits, signed=True), one.difference.mean),
                Cell(FOUND.get(one.found, "–")),
            ],
        )
        for one in changes
    ]
    notes = [f"{_tests(changes, found)}" for found in dict.fromkeys(one.test for one in changes)]
    title = "Before and after: the numbers"
    return Table("changes", title, "Method", columns, [Section("", rows)], notes)


def _tests(changes: Sequence[Change], test: str) -> str:
    measures = list(dict.fromkeys(one.measure for one in changes if one.test == test))
    return f"{', '.join(measures)}: {test}."


def _tile(changes: Sequence[Change], found: str) -> Iterator[tuple[str, str]]:
    """What is said of a measure in short: with one method its difference, with several which of them."""
    several = len({one.method for one in changes}) > 1
    own = [one for one in changes if one.found == found]
    for measure in dict.fromkeys(one.measure for one in own):
        of = [one for one in own if one.measure == measure]
        if several and found == "none":
            yield measure, ", ".join(one.method for one in of)
        else:
            for one in of:
                unit = "points" if one.unit == "%" else one.unit
                name = f"{measure} · {one.method}" if several else measure
                yield name, f"{one.difference.text(one.digits, signed=True)} {unit}"


def plots(changes: Sequence[Change]) -> list[dict[str, Any]]:
    """Where before and after lie on one axis a unit, in units of 0 to 100."""
    drawn: list[dict[str, Any]] = []
    for unit in dict.fromkeys(one.unit for one in changes):
        own = [one for one in changes if one.unit == unit and one.before and one.after]
        ends = [
            number
            for one in own
            for value in (one.before, one.after)
            for number in (value.mean, value.low, value.high)  # type: ignore[union-attr]
            if number is not None
        ]
        if not ends:
            continue
        low, high = chart.padded(ends)
        place = chart.scale(low, high, 0, 100)
        axis = [(place(tick), chart.tick_text(tick)) for tick in chart.ticks(low, high)]
        rows = [
            {"change": one}
            | {
                name: {"at": place(value.mean)}  # type: ignore[union-attr]
                | ({"low": place(value.low), "high": place(value.high)} if value.low is not None else {})  # type: ignore[union-attr]
                for name, value in (("before", one.before), ("after", one.after))
            }
            for one in own
        ]
        drawn.append({"unit": unit, "axis": axis, "rows": rows})
    return drawn


def _runs(documents: Sequence[Document]) -> Iterator[dict[str, Any]]:
    """Every run: its record, its history while it trained, and its plan."""
    from bnf_align.training.health import COLLAPSED, FALLEN

    guides = {
        f"amber below {chart.tick_text(FALLEN)}": (FALLEN, "amber"),
        f"red below {chart.tick_text(COLLAPSED)}": (COLLAPSED, "red"),
    }
    by_folder: dict[Path, dict[str, Document]] = {}
    for one in documents:
        if one.kind in ("run", "health"):
            by_folder.setdefault(one.file.parent, {})[one.kind] = one
    for own in sorted(by_folder.values(), key=lambda own: "health" not in own):  # those with curves first
        run, health = (own[kind].data if kind in own else {} for kind in ("run", "health"))
        history = [line for line in health.get("history", []) if isinstance(line.get("step"), int)]
        pictures = [
            chart.line_chart(title, unit, history, names, guides if "bnf/shift/chosen" in names else None, ends)
            for title, unit, names, ends in CURVES
            if history
        ]
        plan = plan_of(Subject("", run=own.get("run"))) if run else {}
        flops = plan.get("flops") or {}
        arguments = run.get("arguments", {})
        kept = history[:: -(-len(history) // LINES)] if history else []
        columns = list(dict.fromkeys(name for line in kept for name in line))
        yield {
            "folder": str(next(iter(own.values())).path.parent),
            "run": run,
            "colour": run.get("health") or health.get("colour", ""),
            "text": run.get("verdict") or health.get("text", ""),
            "step": health.get("step"),
            "max_steps": health.get("max_steps"),
            "running": bool(health) and not health.get("finished", True),
            "pictures": [one for one in pictures if one],
            "lines": (len(kept), len(history)),
            "csv": [columns, *([line.get(name, "") for name in columns] for line in kept)],
            "extra": flops["reference_pass"] / flops["training"] if flops.get("training") else None,
            "arguments": {name: value for name, value in arguments.items() if value is not None},
        }


def claims_table(document: Document) -> Table:
    """A file of measured claims."""
    names = ("figure", "low", "high", "threshold", "holds")
    rows = [
        Row(row["claim"], [Cell(row[name] or "–", _number(row[name])) for name in names])
        for row in document.data["rows"]
    ]
    return Table("claims", f"Claims ({document.path})", "Claim", [Column(name) for name in names], [Section("", rows)])


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _figures(analysis: Document) -> Iterator[dict[str, Any]]:
    """The figures beside a summary: as pictures of their own, in which nothing runs."""
    for name, caption in FIGURES.items():
        path = analysis.path.with_name(f"{name}.svg")
        size = path.stat().st_size if path.is_file() else 0
        if size:
            shown = path.read_bytes() if size <= LARGEST else b""
            yield {"name": name, "caption": caption, "path": str(path), "size": size, "svg": shown}


def _flat(value: Any, *names: str) -> Iterator[list[str]]:
    """Numbers of a record with the names that lead to them."""
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _flat(inner, *names, str(name))
    elif isinstance(value, int | float):
        yield [" / ".join(names), str(value)]
