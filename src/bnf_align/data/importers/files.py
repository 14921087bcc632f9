"""Records from the files of an export, one in memory at a time, and a clear word where a file is not whole.

Read are .json (a list, at the top or under a key; one object; objects one after the other), .jsonl and .ndjson, .csv
and .tsv, each also .gz, and .parquet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bnf_align.data.importers.formats import values
from bnf_align.records import BadInput

Record = dict[str, Any]

TEXT_KINDS = (".json", ".jsonl", ".ndjson", ".csv", ".tsv")
KINDS = (*TEXT_KINDS, ".parquet")


def kind_of(path: Path) -> str | None:
    """The ending that says how a file is read, `.gz` left out; None for one that is not read."""
    name = path.name.lower()
    kind = next((kind for kind in KINDS if name.removesuffix(".gz").endswith(kind)), None)
    return None if kind == ".parquet" and name.endswith(".gz") else kind


def data_files(paths: Sequence[str | Path]) -> list[Path]:
    """The files meant by `paths`: files as they are, folders as the data files in them, in the order of their names.

    Raises:
        BadInput: If there is no such path, a folder holds no data file, or a file is of a kind that is not read.
    """
    files: list[Path] = []
    for path in (Path(path).expanduser() for path in paths):
        if path.is_dir():
            inside = [file for file in sorted(path.rglob("*")) if kind_of(file) and not file.name.startswith(".")]
            files += [file for file in inside if file.is_file()]
            if not inside:
                raise BadInput(f"{path} holds no data file. Looked for {', '.join(KINDS)} (also .gz).")
        elif not path.is_file():
            raise BadInput(f"There is no file {path}.")
        elif kind_of(path) is None:
            raise BadInput(f"{path}: this kind of file is not read. Known: {', '.join(KINDS)} (also .gz).")
        else:
            files.append(path)
    return list(dict.fromkeys(files))


def records(path: Path, under: str | None = None) -> Iterator[tuple[int, Record]]:
    """The records of one file, each with its number from 0.

    Args:
        path: A file of a known kind.
        under: In a .json file that is one object: the key with the list of records, where it has that key. Without
            it the object's only list is taken, unless the object looks like a row itself.

    Raises:
        BadInput: If the file is empty, cut short, not UTF-8, or a record of it is not an object.
    """
    return _at_least_one(_records(path, under), [path])


def records_of(paths: Sequence[Path], under: str | None = None) -> Iterator[tuple[int, Record]]:
    """The records of several files of one shape; the numbers go on from file to file, and one of them may be empty."""
    found = (record for path in paths for _, record in _records(path, under))
    return _at_least_one(enumerate(found), paths)


def first_record(path: Path) -> Record:
    """The first record of a file, {} of an empty one."""
    return next((record for _, record in _records(path, None)), {})


def _records(path: Path, under: str | None) -> Iterator[tuple[int, Record]]:
    for number, record in enumerate(values(path, kind_of(path), under)):
        if not isinstance(record, dict):
            found = f"{type(record).__name__}: {record!r:.60}"
            raise BadInput(f"{path}, row {number}: a row must be a JSON object with named columns, not {found}")
        yield number, record


def _at_least_one(found: Iterator[tuple[int, Record]], paths: Sequence[Path]) -> Iterator[tuple[int, Record]]:
    number = -1
    for number, record in found:
        yield number, record
    if number < 0 and paths:
        raise BadInput(f"{', '.join(map(str, paths))} is empty: it has 0 rows.")


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
