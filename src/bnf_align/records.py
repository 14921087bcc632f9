"""Every shape that is ever written to disk or handed from room to room. Standard library and `reasons` only."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from bnf_align.reasons import Reason

PreferenceRow = dict[str, Any]
"""One checked row, with `row`, its number in the source (from 0), and either `prompt, chosen, rejected` or
`prompt, completion, label` (bool, True = thumbs up). Texts are all strings (plain) or all message lists
(conversational); `tools` and `chat_template_kwargs` travel along where the source has them."""


class BadInput(ValueError):
    """Something the user can mend: the message says what was found, where, why it matters and which flag mends it.

    The command line prints the message without a traceback and exits with status 2.
    """


@dataclass
class DataReport:
    """What became of the rows of one source: nothing is dropped, cut or read as something else without a line here."""

    source: str
    rows: int = 0
    """Rows read."""
    pairs: int = 0
    """Pairs kept."""
    ups: int = 0
    """Single responses kept with a thumbs up."""
    downs: int = 0
    """Single responses kept with a thumbs down."""
    dropped: dict[Reason, list[int]] = field(default_factory=dict)
    """Reason -> numbers of the rows left out for it."""
    cut: list[int] = field(default_factory=list)
    """Numbers of the rows with a completion cut at `max_length`, so without its end token."""
    lengths: dict[str, int] = field(default_factory=dict)
    """Tokens of prompt and answer together, before cutting: p50, p95 and max over the responses kept."""
    notes: list[str] = field(default_factory=list)
    """How something ambiguous was read, each said once."""
    warnings: list[str] = field(default_factory=list)
    """What is likely to make the training worse, each said once."""

    def drop(self, reason: Reason, row: int) -> None:
        """Count `row` as left out for `reason`."""
        self.dropped.setdefault(reason, []).append(row)

    def as_dict(self) -> dict[str, Any]:
        """The report as it stands in `run.json`, with counts where the report keeps row numbers.

        `dropped` and `reasons` have the sentences as keys: count, and code with parameters.
        """
        numbers = {reason: len(rows) for reason, rows in self.dropped.items()}
        reasons = {reason: reason.as_dict() for reason in self.dropped}
        return {**asdict(self), "dropped": numbers, "reasons": reasons, "cut": len(self.cut)}

    def left_out(self) -> str:
        """Why rows are left out, in one line, for errors; empty where none are."""
        return "; ".join(f"{reason}: {rows_text(rows)}" for reason, rows in self.dropped.items())

    def lines(self) -> list[str]:
        """The report in plain words, one finding a line."""
        kept = ", ".join(
            counted(count, one) for count, one in ((self.pairs, "pair"), (self.ups, "up"), (self.downs, "down"))
        )
        lines = [f"{self.source}: {counted(self.rows, 'row')} -> {kept}"]
        lines += [f"  left out {rows_text(rows)}: {reason}" for reason, rows in self.dropped.items()]
        return lines + [f"  note: {note}" for note in self.notes] + [f"  warning: {text}" for text in self.warnings]


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


def is_number(value: Any) -> bool:
    """Whether `value` is a number that a float holds: finite, no bool, and no integer beyond 1.8e308."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def counted(count: int, one: str) -> str:
    """How many there are: "1 row", "2 rows"."""
    return f"{count:,} {one}{'' if count == 1 else 's'}"


def did_you_mean(path: Path) -> str:
    """The question for a path that is not there, with the names like it in its folder; empty where there are none."""
    try:
        beside = os.listdir(path.parent)
    except (OSError, ValueError):  # no folder, or none that may be read
        return ""
    near = get_close_matches(path.name, beside, n=3, cutoff=0.5)
    return f"Did you mean {' or '.join(str(path.parent / name) for name in near)}?" if near else ""


def rows_text(rows: list[int], shown: int = 3) -> str:
    """`rows` as "37 rows (12, 48, 51, ...)", for messages; a row that is there twice is one."""
    rows = list(dict.fromkeys(rows))
    first = ", ".join(str(row) for row in rows[:shown])
    return f"{counted(len(rows), 'row')} ({first}{', ...' if len(rows) > shown else ''})"
