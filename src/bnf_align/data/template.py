"""What a tokenizer's chat template does with a conversation: found by rendering, never by model name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jinja2.exceptions import TemplateError

if TYPE_CHECKING:  # whoever has a tokenizer has imported it; checking rows needs none
    from transformers import PreTrainedTokenizerBase

Message = dict[str, Any]
PROBE = "zebra"
REFUSALS = (TemplateError, TypeError, ValueError, LookupError, AttributeError, RecursionError)
"""What Jinja, and Python within it, raise on a row: text + None, for instance, is a TypeError."""


class TemplateRefusal(ValueError):
    """The chat template raised on a conversation; the message is the template's own."""


def render(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], extras: Mapping[str, Any], *, generation: bool = False
) -> list[int]:
    """Token ids of a conversation, by the very call TRL's KTO makes (`tokenize_fn` of trl 1.16, kto_trainer.py).

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: At least one message.
        extras: The row's `tools` and `chat_template_kwargs`, as far as it has them.
        generation: Whether to open the assistant's turn at the end.

    Raises:
        TemplateRefusal: If the template raises, on roles that do not alternate for instance.
    """
    keywords = {"tools": extras.get("tools"), **extras.get("chat_template_kwargs", {})}
    if generation:
        keywords["add_generation_prompt"] = True
    try:
        encoded: Any = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True, **keywords)
    except REFUSALS as error:
        raise TemplateRefusal(str(error)) from error
    if not isinstance(encoded["input_ids"], list):
        raise TemplateRefusal("chat_template_kwargs asks for tensors")
    return list(encoded["input_ids"])


def end_token_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token a finished answer ends with: the template's end of turn, or EOS where there is no template.

    Gemma ends a turn with `<end_of_turn>` and Llama 3 with `<|eot_id|>`; neither is what `eos_token` need say.
    """
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": PROBE}]
        try:
            tail = str(tokenizer.apply_chat_template(turns, tokenize=False)).rpartition(PROBE)[2]
        except REFUSALS:
            tail = ""
        special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
        for token in tokenizer(tail, add_special_tokens=False)["input_ids"]:
            if token in special:
                return int(token)
    return tokenizer.eos_token_id


def takes_system(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a system message reaches the prompt: Gemma 2 raises on one, other templates leave it out unsaid."""
    turns = [{"role": "system", "content": PROBE}, {"role": "user", "content": "Hi"}]
    try:
        return PROBE in str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except REFUSALS:
        return False


def merge_system(messages: Sequence[Message]) -> list[Message]:
    """The conversation with the text of its leading system messages put before the first user turn's."""
    first = next((i for i, message in enumerate(messages) if message["role"] != "system"), len(messages))
    if first == 0:
        return list(messages)
    system = "\n\n".join(message.get("content", "") for message in messages[:first])
    for i, message in enumerate(messages[first:], start=first):
        if message["role"] == "user":
            merged = {**message, "content": f"{system}\n\n{message.get('content', '')}"}
            return [*messages[first:i], merged, *messages[i + 1 :]]
    return [{"role": "user", "content": system}, *messages[first:]]


def shared_prefix(ids: Sequence[Any], others: Sequence[Any]) -> int:
    """Number of tokens (or messages, or characters) two sequences begin with in common."""
    same, differ = 0, min(len(ids), len(others))
    if ids[:differ] == others[:differ]:
        return differ
    while differ - same > 1:  # by halves, whose comparison is C's
        middle = (same + differ) // 2
        if ids[same:middle] == others[same:middle]:
            same = middle
        else:
            differ = middle
    return same


def assistant_spans(
    tokenizer: PreTrainedTokenizerBase,
    messages: list[Message],
    first: int,
    ids: list[int],
    extras: Mapping[str, Any],
    end: int | None,
) -> list[slice]:
    """Where in `ids` the assistant's turns of a completion of several turns lie, each with its end of turn.

    A turn starts where the conversation before it, with the assistant's turn opened, stops agreeing with the whole,
    and ends where the conversation up to it does. Some templates write an old turn otherwise than a last one (Qwen3
    drops its reasoning): then the two part early, and the turn ends with its end token.

    Args:
        tokenizer: A tokenizer with a chat template.
        messages: The whole conversation.
        first: Number of prompt messages; the completion is the rest.
        ids: The rendered conversation.
        extras: The row's `tools` and `chat_template_kwargs`.
        end: `end_token_id(tokenizer)`.
    """
    spans = []
    for turn in range(first, len(messages)):
        if messages[turn]["role"] != "assistant":
            continue
        start = shared_prefix(render(tokenizer, messages[:turn], extras, generation=True), ids)
        if turn == len(messages) - 1:
            spans.append(slice(start, len(ids)))
            continue
        through = render(tokenizer, messages[: turn + 1], extras)
        stop = shared_prefix(through, ids)
        if stop < len(through) and end in ids[start:]:
            stop = ids.index(end, start) + 1
        spans.append(slice(start, stop))
    return spans
