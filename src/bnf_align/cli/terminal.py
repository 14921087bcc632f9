"""What is printed: text from data, models and servers must not drive the terminal that shows it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO, cast

# C0 and C1 control characters but for line feed and tab, marks that turn the direction of writing, and halves of
# surrogate pairs, which an output in UTF-8 cannot hold.
ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
BAR = re.compile(r"\r|(\n|\x1b\[A)+\Z")
"""How a progress bar begins a line anew, or goes to the line of another bar."""


def inert(text: str) -> str:
    r"""`text` with the characters that a terminal obeys spelled out, and those of a progress bar left.

    Example:
        >>> print(inert("a row with \x1b[2J in it"))
        a row with \x1b[2J in it
    """
    start = bar.end() if (bar := BAR.match(text)) else 0
    return text[:start] + ACTIVE.sub(lambda found: found[0].encode("unicode_escape").decode(), text[start:])


class _Inert:
    """A stream that writes `inert` text."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(inert(text))

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def inert_streams() -> Iterator[None]:
    """Let everything that is written to the standard streams, messages of libraries too, be `inert`."""
    with redirect_stdout(cast(TextIO, _Inert(sys.stdout))), redirect_stderr(cast(TextIO, _Inert(sys.stderr))):
        yield
