"""What a source is: a reader of one kind of file that yields thumbs and pairs, and decides no meaning itself.

A rating's meaning is looked up in one place (`sources.ratings`), in the source's own table and in what the user says
with `--label_map`. A value in neither stops the import: no source can turn a down into an up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bnf_align.records import DataReport

Message = dict[str, Any]
Text = str | list[Message]
Record = dict[str, Any]
Extras = Mapping[str, Any]
"""Columns that travel along: `id`, `created_at`, `rater`, `reason`, `model`, `tools`."""


class Thumb(NamedTuple):
    """One person's rating of one answer."""

    row: int
    """Number of the record in its file or files, from 0, for messages."""
    prompt: Text
    """All that came before the answer."""
    completion: Text
    """The answer; of the prompt's kind."""
    value: Any
    """The rating as the source has it; None where it has none, which is never a thumb."""
    answer: str | None = None
    """What identifies the answer in the source, so that several people's ratings of it are merged; None: its text."""
    extras: Mapping[str, Any] = {}
    question: str | None = None
    """What identifies the turn that was answered, where the source keeps several answers to it: of its answers one
    rated up and one rated down make a pair. None: never paired."""
    better: Text | None = None
    """The answer as the same person rewrote it: the two are a pair where nobody rated this one up."""


class Pair(NamedTuple):
    """One person's choice between two answers to one prompt."""

    row: int
    prompt: Text
    chosen: Text
    rejected: Text
    extras: Mapping[str, Any] = {}


class Contest(NamedTuple):
    """Two answers to one prompt, and a value that says which of them is the better one."""

    row: int
    prompt: Text
    first: Text
    second: Text
    winner: Any
    """As the source has it; None where it has none."""
    extras: Mapping[str, Any] = {}


Item = Thumb | Pair | Contest


@dataclass(frozen=True)
class Options:
    """What the user says on the command line."""

    label_map: Mapping[str, str] = field(default_factory=dict)
    """Value of the source, as text -> "up", "down" or "drop", or for a winner "first", "second", "tie" or "both_bad";
    over the source's own table."""
    column_map: Mapping[str, str] = field(default_factory=dict)
    """Our column -> the source's, for `table`."""
    score_name: str | None = None
    """Which of several scores or questions of the source is the thumb."""
    up_from: float | None = None
    """A score that is a number is an up from here on (`--up_from`)."""
    down_to: float | None = None
    """A score that is a number is a down up to here (`--down_to`); what lies between the two is left out."""
    raters: str = "majority"
    """Several ratings of one answer: "majority" (ties are dropped), "unanimous", or "all" (a row each)."""
    winner: str | None = None
    """The column of a `table` that says which of two answers won (`--winner`)."""

    @property
    def places_a_scale(self) -> bool:
        """Whether `--up_from` or `--down_to` is given."""
        return self.up_from is not None or self.down_to is not None


@dataclass(frozen=True)
class Source:
    """A reader of one kind of file; each is one instance in `sources.SOURCES`."""

    name: str
    """What the command line calls it."""
    title: str
    """What its owner would call the file, with its article: "an Open WebUI export"."""
    _: KW_ONLY
    knows: tuple[str, ...] | Callable[[Record], bool] = ()
    """The fields that make a record certainly one of this source, or what tells; none where nothing is certain."""
    values: Mapping[str, str] = field(default_factory=dict)
    """The source's ratings, written as `data.labels` writes them (1, -1, true, thumbsUp) -> up, down or drop."""
    winners: Mapping[str, str] = field(default_factory=dict)
    """What the source writes of two answers -> first, second, tie or both_bad."""

    def matches(self, record: Record, path: Path) -> bool:
        """Whether a record of a file is one of this source, for `auto`; must be certain."""
        if callable(self.knows):
            return self.knows(record)
        return bool(self.knows) and all(name in record for name in self.knows)

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Item]:
        """Thumbs, pairs and contests, in the order of the source, one record in memory at a time.

        It is called twice, once for the ratings of each answer and once to write, so it keeps no state; what it
        leaves out for a reason it counts with `report.drop(reason, row)`.

        Raises:
            BadInput: If the files are not what this source reads; the message says what was found.
        """
        raise NotImplementedError
