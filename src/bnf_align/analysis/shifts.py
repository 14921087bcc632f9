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

from bnf_align.analysis.gini import gini

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
