"""What the page shows of each record: tables, pictures and facts; the template lays them out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bnf_align.report import chart
from bnf_align.report.changes import FOUND
from bnf_align.report.costs import plan_of
from bnf_align.report.inputs import Document
from bnf_align.report.subjects import Subject, method_of
from bnf_align.report.table import NOT_MEASURED, Cell, Change, Column, Row, Section, Table, Value, number
from bnf_align.sources.scores import number_of

FIGURES = {
    "figure1": "Figure 1. How hard the loss pushes a token, by its likelihood: NLL and BNF.",
    "figure2": "Figure 2. A pair's overlap, its log-likelihood gap and the contrastive function's value.",
    "figure3": "Figure 3. How far each method moved the responses: log-likelihoods, logits, and how unevenly.",
    "figure4": "Figure 4. Share of each method's tokens in the tenths of one method's token shifts.",
    "weights": "BNF weights of the scored tokens, by side: a weight of 1 trains fully, one near 0 hardly at all.",
}
LARGEST = 700_000
"""Bytes of a figure that is embedded."""
LINES = 2_000
"""Log lines of a run in the CSV file of its curves; of more every so manyth."""
SIDES = ("chosen", "rejected")
CURVES: Sequence[tuple[str, str, dict[str, str], tuple[float, ...]]] = (
    ("Loss", "nats per token", {"loss": "training", "eval_loss": "held out"}, ()),
    ("Log-ratio to the reference", "nats per token", {f"bnf/shift/{side}": side for side in SIDES}, (0.0,)),
    ("BNF weight", "mean over tokens", {f"bnf/weight/{side}": side for side in SIDES}, (0.0, 1.0)),
    ("End of the answer", "probability", {f"bnf/end_probability/{side}": side for side in SIDES}, (0.0, 1.0)),
)
"""Title, unit, metric -> its line, values that are shown in any case."""


def changes_table(changes: Sequence[Change]) -> Table | None:
    """Before, after and difference of every measure. None where nothing was measured twice."""
    if not changes:
        return None
    columns = [Column(name) for name in ("Measure", "Before", "After", "Difference", "Found")]
    rows = []
    tested: dict[str, dict[str, None]] = {}
    for one in changes:
        cells = [Cell(f"{one.measure} ({one.unit})")]
        for value in (one.before, one.after):
            cells.append(Cell(value.text(one.digits), value.mean) if value else Cell(NOT_MEASURED))
        cells.append(Cell(one.difference.text(one.digits, signed=True), one.difference.mean))
        rows.append(Row(one.method, [*cells, Cell(FOUND.get(one.found, "–"))]))
        tested.setdefault(one.test, {})[one.measure] = None
    notes = [f"{', '.join(measures)}: {test}." for test, measures in tested.items()]
    title = "Before and after: the numbers"
    return Table("changes", title, "Method", columns, [Section("", rows)], notes)


def tile(changes: Sequence[Change], found: str) -> Iterator[tuple[str, str]]:
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
        own = [(one, one.before, one.after) for one in changes if one.unit == unit]
        whole = [(one, before.ends(), after.ends()) for one, before, after in own if before and after]
        if not whole:
            continue
        low, high = chart.padded([at for _, *sides in whole for ends in sides for at in ends.values()])
        place = chart.scale(low, high, 0, 100)
        rows = []
        for one, *sides in whole:
            before, after = ({end: place(at) for end, at in ends.items()} for ends in sides)
            rows.append({"change": one, "before": before, "after": after})
        axis = [(place(tick), chart.tick_text(tick)) for tick in chart.ticks(low, high)]
        drawn.append({"unit": unit, "axis": axis, "rows": rows})
    return drawn


def runs(documents: Sequence[Document], changes: Sequence[Change]) -> Iterator[dict[str, Any]]:
    """Every run, its record and its history while it trained; first those of the methods that `changes` speak of."""
    from bnf_align.training.health import COLLAPSED, FALLEN

    guides = {
        f"amber below {chart.tick_text(FALLEN)}": (FALLEN, "amber"),
        f"red below {chart.tick_text(COLLAPSED)}": (COLLAPSED, "red"),
    }
    named = {one.method for one in changes}
    by_folder: dict[Path, dict[str, Document]] = {}
    for one in documents:
        if one.kind in ("run", "health"):
            by_folder.setdefault(one.file.parent, {})[one.kind] = one

    def last(own: dict[str, Document]) -> tuple[bool, bool]:
        return "run" in own and method_of(own["run"].data["loss_type"]) not in named, "health" not in own

    for own in sorted(by_folder.values(), key=last):
        run, health = (own[kind].data if kind in own else {} for kind in ("run", "health"))
        history = [line for line in health.get("history", []) if isinstance(line.get("step"), int)]
        pictures = [
            chart.line_chart(title, unit, history, names, guides if "bnf/shift/chosen" in names else None, ends)
            for title, unit, names, ends in CURVES
            if history
        ]
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
            "arguments": {name: value for name, value in arguments.items() if value is not None},
        }


def data_reports(documents: Sequence[Document]) -> list[dict[str, Any]]:
    """What was read for training, each report once, with the methods and folders of the runs that have it."""
    found: dict[str, dict[str, Any]] = {}
    for one in documents:
        for name, data in one.data.get("data", {}).items() if one.kind == "run" else ():
            key = json.dumps([name, data], sort_keys=True)
            report = found.setdefault(key, {"name": name, "data": data, "methods": {}, "folders": []})
            report["methods"][method_of(one.data["loss_type"])] = None
            report["folders"].append(str(one.path.parent))
    return list(found.values())


def cost_table(documents: Sequence[Document]) -> Table | None:
    """What each run cost beside fine-tuning on the same answers. None without a run."""
    rows = []
    for one in documents:
        if one.kind != "run":
            continue
        flops = plan_of(Subject("", run=one)).get("flops") or {}
        extra = 100 * flops["reference_pass"] / flops["training"] if flops.get("training") else None
        reference = one.data.get("reference") or {}
        tokens = [reference.get(name) for name in ("computed_tokens", "cached_tokens")]
        cells = [
            number(extra, 1),
            *(Cell("–") if count is None else Cell(f"{count:,}", count) for count in tokens),
            number(one.data.get("tokens_per_second"), 0),
        ]
        rows.append(Row(f"{method_of(one.data['loss_type'])} ({one.path.parent.name})", cells))
    columns = [
        Column("planned, % of training", "Reference pass"),
        *(Column(name, "Reference tokens") for name in ("computed", "from the cache")),
        Column("measured", "Tokens per second"),
    ]
    note = (
        "The steps of a run have the arithmetic of fine-tuning on the same answers. What comes besides is one pass of "
        "the reference over them: it is made once and cached, and sft and other losses without a reference have none."
    )
    return Table("cost", "Cost beside fine-tuning", "Run", columns, [Section("", rows)], [note]) if rows else None


def methods_table(document: Document) -> Table:
    """What every method of a quickstart gave, and how far each is from BNF."""
    methods = document.data["methods"]
    measures = list(dict.fromkeys(name for found in methods.values() for name in found))
    shown = (("after", "", "after (%)"), ("change", "base", "against the base"), ("against_bnf", "bnf", "against BNF"))
    columns = [Column(title, measure) for measure in measures for _, _, title in shown]
    rows = []
    for name, found in methods.items():
        cells = [
            Cell("–") if name == skipped else _points(found[measure][which], signed=which != "after")
            for measure in measures
            for which, skipped, _ in shown
        ]
        rows.append(Row(method_of(name), [*cells, Cell(document.data.get("health", {}).get(name, "–"))]))
    note = (
        "Points with 95 % intervals over prompts. The same steps, answers per step and learning rate for all, none of "
        "them tuned, one seed: bnf-align compare tunes each method and uses several seeds."
    )
    columns.append(Column("Health"))
    return Table("methods", "Other methods beside BNF", "Method", columns, [Section("", rows)], [note])


def _points(found: Mapping[str, float], signed: bool) -> Cell:
    value = Value.of(found, 100)
    return Cell(value.text(1, signed), value.mean)


def most_changed(analysis: Document) -> Iterator[Table]:
    """The tokens of each method that rose and that fell most."""
    for method, found in analysis.data["methods"].items():
        sections = []
        for which, title in (("risen", "Likelier than before"), ("fallen", "Less likely than before")):
            rows = []
            for one in found.get("most_changed", {}).get(which, []):
                likelihoods = (Cell(f"{one[name]:.3g}", one[name]) for name in ("ref_p", "p"))
                cells = [*likelihoods, number(one["shift"], 2), Cell(one["id"])]
                rows.append(Row(f"{one['before']}⟦{one['piece']}⟧{one['after']}", cells))
            sections.append(Section(title, rows))
        columns = [Column(name) for name in ("before", "after", "log-ratio (nats)", "response")]
        if any(section.rows for section in sections):
            yield Table("moved", f"Tokens that moved most: {method}", "⟦Token⟧ in its context", columns, sections)


def claims_table(document: Document) -> Table:
    """A file of measured claims."""
    names = ("figure", "low", "high", "threshold", "holds")
    rows = [
        Row(row["claim"], [Cell(row[name] or "–", number_of(row[name])) for name in names])
        for row in document.data["rows"]
    ]
    return Table("claims", f"Claims ({document.path})", "Claim", [Column(name) for name in names], [Section("", rows)])


def figures(analysis: Document) -> Iterator[dict[str, Any]]:
    """The figures beside a summary: as pictures of their own, in which nothing runs."""
    for name, caption in FIGURES.items():
        path = analysis.path.with_name(f"{name}.svg")
        size = path.stat().st_size if path.is_file() else 0
        if size:
            shown = path.read_bytes() if size <= LARGEST else b""
            yield {"name": name, "caption": caption, "path": str(path), "size": size, "svg": shown}


def flat(value: Any, *names: str) -> Iterator[list[str]]:
    """Numbers of a record with the names that lead to them."""
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(inner, *names, str(name))
    elif isinstance(value, int | float):
        yield [" / ".join(names), str(value)]
