"""Bounds that follow from a dtype and a number of roundings, so that none of them is that of one machine.

Processors, and the instruction sets of one processor, sum in different orders. Whatever the order, a sum of n terms is
off by at most n - 1 roundings of the sum of their magnitudes, each half an eps (Higham, "Accuracy and Stability of
Numerical Algorithms", 2002, section 4.2).
"""

import torch


def roundings(count: float, dtype: torch.dtype = torch.float32) -> float:
    """The relative error that `count` roundings of `dtype` may add up to."""
    return count * torch.finfo(dtype).eps / 2


ROUNDING = roundings(1000)
"""6e-5, for what a tiny model in float32 gives in two ways, forward and backward: log-probabilities in nats, metrics,
gradients as one vector. In each of two layers there are sums of 32 terms (hidden size, six times), 64 (MLP) and up to
100 (tokens), in the head 32 and up to 300 (vocabulary), and the same again in the backward pass. A mistake in a mask,
a sign, a shift or a label is worth more than 1e-2."""
