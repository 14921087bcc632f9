"""From a model and a batch to log-probabilities per token, through the model's own logits.

Training and the reference pass go through `head` instead, which keeps no logits; this is the way for any model as it
is, and the same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bnf_align.head import HeadCall, inputs_of
from bnf_align.losses import CompletionLogps


def completion_logps(model: nn.Module, batch: Mapping[str, Tensor]) -> CompletionLogps:
    """Log-probabilities of the scored tokens of each row under `model`.

    Args:
        model: A causal language model.
        batch: `input_ids` and `attention_mask` (B, T) integers, padded on the right; `completion_mask` (B, T) bool;
            `ref_logps` (B, T) float32, where the loss needs it. Or what `data.responses.packed` makes of that.

    Returns:
        (B, T) log-probabilities, at least float32, with the graph where gradients are enabled; 0 where not scored.
    """
    call = HeadCall(batch)
    return CompletionLogps(call.through_logits(_logits(model, batch)), call.mask, call.ref_logps)


@torch.no_grad()
def token_entropy(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """(B, T) entropy in nats of the distribution that each scored token was drawn from; for `losses.eq4_value`."""
    call = HeadCall(batch, entropy=True)
    call.through_logits(_logits(model, batch))
    return call.entropy


def _logits(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    logits: Tensor = model(**inputs_of(batch), use_cache=False).logits
    return logits
