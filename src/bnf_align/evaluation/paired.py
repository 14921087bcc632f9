"""Two models on the same items: is the difference more than chance?

What makes an item hard for both models cancels out in the difference, so a paired comparison sees changes that two
separate intervals do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bnf_align.records import BadInput
from bnf_align.stats import Interval, bootstrap_mean, permutation_test, sign_test


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
        interval=bootstrap_mean(gaps, seed=seed),
        p_value=sign_test(wins, losses) if binary else permutation_test(gaps, seed=seed),
        test="mcnemar" if binary else "permutation",
        wins=wins,
        losses=losses,
        ties=len(gaps) - wins - losses,
        unpaired=len(first) + len(second) - 2 * len(shared),
    )
