"""Completions for the tests of the maths: a random batch with its logits, and a pair small enough to work by hand."""

from typing import NamedTuple

import torch
from torch import Tensor

from bnf_align.losses import CompletionLogps


def token_logps(logits: Tensor, tokens: Tensor) -> Tensor:
    """(B, T) log-probability of `tokens`, raised to float32 before the softmax as `logps` does it."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits.log_softmax(-1).gather(-1, tokens.unsqueeze(-1)).squeeze(-1)


class Batch(NamedTuple):
    logits: Tensor
    ref_logits: Tensor
    tokens: Tensor
    mask: Tensor
    label: Tensor

    def completions(self) -> CompletionLogps:
        logps, ref_logps = (token_logps(z, self.tokens) for z in (self.logits, self.ref_logits))
        return CompletionLogps(logps, self.mask, ref_logps)

    def gradient(self, loss: Tensor) -> Tensor:
        return torch.autograd.grad(loss.sum(), self.logits, retain_graph=True)[0]


def random_batch(dtype: torch.dtype = torch.float64) -> Batch:
    """Eight completions of 1 to 6 tokens behind prompts of 1 to 3, above and below the reference, of both labels."""
    torch.manual_seed(0)
    logits = 3 * torch.randn(8, 9, 13, dtype=dtype)
    prompt, length = torch.tensor([1, 2, 3, 1, 2, 3, 1, 2]), torch.tensor([6, 3, 5, 2, 4, 6, 1, 5])
    position = torch.arange(9)
    mask = (position >= prompt[:, None]) & (position < (prompt + length)[:, None])
    tokens = torch.randint(13, (8, 9))
    ref_logits = logits + 1.5 * torch.randn_like(logits)
    return Batch(logits.requires_grad_(), ref_logits, tokens, mask, torch.tensor([True, False, False, True] * 2))


# Chosen: pi = 1/2, 1/4 under r = 1/4, 1/4. Rejected: pi = 1/10 under r = 1/5. The log-ratios are ln 2 and -ln 2.
CHOSEN = CompletionLogps(
    torch.tensor([[0.5, 0.25]], dtype=torch.float64).log(),
    torch.tensor([[True, True]]),
    torch.tensor([[0.25, 0.25]], dtype=torch.float64).log(),
)
REJECTED = CompletionLogps(
    torch.tensor([[0.1, 0.9]], dtype=torch.float64).log(),
    torch.tensor([[True, False]]),
    torch.tensor([[0.2, 0.9]], dtype=torch.float64).log(),
)
