"""What files are: rows of TRL's types, which need no source, or the export of a product that is certain.

Every kind of row of a file counts, not the first one alone: of a file that begins with thumbs and goes on with pairs
only what reads both is what it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from bnf_align.data.labels import read_labels
from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport
from bnf_align.sources.annotation import ANNOTATION
from bnf_align.sources.chats import CHATS
from bnf_align.sources.files import file_records, first_record, kind_of, records_like, records_of
from bnf_align.sources.formats import FORMATS, described
from bnf_align.sources.public_sets import PUBLIC_SETS
from bnf_align.sources.rows import Format
from bnf_align.sources.scores import by_threshold, label_of
from bnf_align.sources.source import Options, Record, Source
from bnf_align.sources.table import TABLE
from bnf_align.sources.threads import THREADS
from bnf_align.sources.traces import TRACES

SOURCES = {one.name: one for one in (*CHATS, *THREADS, *TRACES, *ANNOTATION, *FORMATS, *PUBLIC_SETS, TABLE)}
"""Name -> source, in the order of the documentation."""

TYPES = ({"prompt", "chosen", "rejected"}, {"prompt", "completion", "label"}, {"messages", "label"})
IMPLICIT = {"chosen", "rejected"}
"""A pair whose prompt stands in its answers. Products have these columns too, and then others that matter."""
OTHERS = {"rejected_response", "rejected_messages", "initial_reason_steps"}
"""Columns of formats that make another thing of `messages`, or of the answers."""
OWN = "rows of TRL's types"


def is_own(record: Record) -> bool:
    """Whether a record is a row of one of TRL's types, whatever product it may also be an export of."""
    return any(columns <= record.keys() for columns in TYPES) and not OTHERS & record.keys()


def _is_pair(record: Record) -> bool:
    """Whether a record has two answers; a table of pairs and single ones has both columns in every row."""
    return all(record.get(name) is not None for name in IMPLICIT)


class Kind(NamedTuple):
    """The records of files that have the same fields with values of the same types."""

    first: str
    """Where the first of them stands."""
    certain: frozenset[str]
    """The sources that know them for certain; `OWN` among them where that is what they are."""
    readable: frozenset[str]
    """Those that can read them."""


def kinds(paths: Sequence[Path]) -> tuple[Kind, ...]:
    """The kinds of records in files, without those that nobody knows.

    Raises:
        BadInput: If a file cannot be read.
    """
    return _kinds(tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in paths))


@lru_cache(maxsize=4)  # reading rows asks what a file is, and so does the doctor before
def _kinds(files: tuple[tuple[Path, int, int], ...]) -> tuple[Kind, ...]:
    found: dict[object, Kind] = {}
    for path, _, _ in files:
        own = not described(path)  # an index beside a file says what its columns mean
        for number, record in enumerate(file_records(path)):
            shape = (*record, *map(type, record.values()))
            if (own, shape) in found:
                continue
            certain = {name for name, source in SOURCES.items() if source.matches(record, path)}
            readable = {name for name, one in SOURCES.items() if isinstance(one, Format) and one.can_read(record)}
            if own and (is_own(record) or (_is_pair(record) and not certain)):
                certain |= {OWN}
            kind = Kind(f"{path.name}, row {number}", frozenset(certain), frozenset(readable | certain))
            found[own, shape] = kind
            if (
                kind.certain
                and OWN not in kind.certain
                and not any(isinstance(SOURCES[one], Format) for one in kind.certain)
            ):
                break  # a product whose files have nothing in common with rows of other kinds
    return tuple(kind for kind in found.values() if kind.certain)


def names(found: Sequence[Kind]) -> list[str]:
    """What all kinds together can be: certain of one of them, and able to read every other."""
    certain = [name for name in (OWN, *SOURCES) if any(name in kind.certain for kind in found)]
    whole = [name for name in certain if all(name in kind.readable for kind in found)]
    return [OWN] if OWN in whole else whole


def hold_own_rows(paths: Sequence[Path]) -> bool:
    """Whether files hold rows of TRL's types, which need no source.

    An explicit prompt or label is certain. `chosen` and `rejected` alone may be transcripts, or answers to a question
    in a column of another name: a product that is certain comes first.

    Raises:
        BadInput: If a file cannot be read.
    """
    found = kinds(paths)
    return OWN in (names(found) or [name for kind in found for name in kind.certain])


def matching(paths: Sequence[Path]) -> list[str]:
    """The names of the sources that files can be the export of; those of each kind of row where none fits all."""
    found = kinds(paths)
    every = [name for name in SOURCES if any(name in kind.certain for kind in found)]
    return [name for name in names(found) if name != OWN] or every


def detect(paths: Sequence[Path]) -> Source:
    """The one source that knows the files by the kinds of their records.

    Raises:
        BadInput: If none or several do.
    """
    found = kinds(paths)
    possible = [name for name in names(found) if name != OWN]
    if len(possible) == 1:
        return SOURCES[possible[0]]
    if possible:
        raise BadInput(f"The files look like {' and like '.join(possible)}: name the source instead of auto.")
    if found:
        listed = "; ".join(f"{', '.join(sorted(kind.certain))} ({kind.first})" for kind in found[:5])
        raise BadInput(
            f"The files hold rows of several kinds, and no source reads them all: {listed}. Put each kind into a file "
            "of its own, or name the source whose rows are wanted instead of auto: the others are then left out"
        )
    seen = "; ".join(f"{path.name}: {', '.join(map(str, first_record(path)))}" for path in paths)
    raise BadInput(
        f"No known source is certain from the first records (columns {seen:.300}). Name it instead of auto: "
        f"{', '.join(SOURCES)}. A table of your own is `table`, with --map prompt=A completion=B label=C"
    )


def own_rows(paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Record]:
    """The rows of files as they are, but for labels, which become bools; `report` is whole when the last row is out.

    Raises:
        BadInput: If the files cannot be read, or a label has no certain meaning.
    """
    text_only = all(kind_of(path) in (".csv", ".tsv") for path in paths)
    values = [label_of(record.get("label"), text_only) for _, record in records_of(paths)]
    by_number = by_threshold(values, options)
    labels, note = read_labels(values, by_number | dict(options.label_map), placed=bool(by_number))
    report.notes += ["rows of TRL's types already: they pass as they are", *([f"label: {note}"] if note else [])]

    def fits(record: Record) -> bool:
        report.rows += 1
        return is_own(record) or _is_pair(record)

    for number, record in records_like(paths, fits, "a row of TRL's types", report):
        label = labels[number]
        if _is_pair(record):
            report.pairs += 1
            yield record
        elif label is None:
            report.drop(Reason("no_rating" if values[number] is None else "dropped_rating"), number)
        else:
            report.ups += label
            report.downs += not label
            yield {**record, "label": label}
    if not report.pairs + report.ups + report.downs:
        raise BadInput(f"{report.source}: 0 of {report.rows:,} rows have a rating.")
