"""How long prompts and answers are, and whether an answer's length alone gives its label away."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from bnf_align.data.ledger import DOWN, PAIR, UP
from bnf_align.records import Finding
from bnf_align.stats import auc, wilson

QUANTILES = {"p5": 0.05, "p50": 0.5, "p95": 0.95, "max": 1.0}
TELLING = 0.65
"""Measured on public data: 0.54 (GSM8K pairs), 0.55 (HH harmless) and 0.64 (GSM8K single answers), one way or the
other, for wrong solutions of hard problems are long ones. Past this, length says more than that."""


class Lengths:
    """The lengths of one source's rows, in their order.

    Args:
        unit: What is counted: "characters" or "tokens".
    """

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self._prompts, self._firsts, self._seconds = array("q"), array("q"), array("q")

    def add(self, prompt: int, answers: Sequence[int]) -> None:
        """Remember a row: of a pair the chosen answer's length first."""
        self._prompts.append(prompt)
        self._firsts.append(answers[0])
        self._seconds.append(answers[-1])

    def table(self, sides: np.ndarray) -> dict[str, dict[str, int]]:
        """Quantiles of prompts, of ups (chosen ones too) and of downs (rejected ones too).

        Args:
            sides: (rows,) `PAIR`, `DOWN` or `UP`; `OUT` for a row that does not count.
        """
        first, second = np.array(self._firsts), np.array(self._seconds)
        columns = {
            "prompts": np.array(self._prompts)[np.isin(sides, (PAIR, DOWN, UP))],
            "ups": first[np.isin(sides, (PAIR, UP))],
            "downs": np.concatenate([second[sides == PAIR], first[sides == DOWN]]),
        }
        return {
            name: {name: round(float(np.quantile(values, at))) for name, at in QUANTILES.items()}
            for name, values in columns.items()
            if len(values)
        }

    def findings(self, sides: np.ndarray) -> list[Finding]:
        """What length says of the label."""
        first, second = np.array(self._firsts), np.array(self._seconds)
        pairs = sides == PAIR
        longer = np.sign(first[pairs] - second[pairs])
        found = []
        if len(longer):
            found.append(
                self._telling("chosen answers are longer than rejected", (longer.mean() + 1) / 2, len(longer))
            )
        ups, downs = first[sides == UP], first[sides == DOWN]
        if len(ups) and len(downs):
            # The variance of an AUC is at most that of a proportion of min(m, n) (Birnbaum and Klose, 1957).
            found.append(self._telling("ups are longer than downs", auc(ups, downs), min(len(ups), len(downs))))
        return [finding for finding in found if finding]

    def _telling(self, what: str, share: float, count: int) -> Finding | None:
        low, high = wilson(share, count)
        if low <= TELLING and high >= 1 - TELLING:
            return None
        figures = {"auc": round(share, 4), "low": round(low, 4), "high": round(high, 4), "n": count}
        text = (
            f"length alone tells the label: {what} in {share:.0%} of cases (95 % interval {low:.0%} to {high:.0%}, in "
            f"{self.unit}), so a model can learn length in the place of quality"
        )
        return Finding("length_tells_label", text, figures=figures)
