"""JSON values from a text of any size, a few megabytes in memory at a time.

The standard library's decoder reads each value, so a list means here what it means read whole: NaN, long integers and
lone surrogates too, which ijson 3.6 with yajl refuses or turns into "?". A list nested 100,000 deep, on which the
prefixes of ijson take gigabytes, is refused by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from bnf_align.journal.text import LONGEST
from bnf_align.records import BadInput

CHUNK = 1 << 20

SPACE = re.compile(r"[ \t\n\r]*")
WORDS = ("true", "false", "null", "NaN", "Infinity", "-Infinity")
TAIL = 12
"""Characters of the longest token that the end of the buffer can cut: a pair of escaped surrogates."""


class JsonStream:
    r"""The values of a text, each read where it stands.

    Example:
        >>> import io
        >>> list(JsonStream(io.StringIO('{"a": 1}\n{"a": 2}'), "rows").values())
        [{'a': 1}, {'a': 2}]
    """

    def __init__(self, file: TextIO, name: str) -> None:
        self._file, self._name = file, name
        self._buffer, self._at = "", 0
        self._place = 0
        """Characters of the file before the buffer."""
        self._line, self._ended = 1, False
        self._count = 0
        """Elements or values handed out so far."""
        self._decoder = json.JSONDecoder()

    def peek(self) -> str:
        """The next character that is not white space, "" at the end."""
        while True:
            space = SPACE.match(self._buffer, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._buffer) or not self._more():
                return self._buffer[self._at : self._at + 1]

    def take(self, wanted: str) -> str:
        """The next character, which must be one of `wanted`."""
        found = self.peek()
        if not found or found not in wanted:
            raise self._fault(f"expecting {' or '.join(wanted)}", self._at)
        self._at += 1
        return found

    def value(self) -> Any:
        """The next value, whole."""
        self.peek()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except json.JSONDecodeError as error:
                # What the end of the buffer cuts fails near that end, a text where it starts; all else is a fault.
                cut = error.pos >= len(self._buffer) - TAIL or error.msg.startswith("Unterminated")
                if not cut or not self._more():
                    raise self._fault(error.msg, error.pos) from None
            except RecursionError:
                raise self._fault("nested too deeply", self._at) from None
            except ValueError as error:  # an integer of more than 4,300 digits
                raise self._fault(str(error), self._at) from None
            else:
                # 12 may be the beginning of 1234.
                if not (isinstance(value, int | float) and end >= len(self._buffer) - TAIL and self._more()):
                    self._at = end
                    return value

    def elements(self) -> Iterator[Any]:
        """The elements of the list that comes next, one after the other."""
        self._count = 0
        self.take("[")
        if self.peek() == "]":
            self.take("]")
            return
        while True:
            yield self.value()
            self._count += 1
            if self.take(",]") == "]":
                return

    def values(self) -> Iterator[Any]:
        """All values up to the end: JSON Lines, or objects of several lines each."""
        while self.peek():
            yield self.value()
            self._count += 1

    def items(self) -> Iterator[tuple[str, str]]:
        """The keys of the object that comes next, each with the first character of its value.

        A value that the caller does not read before it asks on is passed over, a list element by element.
        """
        self.take("{")
        if self.peek() == "}":
            self.take("}")
            return
        while True:
            if self.peek() != '"':
                raise self._fault("expecting a name in quotes", self._at)
            key = self.value()
            self.take(":")
            first, place = self.peek(), self._place + self._at
            yield key, first
            if self._place + self._at == place:
                for _ in self.elements() if first == "[" else [self.value()]:
                    pass
            if self.take(",}") == "}":
                return

    def end(self) -> None:
        """Make sure that nothing follows."""
        if self.peek():
            raise self._fault("more follows after the end of the list", self._at)

    def _more(self) -> bool:
        """Read on, by as much again as is left, so that a value of many megabytes is begun anew a few times only."""
        left = len(self._buffer) - self._at
        if left > LONGEST:
            raise self._fault(f"a value of more than {LONGEST:,} characters: is a quote missing?", self._at)
        chunk = self._file.read(max(CHUNK, left))
        self._ended = not chunk
        if chunk:
            self._line += self._buffer.count("\n", 0, self._at)
            self._place += self._at
            self._buffer, self._at = self._buffer[self._at :] + chunk, 0
        return bool(chunk)

    def _fault(self, message: str, at: int) -> BadInput:
        line = self._line + self._buffer.count("\n", 0, at)
        rest = self._buffer[at:].strip()
        cut = self._ended and (message.startswith("Unterminated") or any(word.startswith(rest) for word in WORDS))
        what = "the file is cut short" if cut else "not valid JSON"
        return BadInput(f"{self._name}, line {line}: {what} ({message}), after {self._count:,} whole records.")
