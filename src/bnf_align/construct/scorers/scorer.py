"""What a scorer is."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

Row = dict[str, Any]


class Scored(NamedTuple):
    """The scores of one row's candidates."""

    id: str
    scores: list[float | None]
    """Higher is better; None where the scorer had no answer. Comparable within a row, and between rows only where the
    scorer says so."""
    columns: Mapping[str, Any] = MappingProxyType({})
    """What else the scored row gets, such as the wins of a ranker of pairs."""


class Scorer(Protocol):
    """Scores the candidates of rows. Implemented by the modules of `construct.scorers`."""

    name: str
    """What stands in every file scored with it."""

    @property
    def card(self) -> Row:
        """What the scores depend on: the model and the hash of its weights, the wording, the rule."""
        ...

    def score(self, rows: Sequence[Row], done: Collection[str] = ()) -> Iterator[list[Scored]]:
        """Scores, a batch of rows at a time.

        Args:
            rows: All rows of the job (`id`, `prompt`, `candidates`), finished ones too: the batches follow from them.
            done: Ids of finished rows; a batch with all of its rows in it is left out, another is redone whole.
        """
        ...
