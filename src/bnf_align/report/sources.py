"""Where the numbers of a report come from: a number never travels without what made it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bnf_align.report.inputs import Document
from bnf_align.report.subjects import Subject
from bnf_align.report.table import Source


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
