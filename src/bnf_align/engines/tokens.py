"""From a request to the token ids of its prompt, and from a draft's token ids to its end and its text."""

from __future__ import annotations

from collections.abc import Iterable

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bnf_align.data.template import TemplateRefusal, end_token_id, render, template_facts
from bnf_align.engines.decoding import Draft
from bnf_align.engines.request import Request
from bnf_align.records import BadInput

JOINT = 8
"""Tokens at the end of a plain prompt that its continuation is decoded with."""


def prompt_ids(request: Request, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a prompt, with one BOS where the chat template or the tokenizer puts any.

    Raises:
        BadInput: If the chat template is missing or raises, or nothing is left of the prompt.
    """
    if isinstance(request.prompt, str):
        ids = list(tokenizer(request.prompt)["input_ids"])
    elif tokenizer.chat_template is None:
        raise BadInput(
            f"{request.id}: the prompt is a conversation, and the tokenizer has no chat template to write it with. "
            "Take a chat model, or its tokenizer."
        )
    else:
        try:
            ids = render(tokenizer, request.prompt, {}, generation=True)
        except TemplateRefusal as refusal:
            raise BadInput(f"{request.id}: the chat template refuses the conversation: {refusal}") from refusal
    if not ids:
        raise BadInput(f"{request.id}: the prompt is empty, and the tokenizer begins a text with nothing.")
    # A text that begins with BOS gets a second one from tokenizers that add it; models have never seen two.
    return ids[1:] if ids[:2] == [tokenizer.bos_token_id] * 2 else ids


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token that ends an answer: the model's own list, the tokenizer's EOS, and the template's end of turn.

    A base model that was trained on a chat template knows the last one only from training: its `generation_config`
    still names the old EOS alone.
    """
    own = getattr(model.generation_config, "eos_token_id", None)
    named = own if isinstance(own, list) else [own]
    after_call = template_facts(tokenizer).after_call if tokenizer.chat_template else None
    ends = (*named, tokenizer.eos_token_id, end_token_id(tokenizer), after_call)
    return frozenset(token for token in ends if token is not None)


class Ending:
    """When a draft has ended, by a token of `ends` or a text of `stop`, which is no part of it, and what it says."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ends: Iterable[int], stop: Iterable[str]) -> None:
        self._tokenizer = tokenizer
        # A special token given as text would never appear in one: texts are decoded without them.
        special = tokenizer.get_added_vocab()
        self._ends = {*ends, *(special[text] for text in stop if text in special)}
        self._stop = [text for text in stop if text and text not in special]
        # A token has at least one byte, so a stop text that the last token ends lies within as many tokens as it has
        # bytes. The others are for tokens without text, and for the space that some tokenizers drop at a beginning.
        self._window = max((len(text.encode()) for text in self._stop), default=0) + JOINT

    def finish_reason(self, draft: Draft) -> str | None:
        """Why the draft has ended, asked after each token: "stop", "length", or None where it goes on."""
        if draft.tokens[-1] in self._ends:
            return "stop"
        tail = self._decode(draft.tokens[-self._window :]) if self._stop else ""
        if any(text in tail for text in self._stop) and self._cut(self._written(draft)) is not None:
            return "stop"
        return "length" if len(draft.tokens) >= draft.limit else None

    def text(self, draft: Draft) -> str:
        """What a draft says, without its end token and up to its first stop text."""
        written = self._written(draft)
        cut = self._cut(written)
        return written if cut is None else written[:cut]

    def _cut(self, text: str) -> int | None:
        return min((at for stop in self._stop if (at := text.find(stop)) >= 0), default=None)

    def _written(self, draft: Draft) -> str:
        tokens = draft.tokens[: -1 if draft.tokens[-1] in self._ends else None]
        # Decoded alone, the continuation of a text would lose the space it begins with (SentencePiece, word level).
        before = self._decode(draft.joint)
        whole = self._decode(draft.joint + tokens)
        return whole[len(before) :] if whole.startswith(before) else self._decode(tokens)

    def _decode(self, tokens: list[int]) -> str:
        # Cleaning up would take spaces away that the model wrote.
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))
