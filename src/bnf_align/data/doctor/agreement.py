"""Whether people who rated the same answers agree: Krippendorff's alpha."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
import xxhash

from bnf_align.data.ledger import OUT, PAIR, UP, Ledger
from bnf_align.records import NOTE, WARNING, Finding

RATERS = (
    *("rater", "rater_id", "annotator", "annotator_id", "user", "user_id", "username", "worker", "worker_id"),
    *("labeler", "labeler_id", "labeller", "reviewer", "evaluator"),
)
"""Columns that say who rated, whatever their case; the first of these."""
LITTLE, LEAST = 0.2, 20
"""Below this alpha ratings are hardly more than chance; a warning where so many answers have two of them."""


def rater_column(names: Iterable[str]) -> str | None:
    """The column that says who rated a row; None where there is none."""
    known = {name.strip().lower(): name for name in names}
    return next((known[name] for name in RATERS if name in known), None)


class Agreement:
    """Who rated what: 16 bytes of each row that names its rater.

    Args:
        column: The source's name of the column.
    """

    def __init__(self, column: str) -> None:
        self.column = column
        self._rows, self._raters = array("q"), array("Q")

    def add(self, position: int, rater: Any) -> None:
        """Remember who rated the row at a position of the ledger; nothing where `rater` names nobody."""
        if isinstance(rater, str | int) and rater != "":
            self._rows.append(position)
            self._raters.append(xxhash.xxh3_64_intdigest(str(rater).encode(errors="surrogatepass")))

    def findings(self, ledger: Ledger, of_export: bool) -> list[Finding]:
        """The agreement over all answers that two people or more have rated, those left out for their labels too.

        Nothing where one person rated all.

        Args:
            ledger: After `settle`.
            of_export: Whether an importer made the rows, which merges the ratings of an answer.
        """
        rows, raters = np.array(self._rows), np.array(self._raters)
        sides, keys, turned = (values[rows] for values in (ledger.labelled, ledger.keys, ledger.turned))
        # Two pairs of the same answers are one item, whichever of them was chosen.
        items, flipped = np.minimum(keys, turned), turned < keys
        rated = sides != OUT
        ups = np.where(sides == PAIR, ~flipped, sides == UP)[rated]
        # Somebody's last rating of an answer is the one that counts.
        ballots = np.stack([items[rated], raters[rated]], axis=1)[::-1]
        ballots, last = np.unique(ballots, axis=0, return_index=True)
        _, which = np.unique(ballots[:, 0], return_inverse=True)
        number = np.bincount(which)
        yes = np.bincount(which, weights=ups[::-1][last])
        twice = number > 1
        people = len(np.unique(raters[rated]))
        if people < 2:
            return []
        about = f"(column `{self.column}`, {people:,} raters)"
        if not twice.any():
            hint = "; `bnf-align import --raters all` keeps every rating of an export" if of_export else ""
            text = f"no answer has ratings of two people {about}, so whether they agree is not known{hint}"
            return [Finding("agreement", text, level=NOTE, figures={"answers": 0, "raters": people})]
        alpha, observed = krippendorff(yes[twice], number[twice])
        answers = int(twice.sum())
        figures = {
            "answers": answers,
            "of": len(number),
            "raters": people,
            "agreement": round(observed, 4),
            "alpha": None if alpha is None else round(alpha, 4),
        }
        said = "undefined, for all ratings are the same" if alpha is None else f"{alpha:.2f}"
        poor = alpha is not None and alpha < LITTLE and answers >= LEAST
        text = (
            f"two raters of an answer agree in {observed:.0%} of cases, Krippendorff's alpha {said} (0 is chance, 1 "
            f"full agreement): {answers:,} of {len(number):,} answers have two ratings or more {about}"
            + (". Such labels are hardly more than chance: look at the instructions that raters have" if poor else "")
        )
        return [Finding("agreement", text, level=WARNING if poor else NOTE, figures=figures)]


def krippendorff(yes: np.ndarray, number: np.ndarray) -> tuple[float | None, float]:
    """Krippendorff's alpha of ratings of two values, and the share of pairs of ratings that agree.

    Args:
        yes: (items,) ratings of one of the values.
        number: (items,) all ratings, at least two.

    Returns:
        (alpha, agreement); alpha is None where all ratings are the same, for nothing can be expected then. A pair of
        ratings of an item that n people rated counts 1 / (n - 1), as in alpha (Krippendorff, 2011).

    Example:
        >>> krippendorff(np.array([2, 1, 0]), np.array([2, 2, 2]))[0]
        0.4444444444444444
    """
    total, ups = number.sum(), yes.sum()
    differ = float((2 * yes * (number - yes) / (number - 1)).sum() / total)
    expected = float(2 * ups * (total - ups) / (total * (total - 1)))
    return (1 - differ / expected if expected else None), 1 - differ
