"""What a scorer is."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from bnf_align.journal import Row

ROWS_AT_A_TIME = 256


class Scored(NamedTuple):
    """The scores of one row's candidates."""

    id: str
    scores: list[float | None]
    """Higher is better; None where the scorer had no answer. Comparable within a row, and between rows only where the
    scorer says so."""
    columns: Mapping[str, Any] = {}
    """What else the scored row gets, such as the wins of a ranker of pairs."""


class Scorer(Protocol):
    """Scores the candidates of rows. Implemented by the modules of `construct.scorers`.

    Those that several workers can share a job with, all but a judge, also have `plan`: ids of rows that are scored
    together, so that `score` of these alone gives what `score` of the whole job does.
    """

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


def any_batches(rows: Sequence[Row]) -> list[list[str]]:
    """The plan of a scorer that looks at one row at a time: as many as are worth a message to a worker."""
    ids = [row["id"] for row in rows]
    return [ids[start : start + ROWS_AT_A_TIME] for start in range(0, len(ids), ROWS_AT_A_TIME)]


def finite(value: float) -> float | None:
    """None for an overflow of half precision: it is no answer, and JSON has no word for it."""
    return float(value) if math.isfinite(value) else None


def prompt_text(prompt: str | list[dict[str, Any]]) -> str:
    """A prompt as one text: that of a single turn, or all turns with their speakers."""
    if isinstance(prompt, str):
        return prompt
    if len(prompt) == 1:
        return str(prompt[0].get("content", ""))
    return "\n".join(f"{turn['role'].upper()}: {turn.get('content', '')}" for turn in prompt)
