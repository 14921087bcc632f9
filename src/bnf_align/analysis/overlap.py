r"""Figure 2: why pairs that hardly differ are hard for DPO.

Only the tokens in which the answers of a pair differ can open a gap between them:

    overlap     2 M / (|y_w| + |y_l|), M the tokens that both have in the same order (`difflib`)
    gap         log pi(y_w) - log pi(y_l), nats. The paper writes 1.2 for a token with likelihood 0.8 against one with
                0.05, which is log10(0.8 / 0.05): its unit is `gap / ln 10`
    contrast    sigma(beta (log-ratio of y_l - log-ratio of y_w)), what DPO multiplies its gradient with, but for the
                factor beta (Section 2.2): 1/2 before training, near 0 where the pair is apart
"""

from __future__ import annotations

import math
from difflib import SequenceMatcher
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from bnf_align.analysis.table import read_rows

BETA = 0.1
"""Of DPO, as the paper names for usual."""


class Pair(NamedTuple):
    """A chosen and a rejected answer to one prompt under a method's model."""

    item: int
    overlap: float
    """0 to 1."""
    gap: float
    """Nats, under the method's model."""
    ref_gap: float
    """Nats, under the reference."""
    contrast: float
    """0 to 1."""


def of_pairs(file: str | Path, beta: float = BETA) -> list[Pair]:
    """The pairs of a file that `measure` wrote, in its order; single answers are passed over."""
    names = ("item", "side", "token_ids", "logps", "ref_logps")
    found = []
    for one, other in pairwise(read_rows(file, *names)):
        if one["item"] == other["item"] and (one["side"], other["side"]) == ("chosen", "rejected"):
            gap, ref_gap = (sum(one[name]) - sum(other[name]) for name in ("logps", "ref_logps"))
            contrast = 1 / (1 + math.exp(min(beta * (gap - ref_gap), 700.0)))
            found.append(Pair(one["item"], overlap(one["token_ids"], other["token_ids"]), gap, ref_gap, contrast))
    return found


def overlap(chosen: list[int], rejected: list[int]) -> float:
    """Share of the tokens of both answers that the other has too, in the same order; 1 where they are the same."""
    return SequenceMatcher(None, chosen, rejected, autojunk=False).ratio()
