"""A text file that takes its name when it is whole."""

from __future__ import annotations

import glob
import gzip
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

UNTOUCHED = 3600
"""Seconds after which a temporary file belongs to nobody."""


@contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    r"""A UTF-8 file to write to, gzip if so named: a reader sees the old file or the new one, an error leaves none.

    What JSON may hold and UTF-8 may not, half a character, is written as JSON's own escape, `\ud83d`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # What writers that were killed have left may hold people's chats. Other machines number their processes alike,
    # so only its age tells that nobody is writing it any more.
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        if time.time() - left.stat().st_mtime > UNTOUCHED:
            left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opened(temporary, "wt", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
