"""Records from the files of an export, one in memory at a time, and a clear word where a file is not whole.

Read are .json (a list, at the top or under a key; one object; objects one after the other), .jsonl and .ndjson, .csv
and .tsv, each also .gz, and .parquet.
"""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bnf_align.journal.json_stream import JsonStream
from bnf_align.journal.lines import line_rows
from bnf_align.journal.text import lines_of, opened
from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport
from bnf_align.sources.source import Record

KINDS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")
ROW_KEYS = {"prompt", "chosen", "completion", "messages", "messagesTree", "conversations", "input", "steps"}
ROW_KEYS |= {"annotations", "responses", "spans"}
"""Keys of one row. An object without any of them that holds one list is the wrapper of its rows."""


def kind_of(path: Path) -> str | None:
    """The ending that says how a file is read, `.gz` left out; None for one that is not read."""
    name = path.name.lower()
    kind = next((kind for kind in KINDS if name.removesuffix(".gz").endswith(kind)), None)
    return None if kind == ".parquet" and name.endswith(".gz") else kind


def files_in(folder: Path) -> list[Path]:
    """The data files in a folder and the folders in it, in the order of their names, without hidden ones."""
    named = [path for path in sorted(folder.rglob("*")) if kind_of(path) and not path.name.startswith(".")]
    return [path for path in named if path.is_file()]  # a folder may be called rows.parquet


def data_files(paths: Sequence[str | Path]) -> list[Path]:
    """The files meant by `paths`: files as they are, folders as the data files in them, in the order of their names.

    Raises:
        BadInput: If there is no such path, a folder holds no data file, or a file is of a kind that is not read.
    """
    files: list[Path] = []
    for path in (Path(path).expanduser() for path in paths):
        if path.is_dir():
            if not (inside := files_in(path)):
                raise BadInput(f"{path} holds no data file. Looked for {', '.join(KINDS)} (also .gz).")
            files += inside
        elif not path.is_file():
            raise BadInput(f"There is no file {path}.")
        elif kind_of(path) is None:
            raise BadInput(f"{path}: this kind of file is not read. Known: {', '.join(KINDS)} (also .gz).")
        else:
            files.append(path)
    return list(dict.fromkeys(files))


def records_of(paths: Sequence[Path]) -> Iterator[tuple[int, Record]]:
    """The records of several files of one shape; the numbers go on from file to file, and one of them may be empty.

    Raises:
        BadInput: If all are empty; on the way, if a file is cut short, not UTF-8, or a record of it is not an object.
    """
    return at_least_one((record for path in paths for record in file_records(path)), paths)


def first_record(path: Path) -> Record:
    """The first record of a file, {} of an empty one."""
    return next(file_records(path), {})


def at_least_one(found: Iterator[Record], paths: Sequence[Path]) -> Iterator[tuple[int, Record]]:
    """Records with their numbers; `BadInput` at the end, if there are none."""
    number = -1
    for number, record in enumerate(found):
        yield number, record
    if number < 0 and paths:
        raise BadInput(f"{', '.join(map(str, paths))} is empty: it has 0 rows.")


def records_like(
    paths: Sequence[Path],
    fits: Callable[[Record], bool],
    wanted: str,
    report: DataReport,
    read: Callable[[Sequence[Path]], Iterator[tuple[int, Record]]] = records_of,
) -> Iterator[tuple[int, Record]]:
    """The records that fit, each with its number; the others are counted as not `wanted`, the shape in words.

    Raises:
        BadInput: At the end, if no record fitted.
    """
    fitted, seen = False, ""
    for number, record in read(paths):
        if fits(record):
            fitted = True
            yield number, record
        else:
            seen = seen or ", ".join(map(str, record)) or "nothing"
            report.drop(Reason("other_record", wanted=wanted), number)
    if not fitted:
        names = ", ".join(path.name for path in paths)
        raise BadInput(f"{names}: no record is {wanted}. The first one has: {seen:.300}")


def unpacked(value: Any) -> Any:
    """A cell that holds a JSON object or list as text, as CSV exports have them, as what it holds; all else as it is.

    Example:
        >>> unpacked('[{"role": "user"}]'), unpacked("[sic] hello"), unpacked("1")
        ([{'role': 'user'}], '[sic] hello', '1')
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


# One file of each kind


def file_records(path: Path) -> Iterator[Record]:
    """The records of one file, which may be empty.

    Raises:
        BadInput: On the way, if the file is cut short, not UTF-8, not of its kind, or a record is no object.
    """
    kind = kind_of(path)
    if kind == ".parquet":
        from bnf_align.data.arrow import parquet_rows

        return parquet_rows(path)
    if kind == ".json":
        return _json_records(path)
    return line_rows(path) if kind in (".jsonl", ".ndjson") else _table(path, "\t" if kind == ".tsv" else None)


def _json_records(path: Path) -> Iterator[Record]:
    for number, record in enumerate(_json_values(path)):
        if not isinstance(record, dict):
            found = f"{type(record).__name__}: {record!r:.60}"
            raise BadInput(f"{path}, row {number}: a row must be a JSON object with named columns, not {found}")
        yield record


def _json_values(path: Path) -> Iterator[Any]:
    key = _wrapper_key(path)
    with opened(path) as file:
        stream = JsonStream(file, str(path))
        if key is not None:
            for name, first in stream.items():
                if name == key and first == "[":
                    yield from stream.elements()
            stream.end()
        elif stream.peek() == "[":
            yield from stream.elements()
            stream.end()
        else:
            yield from stream.values()


def _wrapper_key(path: Path) -> str | None:
    """The key of the list of records in a file that is one object around it; None where the file is none."""
    with opened(path) as file:
        stream = JsonStream(file, str(path))
        if stream.peek() != "{":
            return None
        lists, keys = [], set()
        for key, first in stream.items():
            keys.add(key)
            lists += [key] if first == "[" else []
        single = not stream.peek() and not keys & ROW_KEYS
        return lists[0] if single and len(lists) == 1 else None


def _table(path: Path, delimiter: str | None) -> Iterator[Record]:
    csv.field_size_limit(sys.maxsize)  # the default, 131,072 characters, is less than a long conversation
    count = usual = 0
    with opened(path) as file:
        if delimiter is None:
            header = next(lines_of(file, path), "")
            delimiter = max(",;\t", key=header.count)  # a spreadsheet in a country of decimal commas writes ;
            file.seek(0)
        reader = csv.DictReader(lines_of(file, path), delimiter=delimiter, strict=True)
        try:
            twice = [name for name, times in Counter(reader.fieldnames).items() if name and times > 1]
            if twice:  # the reader would keep the last of them and say nothing
                raise BadInput(f"{path}: several columns are called {', '.join(twice)}. Rename all but one.")
            for record in reader:
                if None in record:
                    raise csv.Error(f"more fields than the header has ({len(reader.fieldnames or ())})")
                # Gradio writes five names over four fields: where the first record is short, it is the file's way.
                lacking = sum(value is None for value in record.values())
                usual = usual if count else lacking
                if lacking > usual:
                    raise csv.Error(f"fewer fields than the header has ({len(reader.fieldnames or ())}): cut short?")
                yield record
                count += 1
        except csv.Error as error:
            raise BadInput(
                f"{path}, line {reader.line_num}: not a whole record ({error}), after {count:,} that are."
            ) from None
