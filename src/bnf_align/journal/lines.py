"""JSON Lines: rows to bytes that a kill cannot mix up, and every file of rows back to rows."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bnf_align.journal.json_stream import JsonStream
from bnf_align.journal.text import lines_of, opened
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
    yield from _list_rows(path) if name.endswith(".json") else line_rows(path)


def line_rows(path: Path) -> Iterator[Row]:
    """The rows of a file of JSON Lines; blank lines are passed over.

    Raises:
        BadInput: On the way, if a line is no JSON object; it names the line and how many rows stand before it.
    """
    count, decode = 0, json.JSONDecoder().raw_decode
    with opened(path) as file:
        for number, line in enumerate(lines_of(file, path), start=1):
            if not (text := line.strip()):
                continue
            try:
                row, end = decode(text)
                if end < len(text):
                    json.loads(line)  # which says what is wrong, and where
            except (ValueError, RecursionError) as error:
                raise BadInput(_broken_line(path, number, text, error, count)) from None
            if not isinstance(row, dict):
                raise _no_object(row, f"{path}, line {number}")
            yield row
            count += 1


def _broken_line(path: Path, number: int, text: str, error: Exception, count: int) -> str:
    why = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
    excerpt = text if len(text) <= 60 else f"{text[:30]} ... {text[-25:]}"
    return (
        f"{path}, line {number}: not valid JSON ({why}): {excerpt}. Every line must be one JSON object; "
        f"{count:,} whole records stand before it."
    )


def _list_rows(path: Path) -> Iterator[Row]:
    """A .json file: a list of rows, one row, or (as many are) JSON Lines by another name."""
    with opened(path) as file:
        stream = JsonStream(file, str(path))
        listed = stream.peek() == "["
        for number, row in enumerate(stream.elements() if listed else stream.values()):
            if not isinstance(row, dict):
                raise _no_object(row, f"{path}, row {number}")
            yield row
        stream.end()


def _no_object(row: Any, place: str) -> BadInput:
    return BadInput(f"{place}: a row must be a JSON object with named columns, not {type(row).__name__}.")
