"""From files to a report, and from a report to a text of a format."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from bnf_align.records import BadInput
from bnf_align.report.benchmarks import benchmark_statistics
from bnf_align.report.changes import changes_of
from bnf_align.report.comparison import COMPARISONS
from bnf_align.report.costs import training_costs
from bnf_align.report.csv import csv
from bnf_align.report.inputs import Document, read_documents
from bnf_align.report.latex import latex
from bnf_align.report.markdown import markdown
from bnf_align.report.page import page
from bnf_align.report.results import elo_ranks, main_results, output_lengths, own_results, pairing_ratios
from bnf_align.report.subjects import Subject, collect
from bnf_align.report.table import Report, Source, Table
from bnf_align.report.tax import Pair, alignment_tax, paired

NEEDS = {
    "1": "a ranking: `bnf-align eval rank --task wild_bench --json`",
    "3": "the benchmarks' items: --data arena_hard=FILE wild_bench=FILE",
    "4": "results: `bnf-align eval score --json`",
    "own": "results of `held_out`, `ifeval` or a task of your own: `bnf-align eval score --json`",
    "5": "results of wild_bench or arena_hard with the lengths of the answers",
    "6": "results in rows called 0%, 25%, ...: --rows 25%=FILE_OR_FOLDER",
    "7": "a run.json, which `bnf-align train` writes",
    "tax": "results of reasoning tasks with their items, of a base too: --base MODEL or --rows Base=FILE_OR_FOLDER",
    **dict.fromkeys(COMPARISONS, "a compare.json, which `bnf-align compare` writes"),
}
"""Name of each table -> what it cannot be made without."""


def build_report(
    files: Iterable[str | Path],
    rows: Mapping[str, str | Path] | None = None,
    *,
    tables: Sequence[str] = (),
    base: str | None = None,
    data: Mapping[str, str | Path] | None = None,
    published: bool = False,
    command: str = "",
) -> Report:
    """The tables that can be made from `files`.

    Args:
        files: Files or folders with results, rankings and runs, filed by the model they name.
        rows: Row -> file or folder, whatever model they name; `SECTION:LABEL` puts rows under a base model.
        tables: Names of `NEEDS`; by default every table that has something to show.
        base: The model that the others are compared with, as its results call it.
        data: Task -> file of items, for Table 3.
        published: Add the paper's rows where they may stand beside the user's.
        command: What made the report, for its footer.

    Raises:
        BadInput: If a file cannot be used, or a table that was asked for has nothing to show.
    """
    documents = [document for path in files for document in read_documents(path)]
    named = {name: read_documents(path) for name, path in (rows or {}).items()}
    subjects = collect(documents, named, base)
    # Each file once, however often it was named.
    everything = list({one.file: one for found in (documents, *named.values()) for one in found}.values())
    pairs = list(paired(subjects))
    made = _tables(tables or tuple(NEEDS), subjects, pairs, everything, data or {}, published)
    if missing := [name for name in tables if made[name] is None]:
        raise BadInput(f"Table {missing[0]} has nothing to show: it needs {NEEDS[missing[0]]}.")
    shown = [table for table in made.values() if table is not None]
    if not shown and not everything:
        raise BadInput("There is nothing to show: a report needs results, a ranking, a run or --data.")
    sources = sources_of(subjects, everything, data or {})
    answered = [
        (base.results[measure.task], subject.results[measure.task]) for measure, subject, base, found in pairs if found
    ]
    return Report(shown, sources, command, everything, changes_of(everything, pairs), answered)


def _tables(
    names: Sequence[str],
    subjects: Sequence[Subject],
    pairs: Sequence[Pair],
    documents: Sequence[Document],
    data: Mapping[str, str | Path],
    beside: bool,
) -> dict[str, Table | None]:
    rankings = [document for document in documents if document.kind == "ranking"]
    makers = {
        "1": lambda: elo_ranks(rankings, subjects, beside),
        "3": lambda: benchmark_statistics(data, subjects, beside),
        "4": lambda: main_results(subjects, beside),
        "own": lambda: own_results(subjects),
        "5": lambda: output_lengths(subjects, beside),
        "6": lambda: pairing_ratios(subjects, beside),
        "7": lambda: training_costs(subjects, beside),
        "tax": lambda: alignment_tax(pairs),
    }
    compared = [document for document in documents if document.kind == "comparison"]
    makers |= {name: partial(maker, compared) for name, maker in COMPARISONS.items()}
    return {name: makers[name]() for name in names}


FORMATS: dict[str, Callable[[Report], str]] = {"markdown": markdown, "html": page, "latex": latex, "csv": csv}


def render(report: Report, format: str = "markdown") -> str:
    """`report` as markdown, one self-contained HTML page, LaTeX for booktabs, or CSV.

    Raises:
        BadInput: If there is no table, and the format shows nothing else.
    """
    if not report.tables and format != "html":
        raise BadInput("There is no table to show: the files have only what the page shows (--html FILE).")
    return FORMATS[format](report)


def sources_of(
    subjects: Sequence[Subject], documents: Iterable[Document], items: Mapping[str, str | Path]
) -> list[Source]:
    """An entry per file, with the rows that it stands in."""
    rows: dict[Path, list[str]] = {}
    for subject in subjects:
        for document in subject.documents():
            rows.setdefault(document.file, []).append(subject.title)
    found = [_source(document, rows.get(document.file, [])) for document in documents if document.kind != "unknown"]
    return found + [Source(what=f"items of {task}", file=str(path)) for task, path in items.items()]


def _source(document: Document, rows: Sequence[str]) -> Source:
    data = document.data
    if document.kind == "unread":
        return Source(what="not read", notes=str(data["why"]), file=str(document.path))
    # A ranking records wording, judge and command of each of its models.
    records = [document.provenance(), *map(document.provenance, document.models)]

    def recorded(*keys: str) -> str:
        values = [record.get(key) for record in records for key in keys]
        return ", ".join(dict.fromkeys(str(value) for value in values if value is not None))

    version = f", version {data['version']}" if document.task and "version" in data else ""
    return Source(
        rows=", ".join(rows),
        what=f"{document.kind} {document.task}".strip() + version,
        model=", ".join(document.models) or recorded("model") or str(data.get("model", "")),
        wording=recorded("template", "judge_template"),
        judge=recorded("judge"),
        seed=recorded("seed") or str(data.get("seed", "")),
        left_out="; ".join(f"{len(ids):,}: {reason}" for reason, ids in (data.get("dropped") or {}).items()),
        notes="; ".join(map(str, data.get("notes") or [])),
        file=recorded("file") or str(document.path),
        command=recorded("command"),
    )
