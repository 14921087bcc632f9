"""Figure 4's bins: tenths of one method's token shifts, and how the shifts of others fall into them."""

from __future__ import annotations

import numpy as np

BINS = 10


def edges(values: np.ndarray) -> np.ndarray:
    """The nine values that cut `values` into ten equal parts."""
    return np.quantile(values, np.arange(1, BINS) / BINS)


def shares(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Share of `values` in each bin, first to last; a value on an edge counts in the lower one."""
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=len(edges) + 1)
    return counts / len(values)
