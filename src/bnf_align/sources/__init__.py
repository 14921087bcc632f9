"""What people have, as preference rows: formats, public sets, chats, traces and annotations, each a declaration."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bnf_align.records import BadInput, DataReport
from bnf_align.sources.detect import SOURCES, detect, hold_own_rows, matching, own_rows
from bnf_align.sources.files import data_files
from bnf_align.sources.merge import ImportedRows, merged
from bnf_align.sources.source import Options


def import_rows(
    source: str, paths: Sequence[str | Path], options: Options | None = None
) -> tuple[Iterator[dict[str, Any]], DataReport]:
    """The rows of an export, and the report that is whole when the last row has been taken.

    Args:
        source: A name in `SOURCES`, or "auto".
        paths: Files, or folders of them.
        options: What values, columns and raters mean.

    Raises:
        BadInput: If the source is unknown or not certain; while rows are taken, if the files cannot be read.
    """
    files = data_files(paths)
    if source != "auto" and source not in SOURCES:
        raise BadInput(f"{source!r} is not a source that is read. Known: auto, {', '.join(SOURCES)}.")
    options = options or Options()
    if options.winner and source != "table":
        raise BadInput("--winner names a column of a `table`; every other source knows where its winner stands.")
    report = DataReport(", ".join(str(path) for path in paths))
    if source == "auto" and not options.column_map and hold_own_rows(files):
        given = {"--raters": options.raters != "majority", "--score_name": options.score_name is not None}
        if idle := [flag for flag, set_ in given.items() if set_]:
            raise BadInput(
                f"{' and '.join(idle)}: the files hold rows of TRL's types, which pass as they are, each with its own "
                "label. `bnf-align import table` in the place of auto merges the ratings of an answer."
            )
        return own_rows(files, options, report), report
    reader = detect(files) if source == "auto" else SOURCES[source]
    if source == "auto":
        report.notes.append(f"read as {reader.title} (`{reader.name}`)")
    return merged(reader, files, options, report), report


__all__ = ["SOURCES", "ImportedRows", "Options", "detect", "hold_own_rows", "import_rows", "matching"]
