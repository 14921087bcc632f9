"""Values from one file of each format, one in memory at a time, and a clear word where the file is not whole."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bnf_align.journal.json_stream import JsonStream
from bnf_align.journal.lines import line_rows
from bnf_align.journal.text import opened
from bnf_align.records import BadInput

ROW_KEYS = {"prompt", "chosen", "completion", "messages", "messagesTree", "conversations", "input", "steps"}
ROW_KEYS |= {"annotations", "responses"}
"""Keys of one row. An object without any of them that holds one list is the wrapper of its rows."""


def values(path: Path, kind: str | None, under: str | None) -> Iterator[Any]:
    """The values of a file of a kind of `files.KINDS`, in JSON of the list under the key `under` where there is one.

    Raises:
        BadInput: On the way, if the file is cut short, not UTF-8 or not of its kind.
    """
    if kind == ".parquet":
        from bnf_align.data.arrow import parquet_rows

        return parquet_rows(path)
    if kind == ".json":
        return _json(path, under)
    return line_rows(path) if kind in (".jsonl", ".ndjson") else _table(path, "\t" if kind == ".tsv" else None)


def _json(path: Path, under: str | None) -> Iterator[Any]:
    key = _wrapper_key(path, under)
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


def _wrapper_key(path: Path, under: str | None) -> str | None:
    """The key of the list of records in a file that is one object around it; None where the file is none."""
    with opened(path) as file:
        stream = JsonStream(file, str(path))
        if stream.peek() != "{":
            return None
        lists, keys = [], set()
        for key, first in stream.items():
            keys.add(key)
            lists += [key] if first == "[" else []
            if key == under and first == "[":
                return key
        single = not stream.peek() and not keys & ROW_KEYS and under is None
        return lists[0] if single and len(lists) == 1 else None


def _table(path: Path, delimiter: str | None) -> Iterator[dict[str, Any]]:
    csv.field_size_limit(sys.maxsize)  # the default, 131,072 characters, is less than a long conversation
    count = usual = 0
    with opened(path) as file:
        if delimiter is None:
            header = file.readline()
            delimiter = max(",;\t", key=header.count)  # a spreadsheet in a country of decimal commas writes ;
            file.seek(0)
        reader = csv.DictReader(file, delimiter=delimiter, strict=True)
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
