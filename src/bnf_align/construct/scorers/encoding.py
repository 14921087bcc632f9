"""A prompt and a candidate as the token ids that a classifier reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from bnf_align.data.template import Message, TemplateRefusal, merge_system, render, shared_prefix, takes_system
from bnf_align.records import BadInput

Ids = np.ndarray
"""(tokens,) int32: a list of Python's integers takes nine times the memory, and all texts of a job are held."""


class Text(NamedTuple):
    """A prompt with one candidate."""

    ids: Ids
    prompt_tokens: int
    """Tokens before the candidate's turn; what a cut has left of them."""
    cut: bool
    """Whether the prompt lost its beginning."""

    @property
    def length(self) -> int:
        """In tokens."""
        return len(self.ids)


class Encoder:
    """Texts as the model was trained on them: its chat template, or else the two halves of a sentence pair.

    A text that is too long loses the beginning of its prompt (not BOS): the candidate is what the score is about, and
    a decoder reads its score at the very end.

    Args:
        tokenizer: The model's.
        max_length: Tokens of prompt and candidate.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.tokenizer, self.max_length = tokenizer, min(max_length, tokenizer.model_max_length)
        tokenizer.truncation_side = "left"
        self._merges_system = bool(tokenizer.chat_template) and not takes_system(tokenizer)

    def __call__(self, name: str, prompt: str | list[Message], candidate: str) -> Text | None:
        """The text; None where the candidate alone is too long.

        Args:
            name: The row's, for messages.
            prompt: Messages, or a text, which to a chat model is a user's turn.
            candidate: An answer.

        Raises:
            BadInput: If a conversation cannot be written.
        """
        if self.tokenizer.chat_template:
            turns = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
            return self._conversation(name, turns, candidate)
        if isinstance(prompt, list):
            raise BadInput(
                f"{name}: the prompt is a conversation, and the scorer's tokenizer has no chat template to write it "
                "with. Take a chat model's scorer, or prompts that are texts."
            )
        return self._pair(prompt, candidate)

    def _conversation(self, name: str, prompt: list[Message], candidate: str) -> Text | None:
        prompt = merge_system(prompt) if self._merges_system else prompt
        try:
            ids = render(self.tokenizer, [*prompt, {"role": "assistant", "content": candidate}], {})
            before = shared_prefix(render(self.tokenizer, prompt, {}), ids)
        except TemplateRefusal as refusal:
            raise BadInput(f"{name}: the scorer's chat template refuses the conversation: {refusal}") from refusal
        # A prompt that begins with BOS as text gets a second one from the template; models have never seen two.
        bos = self.tokenizer.bos_token_id
        doubled = bos is not None and ids[:2] == [bos] * 2
        return self._cut(ids[1:] if doubled else ids, before - doubled)

    def _pair(self, prompt: str, candidate: str) -> Text | None:
        if self.tokenizer.sep_token is None:  # a decoder's: the candidate goes on where the prompt ends
            ids = self.tokenizer(prompt + candidate)["input_ids"]
            return self._cut(ids, shared_prefix(self.tokenizer(prompt)["input_ids"], ids))
        specials = self.tokenizer.num_special_tokens_to_add(pair=True)
        sides = [self.tokenizer(side, add_special_tokens=False)["input_ids"] for side in (prompt, candidate)]
        if specials + len(sides[1]) >= self.max_length:
            return None
        cutting: dict[str, Any] = {"truncation": "only_first", "max_length": self.max_length}
        ids = self.tokenizer(prompt, candidate, **cutting)["input_ids"]
        cut = specials + sum(map(len, sides)) > self.max_length
        return Text(np.asarray(ids, np.int32), len(ids) - len(sides[1]), cut)

    def _cut(self, ids: list[int], prompt_tokens: int) -> Text | None:
        over = len(ids) - self.max_length
        if over <= 0:
            return Text(np.asarray(ids, np.int32), prompt_tokens, False)
        head = int(ids[0] == self.tokenizer.bos_token_id)
        if prompt_tokens - head <= over:
            return None
        return Text(np.asarray(ids[:head] + ids[head + over :], np.int32), prompt_tokens - over, True)


def padded(rows: Sequence[Ids], pad: int, device: torch.device, left: bool = False) -> tuple[Tensor, Tensor]:
    """(rows, tokens) token ids and attention mask."""
    longest = max(map(len, rows))
    ids, mask = torch.full((len(rows), longest), pad), torch.zeros(len(rows), longest, dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(longest - len(row), None) if left else slice(len(row))
        ids[number, place], mask[number, place] = torch.from_numpy(row).long(), 1
    return ids.to(device), mask.to(device)
