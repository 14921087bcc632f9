"""The Gini coefficient, with which the paper says how evenly a response's shift is spread over its tokens."""

from __future__ import annotations

import numpy as np


def gini(values: np.ndarray) -> float | None:
    r"""Half the mean absolute difference of two values, drawn with replacement, over their mean.

        G = sum_i sum_j |x_i - x_j| / (2 n^2 mean x) = sum_i (2 i - n - 1) x_(i) / (n sum x),    x_(1) <= ... <= x_(n)

    0 where all are equal, 1 - 1/n where one value has everything. The paper names its source (Gini, 1912,
    Variabilità e mutabilità) and prints no formula; this is the plain one, without the factor n / (n - 1) of an
    unbiased estimate.

    Args:
        values: (n,) numbers of at least 0.

    Returns:
        From 0 to 1 - 1/n; None where nothing is there to be spread: no value above 0.

    Raises:
        ValueError: If a value is below 0 or not finite: a share of the whole would have no meaning.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if not (np.isfinite(ordered).all() and (ordered >= 0).all()):
        raise ValueError("The Gini coefficient is defined for finite values of at least 0.")
    total = ordered.sum()
    if total == 0:
        return None
    n = len(ordered)
    ranks = np.arange(1, n + 1)
    return float(((2 * ranks - n - 1) * ordered).sum() / (n * total))
