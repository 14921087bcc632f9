"""Text files as people have them: packed or not, with a byte order mark or without, in the wrong encoding."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TextIO

from bnf_align.records import BadInput

UTF16 = (b"\xff\xfe", b"\xfe\xff")
LONGEST = 1 << 28
"""Characters of one line or value. Past them a quote or a line end is missing, or a small archive was made to fill the
memory."""


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """A text file, gzip or not, without its byte order mark.

    Raises:
        BadInput: While it is read, if it is not UTF-8 or its gzip stream is broken.
    """
    try:
        with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as binary:
            if binary.read(2) in UTF16:
                raise BadInput(f"{path} is UTF-16 text. Write it anew as UTF-8: iconv -f UTF-16 -t UTF-8 FILE > NEW")
            binary.seek(0)
            # newline="": csv wants line ends as they are, and to JSON they are white space.
            yield io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{path}: the gzip file is broken or cut short ({error}).") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        line = _first_line_not_in_utf_8(path)
        raise BadInput(
            f"{path}: not UTF-8 text near line {line} ({error.reason}). Write it anew as UTF-8, for example with "
            "iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW"
        ) from error


def lines_of(file: TextIO, path: Path) -> Iterator[str]:
    """The lines of a text, with their ends.

    Raises:
        BadInput: If one is longer than any row.
    """
    for number, line in enumerate(iter(partial(file.readline, LONGEST + 1), ""), start=1):
        if len(line) > LONGEST:
            raise BadInput(
                f"{path}, line {number}: more than {LONGEST:,} characters in one line, which is no row. Is a line end "
                "missing, or is the file not what its name says?"
            )
        yield line


def _first_line_not_in_utf_8(path: Path) -> int:
    broken = suppress(EOFError, gzip.BadGzipFile, zlib.error)  # too, further on
    with broken, gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST), b""), start=1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1
