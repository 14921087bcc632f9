"""A batch of prompts through a model, token by token; a row leaves the batch as soon as its text has ended.

The library's `generate` computes all rows until the last one ends, prefills each prompt once per sample, draws from
one random stream for the whole batch, and takes what it is not told from the model's `generation_config`. Here the
loop is our own, and cache, masks, attention and top-p are the library's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, TopPLogitsWarper

from bnf_align.engines.request import Sampling
from bnf_align.records import BadInput

PREFILL_TOKENS = 2**14
"""Prompt tokens, padding included, of one forward pass: bounds the memory of its activations."""


class Draft:
    """A text in the making, of at most `limit` tokens, drawn from a random stream of its own.

    `joint` is the end of the prompt where the text goes on from it, as a plain text does; empty for an answer.
    """

    def __init__(self, prompt: list[int], limit: int, seed: int, joint: list[int]) -> None:
        self.prompt, self.limit, self.joint = prompt, limit, joint
        self.random = np.random.default_rng(seed)
        self.tokens: list[int] = []
        self.finish_reason: str | None = None
        """None while it is in the making."""


@torch.no_grad()
def decode(
    model: PreTrainedModel, drafts: Sequence[Draft], sampling: Sampling, finish: Callable[[Draft], str | None]
) -> Iterator[None]:
    """Write `drafts` to their ends, a token of each at a time: comes back after each, and goes on when it is asked to.

    After each token of a draft `finish` gives its finish reason, or None where it goes on. `model` is in evaluation
    mode, without an adapter's wrapper. Drafts with the same prompt stand side by side, equally many of each; a prompt
    is read once for all of them.
    """
    prompts = [draft.prompt for draft in drafts]
    copies = next((i for i, prompt in enumerate(prompts) if prompt is not prompts[0]), len(prompts))
    rows = Rows(model, prompts[::copies])
    if copies > 1:
        rows.select([i // copies for i in range(len(drafts))])
    live = list(drafts)
    while True:
        tokens = next_tokens(rows.logits, sampling, live)
        for draft, token in zip(live, tokens.tolist(), strict=True):
            draft.tokens.append(token)
            draft.finish_reason = finish(draft)
        yield
        going = [row for row, draft in enumerate(live) if draft.finish_reason is None]
        if not going:
            return
        if len(going) < len(live):
            live = [live[row] for row in going]
            rows.select(going)
            tokens = tokens[going]
        rows.advance(tokens)


def next_tokens(logits: Tensor, sampling: Sampling, drafts: Sequence[Draft]) -> Tensor:
    """(rows,) next tokens for (rows, vocabulary) logits, each drawn from its draft's own random stream.

    By the inverse of the distribution function, one uniform number a token: `torch.multinomial` takes one for each
    word of the vocabulary, several times the work of a softmax, and from one stream for all rows.

    Raises:
        BadInput: If a row has no finite distribution.
    """
    scores = logits.float()
    if sampling.temperature == 0:
        best, tokens = scores.max(-1)
        _refuse_infinite(best)
        return tokens
    scores = scores / sampling.temperature
    if sampling.top_p < 1:
        scores = TopPLogitsWarper(sampling.top_p)(None, scores)  # it reads the scores alone
    # In float32 the tail of a large vocabulary would be lost in the rounding of a sum near 1. MPS has nothing wider.
    dtype = torch.float32 if scores.device.type == "mps" else torch.float64
    cumulative = scores.softmax(-1).cumsum(-1, dtype=dtype)
    total = cumulative[:, -1:]
    _refuse_infinite(total)
    points = torch.tensor([[draft.random.random()] for draft in drafts], dtype=dtype).to(scores.device)
    return torch.searchsorted(cumulative, points * total, right=True).squeeze(1).clamp(max=scores.shape[-1] - 1)


def _refuse_infinite(values: Tensor) -> None:
    if not torch.isfinite(values).all():
        raise BadInput(
            "The model's logits are infinite or not a number: its weights are broken, or overflow in this dtype. "
            "Load them in float32 or bfloat16."
        )


class Rows:
    """Rows of a batch under way: what the model keeps of them, and its logits for their next tokens.

    Raises:
        BadInput: If the model keeps no key-value cache that rows can be taken out of.
    """

    logits: Tensor
    """(rows, vocabulary)."""

    def __init__(self, model: PreTrainedModel, prompts: Sequence[list[int]]) -> None:
        self._model = model
        # The class is asked: an instance's forward may have been wrapped, by mixed precision for instance.
        self._accepted = inspect.signature(type(model).forward).parameters
        self._cache: Any = None
        longest = max(map(len, prompts))
        ids, mask = torch.zeros(2, len(prompts), longest, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            mask[row, longest - len(prompt) :] = 1
        ids, mask = ids.to(model.device), mask.to(model.device)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        # Without padding attention needs no mask, and has a faster way.
        self._mask: Tensor | None = None if bool(mask.all()) else mask
        width = max(1, PREFILL_TOKENS // len(prompts))
        for start in range(0, longest, width):
            part = slice(start, start + width)
            seen = None if self._mask is None else self._mask[:, : part.stop]
            self._forward(ids[:, part], positions[:, part], seen)
        self._last = positions[:, -1:]

    def select(self, rows: list[int]) -> None:
        """Keep these rows, in this order, one of them as often as it is named."""
        index = torch.tensor(rows, device=self.logits.device)
        self.logits, self._last = self.logits[index], self._last[index]
        if self._mask is not None:
            self._mask = self._mask[index]
        self._cache.reorder_cache(index)  # beam search's way to take rows: the one that every kind of layer has

    def advance(self, tokens: Tensor) -> None:
        """Append (rows,) tokens."""
        self._last = self._last + 1
        if self._mask is not None:
            self._mask = torch.cat([self._mask, torch.ones_like(self._last)], dim=1)
        self._forward(tokens[:, None], self._last, self._mask)

    def _forward(self, ids: Tensor, positions: Tensor, mask: Tensor | None) -> None:
        # Some models place tokens by the mask and take no positions, some cannot leave logits out.
        optional = {"position_ids": positions, "logits_to_keep": 1}
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=self._cache,
            use_cache=True,
            **{name: value for name, value in optional.items() if name in self._accepted},
        )
        self._cache, self.logits = getattr(output, "past_key_values", None), output.logits[:, -1]
        if not hasattr(self._cache, "reorder_cache"):
            raise BadInput(
                f"{type(self._model).__name__} keeps no key-value cache, which decoding in process needs. Serve the "
                "model and give the server's URL."
            )
