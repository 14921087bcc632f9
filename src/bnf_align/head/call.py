"""What a forward pass shall make of its hidden states: log-probabilities, or the loss of a micro-batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from bnf_align.head.chunked_lm_head import Head, Scores, fused_logps, fused_loss
from bnf_align.losses import CompletionLogps, Tokens, TokenWeights


class HeadCall:
    """Goes into `model(..., head_call=call)` with what a loss needs and comes out with float32 log-probabilities.

    The forward pass returns what carries the graph: the loss, or without one the (B, T) log-probabilities. An object
    that no tree-map can open, because FSDP2 rounds tensors that cross a module's boundary to bfloat16: neither the
    reference nor the log-probabilities may do that, so every loss, pairwise too, is computed inside.

    Args:
        batch: `input_ids` (B, T), `completion_mask` (B, T) bool and, where the loss needs them, `ref_logps` (B, T)
            float32 and `label` (B,) bool. Where responses are packed, `input_ids` are (1, N) and `starts` (B,) says
            where in that row each response begins. Give it as it is before it moves to the device: where the scored
            tokens stand is looked up here, and nothing afterwards asks the device for a value and waits.
        loss: The loss as a scalar that already holds its divisor; label, hyper-parameters and whatever else it needs
            are its own.
        token_weights: Of a separable loss instead of it: the scalar is the sum of weight times log-probability over
            all tokens, so the weights already hold its divisor. The gradient is formed in the forward pass.
        entropy: Bring back the entropy too; meant for evaluation, it costs `token_weights` their saving.
        logits: Bring back each token's own logit too; the same holds.
        device: The model's; that of the batch if None.

    Attributes:
        completions: Log-probabilities (B, T) without graph, mask and reference, after the forward pass.
        entropy: (B, T) entropy in nats, where asked for, after the forward pass; 0 where not scored.
        logits: (B, T) the token's own logit, as the softmax takes it, where asked for; 0 where not scored.

    Raises:
        ValueError: If a first token is scored, which nothing predicts; or for both a loss and token weights.
    """

    completions: CompletionLogps
    entropy: Tensor
    logits: Tensor

    def __init__(
        self,
        batch: Mapping[str, Tensor],
        loss: Callable[[CompletionLogps], Tensor] | None = None,
        *,
        token_weights: TokenWeights | None = None,
        entropy: bool = False,
        logits: bool = False,
        device: torch.device | None = None,
    ) -> None:
        if loss is not None and token_weights is not None:
            raise ValueError("A call takes a loss or the token weights of one, not both.")
        self.loss, self.token_weights, self.wants_entropy, self.wants_logits = loss, token_weights, entropy, logits
        mask, ref_logps = batch["completion_mask"], batch.get("ref_logps")
        if mask[:, 0].any():
            raise ValueError("Position 0 is scored, but nothing precedes it that could predict it.")
        scored = mask.flatten().nonzero()[:, 0]
        row, column = scored // mask.shape[1], scored % mask.shape[1]
        positions = batch["starts"][row] + column if "starts" in batch else scored  # in what the model sees

        def there(values: Any) -> Any:
            return values if device is None or values is None else values.to(device, non_blocking=True)

        self.mask, self.ref_logps, self.scored = there(mask), there(ref_logps), there(scored)
        self.positions, self.targets = there(positions), there(batch["input_ids"].flatten()[positions])
        if token_weights is not None:
            self.label, self.length = there(batch["label"][row]), there(mask.sum(-1)[row])
            self.token_ref_logps = None if ref_logps is None else there(ref_logps.flatten()[scored])

    def through_head(self, hidden: Tensor, head: Head) -> Tensor:
        """The answer from hidden states (B, T, H), or (1, N, H) where responses are packed, without logits."""
        h = self._predicting(hidden)
        plain = not (self.wants_entropy or self.wants_logits)
        if self.token_weights is not None and plain and torch.is_grad_enabled():
            loss, logps = fused_loss(h, head, self.targets, self._weights)
            self.completions = CompletionLogps(self._placed(logps), self.mask, self.ref_logps)
            return loss
        return self._answer(fused_logps(h, head, self.targets, entropy=self.wants_entropy))

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
        return values.new_zeros(self.mask.numel()).index_copy(0, self.scored, values).view_as(self.mask)

    def _weights(self, part: slice, logps: Tensor) -> Tensor:
        """The weights of the scored tokens `part` (n,), from their log-probabilities."""
        assert self.token_weights is not None
        ref_logps = None if self.token_ref_logps is None else self.token_ref_logps[part]
        return self.token_weights(Tokens(logps, ref_logps, self.label[part], self.length[part]))

    def _answer(self, scores: Scores) -> Tensor:
        logps = self._placed(scores.logps)
        self.completions = CompletionLogps(logps.detach(), self.mask, self.ref_logps)
        if scores.entropy is not None:
            self.entropy = self._placed(scores.entropy)
        if self.wants_logits:
            self.logits = self._placed(scores.logits)
        if self.token_weights is not None:
            return (self._weights(slice(None), scores.logps.detach()) * scores.logps).sum()
        return logps if self.loss is None else self.loss(CompletionLogps(logps, self.mask, self.ref_logps))


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
