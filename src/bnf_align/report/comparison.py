"""The tables of a comparison: values as in Table 4, which differences are real, the tax, and what tuning cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bnf_align.evaluation.ranks import half_up
from bnf_align.report.inputs import Document
from bnf_align.report.table import NOT_MEASURED, Cell, Column, Row, Section, Table, Value, number

REAL = "*"

FEW = 5
"""Seeds."""

ANSWERS = {
    "tokens": ("tokens", 1, 1),
    "never ended (%)": ("never_ended", 100, 1),
    "distinct-3 (%)": ("distinct_3", 100, 1),
}
"""Column -> key, scale and digits."""

LIKE = "Means over seeds: tokens of an answer, answers cut at the limit, and different triples of words among all."

VALUES = "Means over prompts and seeds, in brackets the 95 % bootstrap interval over both, in parentheses the rank."
TUNED = (
    "Settings were chosen for each method by {chosen_by} on {chosen_on:,} validation prompts, with {tuning} of the "
    "{seeds} seeds. What is shown is of prompts that nothing else has seen: {prompts}."
)
DIFFERENCES = (
    "First minus second, 95 % bootstrap interval over prompts and seeds. * real: p < 0.05 after Holm's correction "
    "for all {count:,} differences, by the analysis of variance of seeds crossed with prompts. Without a star no "
    "difference was found, which does not show that there is none."
)
TAX = (
    "Difference from the base, with the interval of the table of differences, and in how many seeds it is real: "
    "McNemar's exact test on the same prompts, or a permutation test where a value is neither right nor wrong, p < "
    "0.05 after Holm's correction for all {count:,}."
)
COSTS = "Runs, seconds and tokens are of training, tuning included; seconds also of measuring the validation split."


def values(documents: Sequence[Document]) -> Table | None:
    """Methods, measures and ranks, as in Table 4. None without a comparison."""
    if not documents:
        return None
    sections, notes = [], [VALUES]
    names = _measures(documents)
    for document in documents:
        record = document.data
        rows = [
            Row(method, [*(_value(record, found, name) for name in names), number(found["average_rank"], 2)])
            for method, found in record["methods"].items()
        ]
        sections.append(Section(_title(document, documents), rows))
        prompts = ", ".join(f"{one['name']} {one['prompts']:,}" for one in record["measures"])
        counts = {"tuning": record["tuning_seeds"], "seeds": len(record["seeds"]), "prompts": prompts}
        notes.append(TUNED.format(**counts, chosen_by=record["chosen_by"], chosen_on=record["chosen_on"]))
        notes += _conclusions(record)
    columns = [*(Column(f"{name} ({unit})") for name, unit in names.items()), Column("Average rank")]
    return Table("compare", "Methods on the same rows", "Method", columns, sections, list(dict.fromkeys(notes)))


def _value(record: Mapping[str, Any], found: Mapping[str, Any], name: str) -> Cell:
    value = found["values"].get(name)
    if value is None:
        return Cell(NOT_MEASURED)
    digits = next(one["digits"] for one in record["measures"] if one["name"] == name)
    mean, low, high = (half_up(value[end], digits) for end in ("mean", "low", "high"))
    return Cell(f"{mean} [{low}, {high}]", float(mean), rank=found["ranks"][name])


def _conclusions(record: Mapping[str, Any]) -> list[str]:
    """Of each measure, which differences are real, or that none was found."""
    said = []
    for name in [one["name"] for one in record["measures"]]:
        found = [one for one in record["differences"] if one["measure"] == name]
        ends = [(one["first"], one["second"], one["difference"] > 0) for one in found if one["real"]]
        real = [f"{first} above {second}" if above else f"{second} above {first}" for first, second, above in ends]
        rest = f"; no difference found in the other {len(found) - len(real):,} of {len(found):,} pairs"
        if real:
            said.append(f"{name}: {', '.join(real)}{rest if len(real) < len(found) else ''}.")
        else:
            said.append(f"{name}: no difference found between any two of the {len(found):,} pairs.")
    said += [
        f"{m}: {len(f['diverged'])} runs diverged: {f['diverged'][0]}"
        for m, f in record["methods"].items()
        if f.get("diverged")
    ]
    tokens = {name: f["tokens_of_a_run"][0] for name, f in record["methods"].items() if f.get("tokens_of_a_run")}
    if len({*tokens.values()}) > 1:
        listed = ", ".join(f"{name} {count:,}" for name, count in tokens.items())
        said.append(
            f"Of the same rows the objectives do not use the same answers; tokens trained on in a run: {listed}."
        )
    if len(record["seeds"]) < FEW:
        said.append(
            f"{len(record['seeds'])} of {FEW} seeds or more that a claim about other seeds needs: where seeds differ "
            "much, the test then finds differences that are none (docs/compare.md)."
        )
    return said


def tax(documents: Sequence[Document]) -> Table | None:
    """Each method against the base. None where nothing was measured as tax."""
    found = [document for document in documents if document.data["tax"]]
    names = _measures(found, {one["measure"] for document in found for one in document.data["tax"]})
    sections = []
    for document in found:
        record = document.data
        digits = {one["name"]: one["digits"] for one in record["measures"]}
        gaps = {(one["first"], one["measure"]): one for one in record["differences"] if one["second"] == "base"}
        rows = [
            Row(method, [_taxed(gaps.get((method, name)), record["tax"], digits.get(name, 1)) for name in names])
            for method in record["methods"]
            if method != "base"
        ]
        sections.append(Section(_title(document, documents), rows))
    note = TAX.format(count=sum(len(document.data["tax"]) for document in found))
    return _table("compare-tax", "Alignment tax", names, sections, note) if sections else None


def _taxed(gap: Mapping[str, Any] | None, tested: Sequence[Mapping[str, Any]], digits: int) -> Cell:
    if gap is None:
        return Cell(NOT_MEASURED)
    seeds = [one["real"] for one in tested if (one["method"], one["measure"]) == (gap["first"], gap["measure"])]
    return Cell(f"{_interval(gap, digits)}, {sum(seeds)} of {len(seeds)} seeds", gap["difference"])


def differences(documents: Sequence[Document]) -> Table | None:
    """Every two methods of each comparison. None without one."""
    found = [document for document in documents if document.data["differences"]]
    names, sections = _measures(found), []
    for document in found:
        digits = {one["name"]: one["digits"] for one in document.data["measures"]}
        cells: dict[str, dict[str, Cell]] = {}
        for one in document.data["differences"]:
            cell = Cell(_interval(one, digits[one["measure"]]), one["difference"], marks=REAL if one["real"] else "")
            cells.setdefault(f"{one['first']} − {one['second']}", {})[one["measure"]] = cell
        rows = [Row(row, [own.get(one, Cell(NOT_MEASURED)) for one in names]) for row, own in cells.items()]
        sections.append(Section(_title(document, documents), rows))
    note = DIFFERENCES.format(count=sum(len(document.data["differences"]) for document in found))
    return _table("differences", "Differences", names, sections, note) if sections else None


def answers(documents: Sequence[Document]) -> Table | None:
    """What the generated answers are like. None where nothing was generated."""
    names = {name for document in documents for name in document.data["methods"].get("base", {}).get("answers", {})}
    columns = [Column(what, name) for name in sorted(names) for what in ANSWERS]
    sections = []
    for document in documents:
        methods = document.data["methods"].items()
        rows = [Row(method, [_answer(found["answers"], column) for column in columns]) for method, found in methods]
        sections.append(Section(_title(document, documents), rows))
    return Table("answers", "Answers", "Method", columns, sections, [LIKE]) if names else None


def _answer(found: Mapping[str, Mapping[str, float]], column: Column) -> Cell:
    key, scale, digits = ANSWERS[column.name]
    value = found.get(column.group, {}).get(key)
    return number(None if value is None else scale * value, digits)


def _table(name: str, title: str, names: Mapping[str, str], sections: list[Section], note: str) -> Table:
    return Table(name, title, "Methods", [Column(f"{one} ({unit})") for one, unit in names.items()], sections, [note])


def _interval(gap: Mapping[str, Any], digits: int) -> str:
    return Value(*(gap[end] for end in ("difference", "low", "high"))).text(digits, signed=True)


def tuning(documents: Sequence[Document]) -> Table | None:
    """What was tried, what was chosen and what it cost. None without a comparison."""
    if not documents:
        return None
    columns = ["Chosen", "Points", "Better than the base", "Runs", "Seconds", "Tokens"]
    sections = []
    for document in documents:
        base, methods = document.data["methods"]["base"]["validation"], document.data["methods"].items()
        rows = [Row(name, _tuning(found, base)) for name, found in methods if "grid" in found]
        sections.append(Section(_title(document, documents), rows))
    note = f"{COSTS} Better than the base: points of the grid, on the validation split."
    return Table("tuning", "What tuning chose and cost", "Method", [*map(Column, columns)], sections, [note])


def _tuning(found: Mapping[str, Any], base: float) -> list[Cell]:
    chosen = ", ".join(f"{name} {value}" for name, value in (found["chosen"] or {}).items())
    better = sum(point["validation"] is not None and point["validation"] > base for point in found["grid"])
    counts = [len(found["grid"]), better, found["runs"], round(found["seconds"]), found["tokens"]]
    return [Cell(chosen or "all diverged"), *(Cell(f"{count:,}", count) for count in counts)]


def _measures(documents: Iterable[Document], only: set[str] | None = None) -> dict[str, str]:
    """Measure -> unit, of all comparisons."""
    found = {one["name"]: one["unit"] for document in documents for one in document.data["measures"]}
    return {name: unit for name, unit in found.items() if only is None or name in only}


def _title(document: Document, documents: Sequence[Document]) -> str:
    return str(document.path) if len(documents) > 1 else ""


COMPARISONS: dict[str, Callable[[Sequence[Document]], Table | None]] = {
    "compare": values,
    "differences": differences,
    "compare-tax": tax,
    "answers": answers,
    "tuning": tuning,
}
"""Name of each table -> what makes it from comparisons."""
