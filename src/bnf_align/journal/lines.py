"""JSON Lines: rows to bytes that a kill cannot mix up, and every file of rows back to rows."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bnf_align.records import BadInput

Row = dict[str, Any]
BOM = b"\xef\xbb\xbf"

# Writing


def row_bytes(row: Row) -> bytes:
    """`row` as one line of JSON."""
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError:
        # A model may answer with half a surrogate pair, which UTF-8 cannot hold and an escape can.
        return json.dumps(row, allow_nan=False).encode() + b"\n"


def append_bytes(fd: int, data: bytes) -> None:
    """Append all of `data`, or none of it where the disk is full."""
    size = os.fstat(fd).st_size
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError:
        os.ftruncate(fd, size)
        raise


# Reading


def read_jsonl(path: str | Path) -> Iterator[Row]:
    """The rows of a .jsonl file, line by line, or of a .json file that holds a list; either may be .gz.

    Raises:
        BadInput: If there is no such file, it is no UTF-8 text or broken gzip, or a line is not a JSON object.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise BadInput(f"There is no file {path}{', it is a folder' if path.is_dir() else ''}.")
    name = path.name.lower().removesuffix(".gz")
    yield from _list_rows(path) if name.endswith(".json") else _line_rows(path)


def _text_lines(path: Path) -> Iterator[str]:
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    number = 0
    try:
        with opened(path, "rt", encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):  # noqa: B007 (for the messages below)
                yield str(line)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{path}: the gzip file is broken or cut short after line {number} ({error}).") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text near line {number + 1} ({error.reason}).") from error


def _line_rows(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_text_lines(path), start=1):
        if not line.strip():
            continue
        try:
            yield _object(json.loads(line), f"{path}, line {number}")
        except json.JSONDecodeError as error:
            raise BadInput(
                f"{path}, line {number}: not valid JSON ({error.msg}, column {error.colno}): {_excerpt(line)}. "
                "Every line must be one JSON object."
            ) from error


def _list_rows(path: Path) -> Iterator[Row]:
    """A .json file: a list of rows, one row, or (as many are) JSON Lines by another name."""
    text = "".join(_text_lines(path))
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        if not text.lstrip().startswith("{"):
            raise BadInput(
                f"{path}, line {error.lineno}: not valid JSON ({error.msg}, column {error.colno})."
            ) from error
        yield from _line_rows(path)
        return
    for number, row in enumerate(value if isinstance(value, list) else [value]):
        yield _object(row, f"{path}, row {number}")


def _object(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        raise BadInput(f"{place}: a row must be a JSON object with named columns, not {type(row).__name__}.")
    return row


def _excerpt(line: str) -> str:
    line = line.strip()
    return line if len(line) <= 60 else f"{line[:30]} ... {line[-25:]}"
