"""Exports of chat and annotation products as preference rows: one file per source, one instance in `IMPORTERS`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bnf_align.data.importers.argilla import Argilla
from bnf_align.data.importers.axolotl import Axolotl
from bnf_align.data.importers.chainlit import Chainlit
from bnf_align.data.importers.files import data_files, first_record
from bnf_align.data.importers.gradio import Gradio
from bnf_align.data.importers.hh import HH
from bnf_align.data.importers.imported import ImportedRows
from bnf_align.data.importers.importer import Importer, Options, Pair, Thumb
from bnf_align.data.importers.labelstudio import LabelStudio
from bnf_align.data.importers.langfuse import Langfuse
from bnf_align.data.importers.langsmith import LangSmith
from bnf_align.data.importers.librechat import LibreChat
from bnf_align.data.importers.llamafactory import LlamaFactory
from bnf_align.data.importers.merge import merged
from bnf_align.data.importers.ms_swift import MsSwift
from bnf_align.data.importers.openai import OpenAI
from bnf_align.data.importers.openwebui import OpenWebUI
from bnf_align.data.importers.own import IMPLICIT, is_own, own_rows
from bnf_align.data.importers.table import Table
from bnf_align.data.importers.ultrafeedback import UltraFeedback
from bnf_align.records import BadInput, DataReport

SOURCES: tuple[Importer, ...] = (
    OpenWebUI(),
    LibreChat(),
    Chainlit(),
    Langfuse(),
    LangSmith(),
    Gradio(),
    Argilla(),
    LabelStudio(),
    OpenAI(),
    LlamaFactory(),
    Axolotl(),
    MsSwift(),
    HH(),
    UltraFeedback(),
    Table(),
)
IMPORTERS = {importer.name: importer for importer in SOURCES}
"""Name -> importer, in the order of the documentation."""


def import_rows(
    source: str, paths: Sequence[str | Path], options: Options | None = None
) -> tuple[Iterator[dict[str, Any]], DataReport]:
    """The rows of an export, and the report that is whole when the last row has been taken.

    Args:
        source: A name in `IMPORTERS`, or "auto".
        paths: Files, or folders of them.
        options: What values, columns and raters mean.

    Raises:
        BadInput: If the source is unknown or not certain; while rows are taken, if the files cannot be read.
    """
    files = data_files(paths)
    if source != "auto" and source not in IMPORTERS:
        raise BadInput(f"{source!r} is not a source that is read. Known: auto, {', '.join(IMPORTERS)}.")
    options = options or Options()
    report = DataReport(", ".join(str(path) for path in paths))
    if source == "auto" and not options.column_map and hold_own_rows(files):
        return own_rows(files, options, report), report
    importer = detect(files) if source == "auto" else IMPORTERS[source]
    if source == "auto":
        report.notes.append(f"read as {importer.title} (`{importer.name}`)")
    return merged(importer, files, options, report), report


def detect(paths: Sequence[Path]) -> Importer:
    """The one importer that knows the files by their first records.

    Raises:
        BadInput: If none or several do.
    """
    found = matching(paths)
    if len(found) == 1:
        return IMPORTERS[found[0]]
    if found:
        raise BadInput(f"The files look like {' and like '.join(found)}: name the source instead of auto.")
    seen = "; ".join(f"{path.name}: {', '.join(map(str, first_record(path)))}" for path in paths)
    raise BadInput(
        f"No known source is certain from the first records (columns {seen:.300}). Name it instead of auto: "
        f"{', '.join(IMPORTERS)}. A table of your own is `table`, with --map prompt=A completion=B label=C"
    )


def hold_own_rows(paths: Sequence[Path]) -> bool:
    """Whether files hold rows of TRL's types, which need no importer.

    An explicit prompt or label is certain. `chosen` and `rejected` alone may be transcripts, or answers to a question
    in a column of another name: a product that is certain comes first.

    Raises:
        BadInput: If a file cannot be read.
    """
    first = [first_record(path) for path in paths]
    implicit = any(record.keys() >= IMPLICIT for record in first)
    return any(map(is_own, first)) or (implicit and not matching(paths))


def matching(paths: Sequence[Path]) -> list[str]:
    """The names of the importers that know one of the files by its first record."""
    first = [(first_record(path), path) for path in paths]
    return [name for name in IMPORTERS if any(IMPORTERS[name].matches(record, path) for record, path in first)]


__all__ = [
    "IMPORTERS",
    "ImportedRows",
    "Importer",
    "Options",
    "Pair",
    "Thumb",
    "detect",
    "hold_own_rows",
    "import_rows",
    "matching",
]
