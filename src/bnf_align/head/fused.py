"""Log-probabilities of N tokens, or a loss with its gradient, without their (N, V) logits: the autograd side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bnf_align.head.tiles import Form, Scores, Slopes, sweep
from bnf_align.records import BadInput


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
    """Log-probabilities of `targets`, with the graph: one matmul, and three in the backward pass.

    Args:
        hidden: (N, H) hidden states that predict the targets.
        weight: (V, H) weight of the LM head; what does not ask for a gradient gets none formed.
        targets: (N,) token ids.
        bias: (V,) bias of the LM head.
        softcap: c of the cap on the logits (Gemma 2).
        scale: Factor of the logits.
        entropy: Return the entropy too.
        tile_bytes: Size of the buffer for logits; `softcap` needs a second one.

    Raises:
        BadInput: For float16.
    """
    form = Form(softcap, scale, _multiplied_dtype(hidden), tile_bytes)
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
    """A loss whose slope at a token follows from that token's log-probability, with the gradient formed on the way.

    Three matmuls in all, two with a frozen head, one without gradients. Until the backward pass the gradient is kept
    in float32 (V x H and N x H); it is given away there, so there is no second one.

    Args:
        hidden: (N, H) hidden states that predict the targets.
        weight: (V, H) weight of the LM head; what does not ask for a gradient gets none formed.
        targets: (N,) token ids.
        slopes: The loss, as its derivative; called once per tile, in order.
        bias: (V,) bias of the LM head.
        softcap: c of the cap on the logits (Gemma 2).
        scale: Factor of the logits.
        tile_bytes: Size of the buffer for logits; `softcap` needs a second one.

    Returns:
        () sum_i s_i log p(y_i), which carries the gradient; it is the loss itself where that is a weighted
        log-likelihood, as bnf, nll_pll and sft are. (N,) log-probabilities without graph.

    Raises:
        BadInput: For float16.
    """
    form = Form(softcap, scale, _multiplied_dtype(hidden), tile_bytes)
    # Asked here: inside a Function gradients are always off, and needs_input_grad stays True under no_grad.
    training = torch.is_grad_enabled()
    wanted = [training and values is not None and values.requires_grad for values in (hidden, weight, bias)]
    with torch.autocast(hidden.device.type, enabled=False):
        return _FusedLoss.apply(hidden, weight, bias, targets, form, slopes, wanted)


def _multiplied_dtype(hidden: Tensor) -> torch.dtype:
    """The dtype that hidden states and weights are rounded to: autocast's, or that of the hidden states."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    if dtype == torch.float16:
        raise BadInput(
            "The fused head does not run in float16: its gradient is formed before any loss scaling and would "
            "underflow. Train with --bf16 true or --dtype bfloat16, or take the model's own logits, --head logits."
        )
    return dtype


class _FusedLogps(torch.autograd.Function):
    """Scores forward; backward forms the logits again, now that the slopes are known."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, form: Form, entropy: bool
    ) -> Any:
        scores = sweep(hidden, weight, bias, targets, form, entropy=entropy).scores
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.form = form
        ctx.mark_non_differentiable(*(values for values in scores[1:] if values is not None))
        return tuple(scores)

    @staticmethod
    def backward(ctx: Any, slopes: Tensor, *_: Any) -> Any:
        _refuse_create_graph()
        hidden, weight, bias, targets = ctx.saved_tensors
        gradients = sweep(
            hidden,
            weight,
            bias,
            targets,
            ctx.form,
            slopes=lambda start, stop, _: slopes[start:stop],
            wanted=ctx.needs_input_grad[:3],
        ).gradients
        return *gradients, None, None, None  # autograd casts them to the dtypes of the inputs


class _FusedLoss(torch.autograd.Function):
    """Loss and gradient forward; backward multiplies the gradient by what comes in."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        form: Form,
        slopes: Slopes,
        wanted: Sequence[bool],
    ) -> Any:
        scores, loss, ctx.gradients = sweep(hidden, weight, bias, targets, form, slopes=slopes, wanted=wanted)
        ctx.mark_non_differentiable(scores.logps)
        return loss, scores.logps

    @staticmethod
    def backward(ctx: Any, factor: Tensor, _: Tensor) -> Any:
        _refuse_create_graph()
        if ctx.gradients is None:
            raise RuntimeError(
                "A second backward pass through the fused loss: its gradient was formed in the forward pass and given "
                "away in the first backward pass. Run the forward pass again instead of retain_graph=True."
            )
        gradients, ctx.gradients = ctx.gradients, None
        return *(None if g is None else g.mul_(factor) for g in gradients), None, None, None, None


def _refuse_create_graph() -> None:
    if torch.is_grad_enabled():
        raise RuntimeError("The fused head has no second derivative: create_graph=True needs --head logits.")
