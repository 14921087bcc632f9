"""What an importer is: a reader of one product's export that yields thumbs and pairs, and decides no meaning itself.

A rating's meaning is looked up in one place (`importers.merge`), in the importer's explicit table `VALUES` and in what
the user says with `--label_map`. A value in neither stops the import: no importer can turn a down into an up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from bnf_align.records import DataReport

Message = dict[str, Any]
Text = str | list[Message]


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
    """Columns that travel along: `id`, `created_at`, `rater`, `reason`, `model`, `tools`."""
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


@dataclass(frozen=True)
class Options:
    """What the user says on the command line."""

    label_map: Mapping[str, str] = field(default_factory=dict)
    """Value of the source, as text -> "up", "down" or "drop"; over the importer's table."""
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


class Importer:
    """A reader of one kind of export. One file, one subclass, one instance in `importers.IMPORTERS`.

    The subclass's docstring shows the accepted shape and names the source of that knowledge.
    """

    name: ClassVar[str]
    """What the command line calls it."""
    title: ClassVar[str]
    """What its owner would call the file, with its article: "an Open WebUI export"."""
    VALUES: ClassVar[Mapping[str, str]] = {}
    """The source's values, written as `data.labels` writes them (1, -1, true, thumbsUp) -> up, down or drop."""

    def matches(self, record: Any, path: Path) -> bool:
        """Whether the first record of a file looks like this source, for `auto`; must be certain."""
        raise NotImplementedError

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb | Pair]:
        """Thumbs and pairs, in the order of the source, one record in memory at a time.

        It is called twice, once to count the ratings of each answer and once to write, so it keeps no state; what it
        leaves out for a reason it counts with `report.drop(reason, row)`.

        Raises:
            BadInput: If the files are not what this importer reads; the message says what was found.
        """
        raise NotImplementedError
