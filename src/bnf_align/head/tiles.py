r"""The one loop of the fused head: logits of a few rows at a time, and from them all that is wanted.

    z = cap(scale (h W^T + b)),    cap(z) = c tanh(z / c),    log p_j = z_j - log sum_k exp z_k

A loss L reaches the logits of token i through log p(y_i) alone, so with its slope s_i = dL / d log p(y_i)

    dL / dz_ij = s_i (1[j = y_i] - p_ij),

which for Bidirectional Negative Feedback, s_i = -label(y)/|y| w_i, is Eq. 8 of the paper. A tile of logits becomes
this gradient in place and is multiplied into dL/dh and dL/dW before the next tile takes its memory.

Shapes: N tokens, H hidden, V vocabulary, n rows of a tile. Nothing between a matmul and a slope is below float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

Slopes = Callable[[int, int, Tensor], Tensor]
"""`slopes(start, stop, logps)`: dL / dlogp of tokens start:stop, (n,), from their log-probabilities (n,)."""

CPU_TILE_BYTES = 64 * 2**20
DEVICE_TILE_BYTES = 512 * 2**20
"""Default size of a tile. All of dL/dW is read and written once per tile, so tiles grow with the speed of matmuls."""


class Scores(NamedTuple):
    """What the head says of N tokens; float32, or float64 for a float64 model."""

    logps: Tensor
    """(N,) log p(y_i), nats."""
    logits: Tensor
    """(N,) the token's own logit z_i(y_i), without graph."""
    entropy: Tensor | None = None
    """(N,) entropy of the distribution, nats, without graph; None unless asked for."""


