"""Pairs whose answers hardly differ: the paper's section 2.3.

Where chosen and rejected share nearly all tokens, their log-likelihoods cannot part, so the contrast of DPO and its
kin stays open while both fall; Pal et al. (2024, arXiv 2402.13228) show it, and measure it by edit distance.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from bnf_align.records import NOTE, WARNING, Finding, rows_text

NEAR = 0.1
"""Edits over the length of the longer answer."""
MANY = 0.1
"""Share of the pairs from which a note becomes a warning."""
LONGEST = 20_000
"""Of longer answers the beginning is compared: the time grows with the square of the length."""


class NearIdentical:
    """Counts the pairs of one source whose answers differ in a tenth of their length or less.

    Args:
        unit: What is compared: "characters" or "tokens".
    """

    def __init__(self, unit: str) -> None:
        self.unit = unit
        self._pairs = 0
        self._rows, self._edits = array("q"), array("q")

    def add(self, number: int, chosen: Sequence[Any], rejected: Sequence[Any]) -> None:
        """Compare the answers of a pair."""
        self._pairs += 1
        chosen, rejected = chosen[:LONGEST], rejected[:LONGEST]
        most = int(NEAR * max(len(chosen), len(rejected)))
        # With a cutoff the search is given up as soon as it is passed: a million pairs take seconds.
        edits = Levenshtein.distance(chosen, rejected, score_cutoff=most)
        if edits <= most:
            self._rows.append(number)
            self._edits.append(edits)

    def findings(self) -> list[Finding]:
        """The near-identical pairs, with their share and the median of their edit distances."""
        if not self._rows:
            return []
        rows, edits = self._rows.tolist(), np.array(self._edits)
        share = len(rows) / self._pairs
        figures = {
            "share": round(share, 4),
            "pairs": self._pairs,
            "edits_p50": float(np.median(edits)),
            "edits_max": int(edits.max()),
            "one_edit": int((edits <= 1).sum()),
        }
        text = (
            f"{share:.1%} of pairs are near-identical, at most a tenth of their {self.unit} differ (median "
            f"{figures['edits_p50']:g}; a single one in {figures['one_edit']:,}): {rows_text(rows)}. On such pairs "
            "DPO and its kin push the chosen answer down too (section 2.3 of the paper); bnf does not compare"
        )
        return [Finding("near_identical", text, rows, WARNING if share >= MANY else NOTE, figures)]
