"""One thing found in a source: what it is called, what to say of it, and every row it was found in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bnf_align.records import DataReport

NOTE, WARNING, LEFT_OUT = "note", "warning", "left out"


@dataclass
class Finding:
    """One kind of thing found, said in one sentence."""

    name: str
    """The same in every version, for programs: "empty_answer"."""
    text: str
    """In plain words, with the number of rows and the first of them."""
    rows: Sequence[int] = ()
    """Numbers of all its rows, rising, or as the text says; empty where it is about the source as a whole."""
    level: str = WARNING
    """`NOTE`: how something was read. `WARNING`: likely to make the training worse. `LEFT_OUT`: not trained on."""
    figures: dict[str, Any] = field(default_factory=dict)
    """What was measured: a share, a distance, an interval, a histogram."""
    examples: list[dict[str, Any]] = field(default_factory=list)
    """The first of its rows: `row`, and excerpts with likely personal data masked."""

    def say(self, report: DataReport) -> None:
        """Put the sentence among the report's notes or warnings."""
        (report.notes if self.level == NOTE else report.warnings).append(self.text)
