r"""The fused LM head: log-probabilities of N tokens, or a loss with its gradient, without their (N, V) logits.

    z = cap(scale (h W^T + b)),    cap(z) = c tanh(z / c),    log p_j = z_j - log sum_k exp z_k

A loss L reaches the logits of token i through log p(y_i) alone, so with s_i = dL / dlog p(y_i)

    dL / dz_ij = s_i (1[j = y_i] - p_ij),

which for Bidirectional Negative Feedback, s_i = -label(y)/|y| w_i, is Eq. 8 of the paper. A chunk of logits becomes
this gradient in place and is multiplied into dL/dh and dL/dW before the next chunk takes its memory.

Shapes: N tokens, H hidden, V vocabulary, n rows of a chunk. Nothing between a matmul and s is below float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bnf_align.records import BadInput

ChunkWeights = Callable[[slice, Tensor], Tensor]
"""`weights(part, logps)`: s of the tokens `part`, (n,), from their log-probabilities (n,)."""

CPU_CHUNK_BYTES = 64 * 2**20
DEVICE_CHUNK_BYTES = 512 * 2**20
"""Default size of a chunk. All of dL/dW is read and written once per chunk: chunks grow with the speed of matmuls."""


class Head(NamedTuple):
    """The LM head of a model; what does not ask for a gradient gets none formed."""

    weight: Tensor
    """(V, H)."""
    bias: Tensor | None = None
    """(V,)."""
    softcap: float | None = None
    """c of the cap on the logits (Gemma 2)."""
    scale: float | None = None
    """Factor of the logits."""


class Scores(NamedTuple):
    """What the head says of N tokens; float32, or float64 for a float64 model."""

    logps: Tensor
    """(N,) log p(y_i), nats."""
    logits: Tensor
    """(N,) the token's own logit z_i(y_i), without graph."""
    entropy: Tensor | None = None
    """(N,) entropy of the distribution, nats, without graph; None unless asked for."""


def fused_logps(
    hidden: Tensor, head: Head, targets: Tensor, *, entropy: bool = False, chunk_bytes: int | None = None
) -> Scores:
    """Log-probabilities of `targets`, with the graph: one matmul, and three in the backward pass.

    Args:
        hidden: (N, H) hidden states that predict the targets.
        head: The LM head.
        targets: (N,) token ids.
        entropy: Return the entropy too.
        chunk_bytes: Size of the buffer for logits; a soft cap needs a second one.

    Raises:
        BadInput: For float16.
    """
    sweep = _sweep_of(hidden, head, chunk_bytes)
    with torch.autocast(hidden.device.type, enabled=False):
        return Scores(*_FusedLogps.apply(hidden, head.weight, head.bias, targets, sweep, entropy))


def fused_loss(
    hidden: Tensor, head: Head, targets: Tensor, weights: ChunkWeights, *, chunk_bytes: int | None = None
) -> tuple[Tensor, Tensor]:
    """A weighted log-likelihood whose weights follow from the tokens, with the gradient formed in the forward pass.

    Three matmuls in all, two with a frozen head, one without gradients. Until the backward pass the gradient is kept
    in float32 (V x H and N x H); it is given away there, so there is no second one.

    Args:
        hidden: (N, H) hidden states that predict the targets.
        head: The LM head.
        targets: (N,) token ids.
        weights: Called once per chunk, in order.
        chunk_bytes: Size of the buffer for logits; a soft cap needs a second one.

    Returns:
        () sum_i s_i log p(y_i), which carries the gradient; (N,) log-probabilities without graph.

    Raises:
        BadInput: For float16.
    """
    sweep = _sweep_of(hidden, head, chunk_bytes)
    # Asked here: inside a Function gradients are always off, and needs_input_grad stays True under no_grad.
    training = torch.is_grad_enabled()
    wanted = [training and values is not None and values.requires_grad for values in (hidden, head.weight, head.bias)]
    with torch.autocast(hidden.device.type, enabled=False):
        return _FusedLoss.apply(hidden, head.weight, head.bias, targets, sweep, weights, wanted)


def _sweep_of(hidden: Tensor, head: Head, chunk_bytes: int | None) -> Callable[..., Any]:
    """`_sweep` with all but its tensors: how logits are formed, and what is rounded to autocast's dtype or none."""
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    if dtype == torch.float16:
        raise BadInput(
            "The fused head does not run in float16: its gradient is formed before any loss scaling and would "
            "underflow. Train with --bf16 true or --dtype bfloat16, or take the model's own logits, --head logits."
        )
    return partial(_sweep, dtype=dtype, softcap=head.softcap, scale=head.scale, chunk_bytes=chunk_bytes)


