"""Figure 1: how hard a loss pushes a token's logit, by how likely the token is."""

from __future__ import annotations

import numpy as np
import torch

from bnf_align.losses import LOSSES, CompletionLogps


def derivative_curve(
    loss: str, likelihoods: np.ndarray, reference: float | None = None, *, preferred: bool = False
) -> np.ndarray:
    """|dL/dz_y| of a response of one token, by autograd through the loss itself.

    The token stands against one other: what the rest of the vocabulary looks like has no say in Eq. 9.

    Args:
        loss: A pointwise loss of `LOSSES`: `nll_pll` gives 1 - pi, `bnf` Eq. 9 with |y| = 1.
        likelihoods: (n,) pi(y), between 0 and 1.
        reference: r(y), for losses that need it.
        preferred: The label; it turns the sign and leaves the magnitude.

    Returns:
        (n,) float64.
    """
    z = torch.as_tensor(likelihoods, dtype=torch.float64).logit()[:, None].requires_grad_()
    logps = torch.nn.functional.logsigmoid(z)
    ref_logps = None if reference is None else torch.full_like(logps, reference).log().detach()
    completions = CompletionLogps(logps, torch.ones_like(logps, dtype=torch.bool), ref_logps)
    value = LOSSES[loss].function(completions, torch.full((len(z),), preferred))
    return torch.autograd.grad(value.sum(), z)[0].abs()[:, 0].numpy()