@dataclass(frozen=True)
class Form:
    """How logits are formed: their cap c, their factor, what hidden states and weights are rounded to, the memory."""

    softcap: float | None
    scale: float | None
    dtype: torch.dtype
    tile_bytes: int | None = None

    @property
    def wide(self) -> torch.dtype:
        """The dtype of logits, log-probabilities and gradients in the making: at least float32."""
        return torch.promote_types(self.dtype, torch.float32)

    def operand(self, values: Tensor) -> Tensor:
        """`values` as the matmuls take them."""
        rounded = values.to(self.dtype)
        # Tensor cores multiply bfloat16 and sum in float32. Other devices would round the sums, but products of
        # bfloat16 are exact in float32.
        return rounded if values.is_cuda else rounded.to(self.wide)

    def rows(self, vocabulary: int, device: torch.device) -> int:
        """n: as many rows of logits as a tile holds, at least one."""
        tile_bytes = self.tile_bytes or (CPU_TILE_BYTES if device.type == "cpu" else DEVICE_TILE_BYTES)
        return max(1, tile_bytes // (vocabulary * self.wide.itemsize))


class Sweep(NamedTuple):
    """What one way through all tokens brought."""

    scores: Scores
    loss: Tensor
    """() sum_i s_i log p(y_i); 0 without slopes."""
    gradients: list[Tensor | None]
    """dL/dh (N, H), dL/dW (V, H) and dL/db (V,) in `Form.wide`; None for what was not wanted."""


def sweep(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    form: Form,
    *,
    slopes: Slopes | None = None,
    wanted: Sequence[bool] = (False, False, False),
    entropy: bool = False,
) -> Sweep:
    """Scores of N tokens, and with `slopes` the loss and the gradients that are wanted.

    Args:
        hidden: (N, H) hidden states that predict the targets.
        weight: (V, H) weight of the LM head.
        bias: (V,) bias of the LM head.
        targets: (N,) token ids.
        form: How logits are formed.
        slopes: The loss, as its derivative; called once per tile, in order.
        wanted: Which gradients to form: of hidden, weight, bias.
        entropy: Compute the entropy, which is not to be had together with gradients.
    """
    h, w = form.operand(hidden), form.operand(weight)
    rows = min(form.rows(len(w), w.device), max(1, len(h)))
    tile = Tile(rows, w, None if bias is None else form.operand(bias), form)
    empty = partial(torch.empty, len(h), dtype=form.wide, device=w.device)
    scores = Scores(empty(), empty(), empty() if entropy else None)
    gradients = [
        torch.zeros_like(values, dtype=form.wide) if values is not None and want else None
        for values, want in zip((hidden, weight, bias), wanted, strict=True)
    ]
    loss = torch.zeros((), dtype=form.wide, device=w.device)
    for start in range(0, len(h), rows):
        part = slice(start, min(start + rows, len(h)))
        z, y = tile.logits(h[part]), targets[part, None]
        own, logps, total = _exponentials(z, y)
        scores.logits[part], scores.logps[part] = own[:, 0], logps[:, 0]
        if scores.entropy is not None:
            scores.entropy[part] = total.log()[:, 0] + torch.special.entr(z, out=z).sum(1) / total[:, 0]
        if slopes is not None:
            s = slopes(part.start, part.stop, scores.logps[part])[:, None]
            loss += (s * logps).sum()
            if any(wanted):
                z.mul_(-s / total).scatter_add_(1, y, s)  # s (1[j = y] - p)
                _add_gradients(gradients, part, tile.through_cap(z), h[part], w)
    return Sweep(scores, loss, gradients)


def _exponentials(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Own logit and log-probability (n, 1) of tokens y (n, 1); logits z (n, V) become exp(z - max), its sum (n, 1)."""
    own, largest = z.gather(1, y), z.amax(1, keepdim=True)
    total = z.sub_(largest).exp_().sum(1, keepdim=True)
    return own, own - largest - total.log(), total


def _add_gradients(gradients: Sequence[Tensor | None], part: slice, g: Tensor, h: Tensor, w: Tensor) -> None:
    """Multiply g = dL / d(h W^T + b) (n, V) of the rows `part` into the gradients of hidden, weight and bias."""
    of_hidden, of_weight, of_bias = gradients
    if of_bias is not None:
        of_bias += g.sum(0)
    g = g.to(h.dtype)
    if of_hidden is not None:
        _matmul(g, w, out=of_hidden[part])
    if of_weight is not None:
        _matmul(g.t(), h, out=of_weight, add=True)


class Tile:
    """A buffer of (n, V) logits that is written again and again; with a cap a second one, for the cap's slope."""

    def __init__(self, rows: int, weight: Tensor, bias: Tensor | None, form: Form) -> None:
        self.weight, self.bias, self.form = weight, bias, form
        self.buffer = torch.empty(rows, len(weight), dtype=form.wide, device=weight.device)
        self.cap_slope = torch.empty_like(self.buffer if form.softcap is not None else self.buffer[:0])

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, V) logits of `hidden` (n, H), in the buffer."""
        logits = self.buffer[: len(hidden)]
        _matmul(hidden, self.weight.t(), out=logits)
        if self.bias is not None:
            logits += self.bias
        if self.form.scale is not None:
            logits *= self.form.scale
        if self.form.softcap is not None:
            logits.div_(self.form.softcap).tanh_()
            torch.square(logits, out=self.cap_slope[: len(hidden)]).neg_().add_(1)
            logits *= self.form.softcap
        return logits

    def through_cap(self, gradient: Tensor) -> Tensor:
        """(n, V) dL / d(h W^T + b) from dL / dz, both in the buffer."""
        if self.form.softcap is not None:
            gradient *= self.cap_slope[: len(gradient)]
        if self.form.scale is not None:
            gradient *= self.form.scale
        return gradient


def _matmul(left: Tensor, right: Tensor, out: Tensor, add: bool = False) -> None:
    """`out` = left @ right, or += with `add`; summed in the dtype of `out`."""
    wide: dict[str, Any] = {} if left.dtype == out.dtype else {"out_dtype": out.dtype}
    if add:
        torch.addmm(out, left, right, out=out, **wide)
    else:
        torch.mm(left, right, out=out, **wide)
