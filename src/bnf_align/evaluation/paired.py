"""Two models on the same items: is the difference more than chance?

What makes an item hard for both models cancels out in the difference, so a paired comparison sees changes that two
separate intervals do not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bnf_align.evaluation.bootstrap import BLOCK, Interval, drawn_counts, interval
from bnf_align.records import BadInput


@dataclass(frozen=True)
class Comparison:
    """Model against model on the items that both have."""

    difference: float
    """Mean of first minus second, in the unit of the scores."""
    interval: Interval
    """Of the difference, 95 % bootstrap by item."""
    p_value: float
    """Two-sided, of no difference."""
    test: str
    """`mcnemar` where every score is right or wrong, else `permutation`."""
    wins: int
    losses: int
    ties: int
    unpaired: int
    """Items that only one of the two has; they do not count."""


def compare(first: Mapping[str, float], second: Mapping[str, float], seed: int = 42) -> Comparison:
    """Compare two models' scores (right or wrong as True and False, or any number) by item id.

    Raises:
        BadInput: If they share no item.
    """
    shared = sorted(first.keys() & second.keys())
    if not shared:
        raise BadInput(
            f"The two models share none of their {len(first):,} and {len(second):,} items, so they cannot be paired: "
            "score both on the same items, under the same ids."
        )
    scores = np.array([(first[item], second[item]) for item in shared], dtype=float)
    gaps = scores[:, 0] - scores[:, 1]
    binary = bool(np.isin(scores, (0, 1)).all())
    wins, losses = int((gaps > 0).sum()), int((gaps < 0).sum())
    return Comparison(
        difference=float(gaps.mean()),
        interval=bootstrap_difference(gaps, seed=seed),
        p_value=sign_test(wins, losses) if binary else permutation_test(gaps, seed=seed),
        test="mcnemar" if binary else "permutation",
        wins=wins,
        losses=losses,
        ties=len(gaps) - wins - losses,
        unpaired=len(first) + len(second) - 2 * len(shared),
    )


def bootstrap_difference(gaps: np.ndarray, resamples: int = 10_000, seed: int = 42) -> Interval:
    """The 95 % interval of the mean of (items,) differences, items drawn with replacement."""
    blocks = drawn_counts(len(gaps), resamples, seed)
    return interval(np.concatenate([counts @ gaps for counts in blocks]) / len(gaps))


def sign_test(wins: int, losses: int) -> float:
    """The exact two-sided p-value that wins and losses are equally likely; ties say nothing and are left out.

    For right and wrong answers this is McNemar's exact test: a win is an item that only the first model has right.
    """
    decided = wins + losses
    tail = sum(math.comb(decided, number) for number in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / 2**decided)  # whole numbers until here, so exact for any number of items


def permutation_test(gaps: np.ndarray, permutations: int = 10_000, seed: int = 42) -> float:
    """The two-sided p-value of a mean difference this large if the two models could be exchanged on every item.

    Random sign flips of (items,) differences. The observed one counts as a permutation, so that p is never 0.
    """
    rng = np.random.default_rng(seed)
    sums = [
        rng.choice([-1.0, 1.0], size=(min(BLOCK, permutations - start), len(gaps))) @ gaps
        for start in range(0, permutations, BLOCK)
    ]
    # Sums that are equal in exact arithmetic count as equal.
    extreme = np.abs(np.concatenate(sums)) >= abs(gaps.sum()) - 1e-9 * np.abs(gaps).sum()
    return float((1 + extreme.sum()) / (1 + permutations))
