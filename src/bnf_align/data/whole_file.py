"""A text file that takes its name when it is whole."""

from __future__ import annotations

import glob
import gzip
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import psutil


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    r"""A UTF-8 file to write to, gzip if so named: a reader sees the old file or the new one, an error leaves none.

    What JSON may hold and UTF-8 may not, half a character, is written as JSON's own escape, `\ud83d`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opened(temporary, "wt", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _remove_leftovers(path: Path) -> None:
    """Files of processes that were killed while they wrote `path`: they may hold people's chats."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        process = left.name.split(".")[-2]
        if process.isdecimal() and not psutil.pid_exists(int(process)):
            left.unlink(missing_ok=True)
