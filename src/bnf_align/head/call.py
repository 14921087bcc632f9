"""What a forward pass shall make of its hidden states: log-probabilities, or the loss of a micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from bnf_align.head.fused import fused_logps, fused_loss
from bnf_align.head.tiles import Scores, Slopes
from bnf_align.losses import CompletionLogps


class Head(NamedTuple):
    """The LM head of a model: logits = cap(scale (h W^T + b))."""

    weight: Tensor
    bias: Tensor | None
    softcap: float | None
    scale: float | None


class HeadCall:
    """Goes into `model(..., head_call=call)` with what a loss needs and comes out with float32 log-probabilities.

    The forward pass returns what carries the graph: the loss, or without `loss` the (B, T) log-probabilities. An
    object that no tree-map can open, because FSDP2 rounds tensors that cross a module's boundary to bfloat16: neither
    the reference nor the log-probabilities may do that, so every loss, pairwise too, is computed inside.

    Args:
        batch: `input_ids` (B, T), `completion_mask` (B, T) bool and, where the loss needs it, `ref_logps` (B, T)
            float32, on the model's device. Where responses are packed, `input_ids` are (1, N) and `starts` (B,) says
            where in that row each response begins.
        loss: The loss as a scalar that already holds its divisor; label, hyper-parameters and whatever else it needs
            are its own. It may be called several times in one forward pass and must change nothing.
        separable: The derivative of the loss with respect to a token's log-probability depends on that token's own
            log-probability alone. The gradient is then formed in the forward pass.
        entropy: Bring back the entropy too; meant for evaluation, it costs `separable` its saving.
        logits: Bring back each token's own logit too; the same holds.

    Attributes:
        completions: Log-probabilities (B, T) without graph, mask and reference, after the forward pass.
        entropy: (B, T) entropy in nats, where asked for, after the forward pass; 0 where not scored.
        logits: (B, T) the token's own logit, as the softmax takes it, where asked for; 0 where not scored.

    Raises:
        ValueError: If a first token is scored, which nothing predicts.
    """

    completions: CompletionLogps
    entropy: Tensor
    logits: Tensor

    def __init__(
        self,
        batch: Mapping[str, Tensor],
        loss: Callable[[CompletionLogps], Tensor] | None = None,
        *,
        separable: bool = False,
        entropy: bool = False,
        logits: bool = False,
    ) -> None:
        self.mask, self.ref_logps = batch["completion_mask"], batch.get("ref_logps")
        if self.mask[:, 0].any():
            raise ValueError("Position 0 is scored, but nothing precedes it that could predict it.")
        self.loss, self.separable, self.wants_entropy, self.wants_logits = loss, separable, entropy, logits
        self.scored = self.mask.flatten().nonzero()[:, 0]
        self.positions = self.scored  # in what the model sees
        if "starts" in batch:
            columns = self.mask.shape[1]
            self.positions = batch["starts"][self.scored // columns] + self.scored % columns
        self.targets = batch["input_ids"].flatten()[self.positions]

    def through_head(self, hidden: Tensor, head: Head) -> Tensor:
        """The answer from hidden states (B, T, H), or (1, N, H) where responses are packed, without logits."""
        h = self._predicting(hidden)
        plain = not (self.wants_entropy or self.wants_logits)
        if self.loss is not None and self.separable and plain and torch.is_grad_enabled():
            loss, logps = fused_loss(h, targets=self.targets, slopes=self._slopes(h), **head._asdict())
            self.completions = self._completions(self._placed(logps))
            return loss
        return self._answer(fused_logps(h, targets=self.targets, entropy=self.wants_entropy, **head._asdict()))

    def through_logits(self, logits: Tensor) -> Tensor:
        """The answer from the model's own logits (B, T, V) or (1, N, V)."""
        scored = self._predicting(logits)
        log_probs = scored.to(torch.promote_types(scored.dtype, torch.float32)).log_softmax(-1)
        entropy = torch.special.entr(log_probs.detach().exp()).sum(-1) if self.wants_entropy else None
        logps, own = (values.gather(1, self.targets[:, None])[:, 0] for values in (log_probs, scored.detach()))
        return self._answer(Scores(logps, own.to(logps.dtype), entropy))

    def _predicting(self, values: Tensor) -> Tensor:
        """The rows of `values` that predict the scored tokens: the one shift. No response begins with a scored one."""
        return values.flatten(0, 1).index_select(0, self.positions - 1)

    def _placed(self, values: Tensor) -> Tensor:
        """(B, T) with `values` (N,) where tokens are scored and 0 elsewhere."""
        return values.new_zeros(self.mask.shape).masked_scatter(self.mask, values)

    def _completions(self, logps: Tensor) -> CompletionLogps:
        return CompletionLogps(logps, self.mask, self.ref_logps)

    def _answer(self, scores: Scores) -> Tensor:
        logps = self._placed(scores.logps)
        self.completions = self._completions(logps.detach())
        if scores.entropy is not None:
            self.entropy = self._placed(scores.entropy)
        if self.wants_logits:
            self.logits = self._placed(scores.logits)
        return logps if self.loss is None else self.loss(self._completions(logps))

    def _slopes(self, hidden: Tensor) -> Slopes:
        """The derivative of the loss, by autograd over the (B, T) log-probabilities, tile by tile.

        Those of later tiles are still unknown when a tile asks: that is what `separable` makes harmless.
        """
        loss = self.loss
        assert loss is not None
        known = hidden.new_zeros(self.mask.numel(), dtype=torch.promote_types(hidden.dtype, torch.float32))

        def slopes(start: int, stop: int, logps: Tensor) -> Tensor:
            tokens = self.scored[start:stop]
            known[tokens] = logps
            # Checkpointing around the model would take this little graph for its own and run the model again for it.
            with torch.enable_grad(), saved_tensors_hooks(_as_it_is, _as_it_is):
                leaf = known.detach().requires_grad_()
                value = loss(self._completions(leaf.view_as(self.mask)))
            return torch.autograd.grad(value, leaf)[0][tokens]

        return slopes


def ask(model: torch.nn.Module, batch: Mapping[str, Tensor], call: HeadCall) -> Tensor:
    """The answer of `model`, wrapped or not, to `call`: the forward pass of training and of the reference."""
    answer: Tensor = model(**inputs_of(batch), head_call=call)
    return answer


def inputs_of(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the model sees of `batch`: rows with their padding mask; or packed responses with their positions.

    Given a mask, transformers would not look for the places where positions start again, and responses would see each
    other.
    """
    return {name: batch[name] for name in ("input_ids", "position_ids" if "starts" in batch else "attention_mask")}


def _as_it_is(saved: Tensor) -> Tensor:
    return saved
