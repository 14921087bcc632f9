r"""The fused head: log-probabilities, and a loss with its gradient, of N tokens without their (N, V) logits.

    z = cap(scale (h W^T + b)),    cap(z) = c tanh(z / c),    log p_j = z_j - log sum_k exp z_k

A loss L reaches the logits of token i through log p(y_i) alone, so with its slope s_i = dL / d log p(y_i)

    dL / dz_ij = s_i (1[j = y_i] - p_ij).

For Bidirectional Negative Feedback s_i = -label(y)/|y| w_i, and this is Eq. 8 of the paper. The logits of a few rows at
a time are formed in one buffer, turned into this gradient there and multiplied into dL/dh and dL/dW. Where the slope
follows from the token's own log-probability (`fused_loss`) that happens in the forward pass: three matmuls. Elsewhere
(`fused_logps`) the slope arrives with the backward pass, which forms the logits again: four.

Shapes: N tokens, H hidden, V vocabulary. Matmuls sum in float32, and nothing between a logit and a slope is rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bnf_align.records import BadInput

Slopes = Callable[[int, int, Tensor], Tensor]
"""`slopes(start, stop, logps)`: dL / dlogp of tokens start:stop, (stop - start,), from their log-probabilities."""

CPU_TILE_BYTES = 64 * 2**20
DEVICE_TILE_BYTES = 512 * 2**20
"""Size of the buffer. dL/dW is read and written once per tile, so tiles grow with the speed of the device."""


class Scores(NamedTuple):
    """What the head says of N tokens; float32, or float64 for a float64 model."""

    logps: Tensor
    """(N,) log p(y_i), nats."""
    logits: Tensor
    """(N,) the token's own logit z_i(y_i), without graph."""
    entropy: Tensor | None = None
    """(N,) entropy of the distribution, nats, without graph; None unless asked for."""


def fused_logps(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    entropy: bool = False,
    tile_bytes: int | None = None,
) -> Scores:
    """Log-probabilities of `targets`, with the graph: one matmul, three more in the backward pass.

    Args:
        hidden: (N, H) hidden states that predict the targets.
        weight: (V, H) weight of the LM head; no gradient is formed for what does not ask for one.
        targets: (N,) token ids.
        bias: (V,) bias of the LM head.
        softcap: c of the cap on the logits (Gemma 2).
        scale: Factor of the logits.
        entropy: Return the entropy too.
        tile_bytes: Size of the buffer for logits; twice that with `softcap`.

    Raises:
        BadInput: For float16, whose range the gradient leaves.
    """
    form = _Form(softcap, scale, _multiplied_dtype(hidden), tile_bytes)
    with torch.autocast(hidden.device.type, enabled=False):
        return Scores(*_FusedLogps.apply(hidden, weight, bias, targets, form, entropy))


def fused_loss(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    slopes: Slopes,
    *,
    bias: Tensor | None = None,
    softcap: float | None = None,
    scale: float | None = None,
    tile_bytes: int | None = None,
) -> tuple[Tensor, Tensor]:
    """A loss whose slope at a token follows from that token's log-probability, its gradient formed on the way.

    Three matmuls in all, two with a frozen head, one without gradients. The gradient with respect to hidden states
    and head waits for the backward pass, in float32, and is given away there: one backward pass, no second.

    Args:
        hidden: (N, H) hidden states that predict the targets.
        weight: (V, H) weight of the LM head.
        targets: (N,) token ids.
        slopes: The loss, as its derivative; called once per tile, in order.
        bias: (V,) bias of the LM head.
        softcap: c of the cap on the logits (Gemma 2).
        scale: Factor of the logits.
        tile_bytes: Size of the buffer for logits; twice that with `softcap`.

    Returns:
        () sum_i s_i log p(y_i), which carries the gradient, and is the loss itself where that is a weighted
        log-likelihood, as bnf, nll_pll and sft are; (N,) log-probabilities without graph.

    Raises:
        BadInput: For float16, whose range the gradient leaves.
    """
    form = _Form(softcap, scale, _multiplied_dtype(hidden), tile_bytes)
    # Asked here because inside a Function the mode is always off and needs_input_grad ignores it.
    training = torch.is_grad_enabled()
    wanted = tuple(training and t is not None and t.requires_grad for t in (hidden, weight, bias))
    with torch.autocast(hidden.device.type, enabled=False):
        return _FusedLoss.apply(hidden, weight, bias, targets, form, slopes, wanted)


# ------------------------------------------------------------------------------------------------- autograd's side


class _FusedLogps(torch.autograd.Function):
    """Log-probabilities forward; backward forms the logits again, now with slopes."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *options: Any) -> Any:
        form, entropy = options
        sweep = _sweep(hidden, weight, bias, targets, form, entropy=entropy)
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.form = form
        ctx.mark_non_differentiable(*(values for values in sweep.scores[1:] if values is not None))
        return tuple(sweep.scores)

    @staticmethod
    def backward(ctx: Any, slopes: Tensor, *_: Any) -> Any:
        _refuse_double_backward()
        sweep = _sweep(
            *ctx.saved_tensors, ctx.form, lambda start, stop, _: slopes[start:stop], wanted=ctx.needs_input_grad[:3]
        )
        return *_cast_like(sweep.gradients, ctx.saved_tensors), None, None, None


class _FusedLoss(torch.autograd.Function):
    """Loss and gradient forward; backward only scales the gradient."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, *options: Any) -> Any:
        form, slopes, wanted = options
        sweep = _sweep(hidden, weight, bias, targets, form, slopes, wanted)
        ctx.gradients, ctx.dtypes = sweep.gradients, [None if t is None else t.dtype for t in (hidden, weight, bias)]
        ctx.mark_non_differentiable(sweep.scores.logps)
        ctx.set_materialize_grads(False)
        return sweep.loss, sweep.scores.logps

    @staticmethod
    def backward(ctx: Any, factor: Tensor, _: None) -> Any:
        _refuse_double_backward()
        if ctx.gradients is None:
            raise RuntimeError(
                "A second backward pass through the fused loss: its gradient was formed in the forward pass and given "
                "away in the first backward pass. Run the forward pass again."
            )
        gradients, ctx.gradients = ctx.gradients, None
        scaled = [None if g is None else g.mul_(factor).to(dtype) for g, dtype in zip(gradients, ctx.dtypes, strict=True)]
        return *scaled, None, None, None, None
