r"""How far a response has moved from the reference: the five numbers of Figure 3.

For a response y of |y| scored tokens, with log pi and log r the log-likelihoods of token i and z_pi, z_r its logits,
which the softmax takes (after a cap, where the model has one):

    log-likelihood shift     sum_i (log pi(y_i) - log r(y_i))
    absolute logit shift     sum_i |z_pi(y_i) - z_r(y_i)|
    per token                each over |y|
    Gini coefficient         of the |y| numbers |z_pi(y_i) - z_r(y_i)|

The paper names these quantities and prints no formula. The absolute value is taken token by token, because only then
is a response's shift the sum of what its tokens have, which the Gini coefficient divides up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

MEASURES = {
    "log_likelihood_shift": "log-likelihood shift (nats)",
    "logit_shift": "absolute logit shift",
    "log_likelihood_shift_per_token": "log-likelihood shift per token (nats)",
    "logit_shift_per_token": "absolute logit shift per token",
    "gini": "Gini coefficient of the tokens' logit shifts",
}
"""The measures of a response, and what to write at an axis."""


class TokenScores(NamedTuple):
    """What one model says of the scored tokens of one response."""

    logps: np.ndarray
    """(n,) log-likelihood of each, nats."""
    logits: np.ndarray
    """(n,) its own logit."""


def shifts(policy: TokenScores, reference: TokenScores) -> dict[str, float | None]:
    """The measures of one response, by name; `gini` is None where no logit has moved."""
    log_likelihood = float((policy.logps - reference.logps).sum())
    logit = np.abs(policy.logits - reference.logits)
    count = len(logit)
    return {
        "log_likelihood_shift": log_likelihood,
        "logit_shift": float(logit.sum()),
        "log_likelihood_shift_per_token": log_likelihood / count,
        "logit_shift_per_token": float(logit.mean()),
        "gini": gini(logit),
    }


def gini(values: np.ndarray) -> float | None:
    """Half the mean absolute difference of two of (n,) values from 0 up, drawn with replacement, over their mean.

        G = sum_i sum_j |x_i - x_j| / (2 n^2 mean x) = sum_i (2 i - n - 1) x_(i) / (n sum x),    x_(1) <= ... <= x_(n)

    0 where all are equal, 1 - 1/n where one value has everything; None where nothing is there to be spread. The paper
    names its source (Gini, 1912, Variabilità e mutabilità) and prints no formula; this is the plain one, without the
    factor n / (n - 1) of an unbiased estimate.

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
