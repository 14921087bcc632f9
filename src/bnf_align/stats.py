"""The statistics of every comparison here, by scipy.stats where it has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

BLOCK = 1_000


class Interval(NamedTuple):
    """A 95 % interval, in the unit of what it is of."""

    low: float
    high: float


def drawn_counts(clusters: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each cluster is drawn when `clusters` of them are drawn with replacement, `resamples` times.

    Counts instead of indices: a resampled sum is then one matrix product. What is drawn again is a whole question,
    with everything that was said about it.

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
    return Interval(*map(float, np.nanpercentile(samples, [2.5, 97.5])))


def bootstrap_mean(values: Sequence[float] | np.ndarray, resamples: int = 10_000, seed: int = 42) -> Interval:
    """The percentile interval of the mean of (items,) numbers, items drawn with replacement."""
    values = np.asarray(values, dtype=np.float64)
    blocks = drawn_counts(len(values), resamples, seed)
    return interval(np.concatenate([counts @ values for counts in blocks]) / len(values))


def sign_test(wins: int, losses: int) -> float:
    """The exact two-sided p-value that wins and losses are equally likely; ties say nothing and are left out.

    For right and wrong answers this is McNemar's exact test: a win is an item that only the first model has right.
    """
    return float(stats.binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def permutation_test(gaps: np.ndarray, permutations: int = 10_000, seed: int = 42) -> float:
    """The two-sided p-value of a mean difference this large if the two models could be exchanged on every item.

    Sign flips of (items,) differences, all of them where these are few, else random ones. The observed difference
    counts as one, so that p is never 0.
    """
    if not np.any(gaps):
        return 1.0
    found = stats.permutation_test(
        (gaps,),
        lambda flipped, axis: flipped.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        batch=BLOCK,
        rng=np.random.default_rng(seed),
    )
    return float(found.pvalue)


def crossed_bootstrap(values: np.ndarray, resamples: int = 10_000, seed: int = 42) -> Interval:
    """The percentile interval of the mean of (seeds, items) values, seeds and items drawn with replacement.

    With few seeds it is too narrow where they differ (two drawn of two have half their variance): `crossed_test` is
    what tells a difference from chance.
    """
    seeds, items = values.shape
    drawn = zip(drawn_counts(seeds, resamples, seed), drawn_counts(items, resamples, seed + 1), strict=True)
    return interval(
        np.concatenate([((by_seed @ values) * by_item).sum(1) for by_seed, by_item in drawn]) / values.size
    )


def crossed_test(gaps: np.ndarray) -> float:
    """The two-sided p-value of no mean difference, for other seeds and other items than these.

    The analysis of variance for readers crossed with cases (Dorfman, Berbaum and Metz, 1992; degrees of freedom of
    Hillis, 2007), seeds being the readers: where seeds differ, a few of them prove little, however many items there
    are. A variance of seeds below that of the residuals is chance, and is taken as theirs. Where seeds differ as much
    as items or more, true nulls are still rejected at 5 % in up to 6 % of cases with five seeds, 8 % with three and
    13 % with two (simulated; a bootstrap of two seeds reaches 50 %).

    Of one seed it is the t-test over items and speaks of that seed alone. Where all items agree there is no variance
    to compare with, and the sign test over items is taken.

    Args:
        gaps: (seeds, items) differences of two models, of the same seed on the same item.
    """
    seeds, items = gaps.shape
    mean, by_seed, by_item = gaps.mean(), gaps.mean(axis=1), gaps.mean(axis=0)
    of_items = seeds * by_item.var(ddof=1)
    if seeds == 1:
        of_mean, freedom = of_items, items - 1.0
    else:
        rest = ((gaps - by_item - by_seed[:, None] + mean) ** 2).sum() / ((seeds - 1) * (items - 1))
        of_seeds = max(items * by_seed.var(ddof=1), rest)
        of_mean = of_seeds + max(of_items - rest, 0.0)
        freedom = (seeds - 1) * (of_mean / of_seeds) ** 2 if of_seeds else np.inf
    if of_mean <= 1e-20:
        return sign_test(int((by_item > 0).sum()), int((by_item < 0).sum()))
    return float(2 * stats.t.sf(abs(mean) / np.sqrt(of_mean / gaps.size), freedom))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for how many there are, in their order (Holm, 1979): below 0.05 all together are real.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values, kind="stable")
    scaled = np.asarray(p_values, dtype=np.float64)[order] * np.arange(len(order), 0, -1)
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return corrected.tolist()


def auc(ups: Sequence[float] | np.ndarray, downs: Sequence[float] | np.ndarray) -> float:
    """How probably an up is above a down, a tie being half (Mann and Whitney's U over m n).

    Example:
        >>> auc([3, 5], [1, 3])
        0.875
    """
    return float(stats.mannwhitneyu(ups, downs, method="asymptotic").statistic / (len(ups) * len(downs)))


def auc_values(ups: np.ndarray, downs: np.ndarray) -> np.ndarray:
    """(ups + downs,) values whose mean is `auc` and whose variance over items is that of it (DeLong et al., 1988)."""
    above = (ups[:, None] > downs) + 0.5 * (ups[:, None] == downs)
    sides = [above.mean(axis=1), above.mean(axis=0)]
    count, mean = len(ups) + len(downs), above.mean()
    return np.concatenate([mean + count / len(side) * (side - mean) for side in sides])


def wilson(share: float, count: int) -> Interval:
    """The interval of a proportion (Wilson, 1927), which three hits of three do not make certain.

    Example:
        >>> [round(bound, 2) for bound in wilson(1.0, 3)]
        [0.44, 1.0]
    """
    found = stats.binomtest(round(share * count), count).proportion_ci(method="wilson")
    return Interval(float(found.low), float(found.high))
