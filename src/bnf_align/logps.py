"""From a model and a batch to log-probabilities per token. The one shift between logits and tokens lives here."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnf_align.losses import CompletionLogps


def completion_logps(model: nn.Module, batch: Mapping[str, Tensor]) -> CompletionLogps:
    """Log-probabilities of the scored tokens of each row under `model`.

    Args:
        model: A causal language model.
        batch: `input_ids` and `attention_mask` (B, T) integers, padded on the right; `completion_mask` (B, T) bool;
            `ref_logps` (B, T) float32, where the loss needs it.

    Returns:
        (B, T) log-probabilities, at least float32, with the graph where gradients are enabled; 0 where not scored.
    """
    logps, _ = _token_scores(model, batch, entropy=False)
    return CompletionLogps(logps, batch["completion_mask"], batch.get("ref_logps"))


@torch.no_grad()
def token_entropy(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """(B, T) entropy in nats of the distribution that each scored token was drawn from; for `losses.eq4_value`."""
    return _token_scores(model, batch, entropy=True)[1]


def _token_scores(model: nn.Module, batch: Mapping[str, Tensor], entropy: bool) -> tuple[Tensor, Tensor]:
    """(B, T) log-probability, and entropy where asked for, of every scored token."""
    mask = batch["completion_mask"]
    if mask[:, 0].any():
        raise ValueError("Position 0 is scored, but nothing precedes it that could predict it.")
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
    # Token i is predicted by the logits at i - 1. Prompt and padding rows leave before the raise to float32.
    scored = logits[:, :-1][mask[:, 1:]]
    scored = scored.to(torch.promote_types(scored.dtype, torch.float32))
    values = -F.cross_entropy(scored, batch["input_ids"][mask], reduction="none")
    logps = torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(mask, values)
    if not entropy:
        return logps, logps
    log_probs = scored.log_softmax(-1)
    return logps, torch.zeros_like(logps).masked_scatter(mask, -(log_probs.exp() * log_probs).sum(-1))
