"""Before the first optimizer step the policy is the reference: the check of what was cached against what will train.

Whatever separates the two (a stale cache, another kernel, dropout, an adapter that is on one side alone, packing)
would bias every weight of BNF and every log-ratio of the other losses, and nothing later would show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bnf_align.losses import CompletionLogps, bnf_weights
from bnf_align.reference.compute import ReferenceReport


class StepZero(NamedTuple):
    """Policy against reference over scored tokens; sums, so that ranks and micro-batches add up."""

    tokens: float
    logratio: float
    """Sum over tokens of |log pi - log r|, nats."""
    weighted: float
    """Tokens whose weight says something: their reference leaves more than rounding to all other tokens."""
    weight: float
    """Sum of their BNF weights."""

    @property
    def mean_logratio(self) -> float:
        """Mean |log-ratio| of a token, nats."""
        return self.logratio / self.tokens if self.tokens else 0.0

    @property
    def mean_weight(self) -> float:
        """Mean BNF weight."""
        return self.weight / self.weighted if self.weighted else 1.0

    def holds(self, tolerance: float) -> bool:
        """Whether policy and reference are equal up to `tolerance`; False where anything is NaN."""
        return self.mean_logratio <= tolerance and self.mean_weight >= 1 - 2 * tolerance


def tolerance_of(dtype: torch.dtype) -> float:
    """How far apart, in nats per token, rounding may bring two forward passes over one model: 4 roundings of `dtype`.

    Micro-batches of other shapes take other kernels, whose sums round differently. Measured on CPU with tiny models,
    bfloat16: up to 0.0004 between two cuts of a step, 0.0008 between padded and packed; 0.003 to 0.2 between a float32
    reference and a bfloat16 policy, which is what must be caught. float32: below 1e-7; its floor of 1e-3 is for TF32.
    """
    return max(1e-3, 4 * torch.finfo(dtype).eps / 2)  # eps is the distance to the next number: twice the rounding


@torch.no_grad()
def compare(completions: CompletionLogps, tolerance: float) -> Tensor:
    """The sums of `StepZero` over the scored tokens of a micro-batch, (4,) float32 on its device."""
    mask, ref_logps = completions.mask, completions.reference()
    # Where the reference is all but certain, odds are the quotient of two rounding errors, and the gradient is 0.
    telling = mask & (ref_logps < -tolerance)
    distance = torch.where(mask, (completions.logps - ref_logps).abs(), 0.0)
    weights = torch.where(telling, bnf_weights(completions.logps, ref_logps), 0.0)
    return torch.stack([part.sum(dtype=torch.float32) for part in (mask, distance, telling, weights)])


def not_the_reference(
    found: Sequence[StepZero], tolerance: float, reference: ReferenceReport | None, random: bool
) -> str:
    """What to tell whoever is about to train against the wrong reference.

    `found` is what was measured, by rank, and does not hold on all of them. With `random` policy and reference agree
    in evaluation mode.
    """
    rank, part = next((rank, part) for rank, part in enumerate(found) if not part.holds(tolerance))
    if random:
        why = (
            "In evaluation mode the two agree, so something is random in training mode, such as a dropout that "
            "--disable_dropout does not find. Set it to 0 in the model's config, or keep it with "
            "--disable_dropout false."
        )
    else:
        assert reference is not None
        why = (
            f"They differ in evaluation mode too: the stored log-probabilities ({reference.cached_tokens:,} tokens "
            f"from the cache, {reference.computed_tokens:,} computed now, namespace {reference.namespace}) come from "
            "other weights, kernels or settings than training has. Start with an empty folder as --ref_cache_dir; if "
            "that changes nothing, take --head logits, or leave --packing out."
        )
    return (
        f"Before step 1 the policy is not the reference. Over {part.tokens:,.0f} scored tokens of process {rank} the "
        f"mean |log-ratio| is {part.mean_logratio:.2g} nats (rounding explains {tolerance:.2g}) and the mean BNF "
        f"weight {part.mean_weight:.3f} instead of 1, so every loss would compare with the wrong model. {why} "
        "--check_step_0 false trains all the same."
    )