class _FusedLogps(torch.autograd.Function):
    """Scores forward; backward forms the logits again, now that s is known."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, targets: Any, sweep: Any, entropy: bool) -> Any:
        scores, _, _ = sweep(hidden, weight, bias, targets, entropy=entropy)
        ctx.save_for_backward(hidden, weight, bias, targets)
        ctx.sweep = sweep
        ctx.mark_non_differentiable(*(values for values in scores[1:] if values is not None))
        return tuple(scores)

    @staticmethod
    def backward(ctx: Any, slopes: Tensor, *_: Any) -> Any:
        _refuse_create_graph()
        wanted = ctx.needs_input_grad[:3]
        _, _, gradients = ctx.sweep(*ctx.saved_tensors, weights=lambda part, _: slopes[part], wanted=wanted)
        return *gradients, None, None, None  # autograd casts them to the dtypes of the inputs


class _FusedLoss(torch.autograd.Function):
    """Loss and gradient forward; backward multiplies the gradient by what comes in."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Any, weight: Any, bias: Any, targets: Any, sweep: Any, weights: Any, wanted: Any
    ) -> Any:
        scores, loss, ctx.gradients = sweep(hidden, weight, bias, targets, weights=weights, wanted=wanted)
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


def _sweep(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    dtype: torch.dtype,
    softcap: float | None,
    scale: float | None,
    chunk_bytes: int | None,
    weights: ChunkWeights | None = None,
    wanted: Sequence[bool] = (False, False, False),
    entropy: bool = False,
) -> tuple[Scores, Tensor, list[Tensor | None]]:
    """The one way through all tokens: scores, loss () and gradients of hidden, weight and bias, where `wanted`.

    The entropy is not to be had together with gradients.
    """
    wide = torch.promote_types(dtype, torch.float32)
    # Tensor cores multiply bfloat16 and sum in float32. Other devices would round the sums, but products of bfloat16
    # are exact in float32.
    operand = dtype if weight.is_cuda else wide
    h, w = (values.to(dtype).to(operand) for values in (hidden, weight))
    b = None if bias is None else bias.to(dtype).to(operand)
    chunk_bytes = chunk_bytes or (CPU_CHUNK_BYTES if w.device.type == "cpu" else DEVICE_CHUNK_BYTES)
    rows = min(max(1, chunk_bytes // (len(w) * wide.itemsize)), max(1, len(h)))
    buffer = torch.empty(rows, len(w), dtype=wide, device=w.device)
    cap_slope = torch.empty_like(buffer if softcap is not None else buffer[:0])

    scores = Scores(*(buffer.new_empty(len(h)) for _ in range(3 if entropy else 2)))
    gradients = [
        torch.zeros_like(values, dtype=wide) if values is not None and want else None
        for values, want in zip((hidden, weight, bias), wanted, strict=True)
    ]
    of_hidden, of_weight, of_bias = gradients
    loss = buffer.new_zeros(())
    for start in range(0, len(h), rows):
        part = slice(start, min(start + rows, len(h)))
        z, y = buffer[: part.stop - start], targets[part, None]
        _matmul(h[part], w.t(), out=z)
        if b is not None:
            z += b
        if scale is not None:
            z *= scale
        if softcap is not None:
            z.div_(softcap).tanh_()
            torch.square(z, out=cap_slope[: len(z)]).neg_().add_(1)
            z *= softcap
        own, largest = z.gather(1, y), z.amax(1, keepdim=True)
        total = z.sub_(largest).exp_().sum(1, keepdim=True)
        logps = own - largest - total.log()
        scores.logits[part], scores.logps[part] = own[:, 0], logps[:, 0]
        if scores.entropy is not None:
            scores.entropy[part] = total.log()[:, 0] + torch.special.entr(z, out=z).sum(1) / total[:, 0]
        if weights is None:
            continue
        s = weights(part, logps[:, 0])[:, None].to(wide)
        loss += (s * logps).sum()
        if not any(wanted):
            continue
        z.mul_(-s / total).scatter_add_(1, y, s)  # dL/dz = s (1[j = y] - p)
        if softcap is not None:
            z *= cap_slope[: len(z)]
        if scale is not None:
            z *= scale
        if of_bias is not None:
            of_bias += z.sum(0)
        g = z.to(operand)
        if of_hidden is not None:
            _matmul(g, w, out=of_hidden[part])
        if of_weight is not None:
            _matmul(g.t(), h[part], out=of_weight, add=True)
    return scores, loss, gradients


def _matmul(left: Tensor, right: Tensor, out: Tensor, add: bool = False) -> None:
    """`out` = left @ right, or += with `add`; summed in the dtype of `out`."""
    wide: dict[str, Any] = {} if left.dtype == out.dtype else {"out_dtype": out.dtype}
    if add:
        torch.addmm(out, left, right, out=out, **wide)
    else:
        torch.mm(left, right, out=out, **wide)
