"""The bootstrap over clusters: what is drawn again is a whole question, with everything that was said about it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

BLOCK = 1_000


class Interval(NamedTuple):
    """The 2.5 % and 97.5 % quantiles of a resampled number, in the unit of that number."""

    low: float
    high: float


def drawn_counts(clusters: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each cluster is drawn when `clusters` of them are drawn with replacement, `resamples` times.

    Counts instead of indices: a resampled sum is then one matrix product.

    Yields:
        (at most 1,000, clusters) integers a time, `resamples` rows in all, each summing to `clusters`.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, BLOCK):
        rows = min(BLOCK, resamples - start)
        drawn = rng.integers(clusters, size=(rows, clusters)) + clusters * np.arange(rows)[:, None]
        yield np.bincount(drawn.ravel(), minlength=rows * clusters).reshape(rows, clusters)


def interval(samples: np.ndarray) -> Interval:
    """The percentile interval (Efron, 1979) of (resamples,) numbers; resamples without a number (NaN) do not count."""
    low, high = np.nanpercentile(samples, [2.5, 97.5])
    return Interval(float(low), float(high))
