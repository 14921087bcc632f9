"""Trial runs of a model before training, wherever its weights lie: flash attention without its kernels.

The kernels take half precision on an accelerator, while the weights may still be float32 and on the CPU. What a trial
asks (does the fused head give the model's log-probabilities? do packed responses see each other?) needs their
semantics alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

WITHOUT_KERNELS = "flash_by_positions"


def can_be_tried(model: nn.Module) -> bool:
    """Whether a process can run `model` on its own: the weights are here (not meta) and whole (not sharded)."""
    return not any(weight.is_meta or isinstance(weight, DTensor) for weight in model.parameters())


@contextmanager
def without_flash_kernels(lm: Any) -> Iterator[None]:
    """`lm`, and if its attention is a flash one, with PyTorch's own instead, borders of responses found as there."""
    attention = lm.config._attn_implementation
    if "flash" in str(attention):
        lm.config._attn_implementation = WITHOUT_KERNELS
    try:
        yield
    finally:
        lm.config._attn_implementation = attention


def _by_positions(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor | None = None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention that knows of packed responses from `position_ids` alone: a layer without them mixes all."""
    length = query.shape[2]
    mask = torch.ones(1, length, length, dtype=torch.bool, device=query.device).tril()
    if position_ids is not None:
        response = (position_ids == 0).cumsum(-1)
        mask = mask & (response[:, :, None] == response[:, None])
    return sdpa_attention_forward(module, query, key, value, mask[:, None], scaling=scaling)


AttentionInterface.register(WITHOUT_KERNELS, _by_positions)
