"""One checked row as token ids, with which of them are scored; not yet cut.

The ids are those of TRL's KTO trainer (`tokenize_fn` in trl 1.16, kto_trainer.py), but for three things it leaves as
they come: only the assistant's turns of an answer of several turns are scored, a doubled BOS is left out, and the very
first token is never scored.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from bnf_align.data.messages import Message
from bnf_align.data.template import assistant_spans, render, shared_prefix
from bnf_align.records import PreferenceRow


class Encoded(NamedTuple):
    """One response before it is cut."""

    row: int
    label: bool
    ids: np.ndarray
    """(T,) int32, prompt and completion."""
    mask: np.ndarray
    """(T,) bool, True where a token is scored."""
    end: int
    """Position of the scored token that ends the answer; T where there is none."""
    lost: list[int]
    """Tokens at the end of the prompt, rendered alone, that are not there when the answer follows."""
    doubled: bool
    """Whether a second BOS at the start was left out."""


def is_chat(row: PreferenceRow) -> bool:
    """Whether a checked row holds messages rather than plain text."""
    return isinstance(row["prompt"], list)


def encode_row(row: PreferenceRow, tokenizer: PreTrainedTokenizerBase, chat_end: int | None) -> list[Encoded]:
    """The responses of a checked row, a pair's chosen one first.

    Args:
        row: A row of `preference_rows`.
        tokenizer: The model's.
        chat_end: `end_token_id(tokenizer)`, which ends the answers of conversational rows; EOS ends plain ones.

    Raises:
        TemplateRefusal: If the chat template raises on the row's messages.
    """
    answers = (
        ((row["chosen"], True), (row["rejected"], False)) if "chosen" in row else ((row["completion"], row["label"]),)
    )
    if is_chat(row):
        prompt = render(tokenizer, row["prompt"], row, generation=True)
        return [_chat_response(row, answer, label, prompt, tokenizer, chat_end) for answer, label in answers]
    prompt = tokenizer(text=row["prompt"])["input_ids"]
    return [_plain_response(row, answer, label, prompt, tokenizer) for answer, label in answers]


def _chat_response(
    row: PreferenceRow,
    answer: list[Message],
    label: bool,
    prompt: list[int],
    tokenizer: PreTrainedTokenizerBase,
    end: int | None,
) -> Encoded:
    messages = row["prompt"] + answer
    ids = render(tokenizer, messages, row)
    start = shared_prefix(prompt, ids)
    spans = [slice(start, len(ids))]
    if len(answer) > 1:
        spans = assistant_spans(tokenizer, messages, len(row["prompt"]), ids, row, end)
    return _response(row["row"], label, ids, spans, prompt[start:], end, tokenizer.bos_token_id)


def _plain_response(
    row: PreferenceRow, answer: str, label: bool, prompt: list[int], tokenizer: PreTrainedTokenizerBase
) -> Encoded:
    ended = answer if answer.endswith(tokenizer.eos_token) else answer + tokenizer.eos_token
    ids = tokenizer(text=row["prompt"] + ended)["input_ids"]
    start = shared_prefix(prompt, ids)
    return _response(
        row["row"],
        label,
        ids,
        [slice(start, len(ids))],
        prompt[start:],
        tokenizer.eos_token_id,
        tokenizer.bos_token_id,
    )


def _response(
    row: int, label: bool, ids: list[int], spans: list[slice], lost: list[int], end: int | None, bos: int | None
) -> Encoded:
    tokens = np.asarray(ids, dtype=np.int32)
    mask = np.zeros(len(ids), dtype=bool)
    for span in spans:
        mask[span] = True
    # A text that begins with BOS gets a second one from tokenizers that add it; models have never seen two.
    extra = max(next((i for i, token in enumerate(ids) if token != bos), 0) - 1, 0)
    tokens, mask = tokens[extra:], mask[extra:]
    mask[:1] = False  # nothing predicts the first token
    ends = np.flatnonzero(mask & (tokens == end))
    return Encoded(row, label, tokens, mask, int(ends[-1]) if len(ends) else len(tokens), lost, extra > 0)
