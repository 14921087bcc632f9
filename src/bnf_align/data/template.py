"""What a tokenizer's chat template does with a conversation: found by rendering, never by model name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from bnf_align.data.messages import Message

PROBE = "zebra"


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
    except (TemplateError, TypeError) as error:  # TypeError: what Jinja says of text + None or text + list
        raise TemplateRefusal(str(error)) from error
    return list(encoded["input_ids"])


def end_token_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token a finished answer ends with: the template's end of turn, or EOS where there is no template.

    Gemma ends a turn with `<end_of_turn>` and Llama 3 with `<|eot_id|>`; neither is what `eos_token` need say.
    """
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": PROBE}]
        try:
            tail = str(tokenizer.apply_chat_template(turns, tokenize=False)).rpartition(PROBE)[2]
        except (TemplateError, TypeError):
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
    except (TemplateError, TypeError):
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
    if ids == others[: len(ids)]:
        return len(ids)
    return next(i for i, (one, other) in enumerate(zip([*ids, None], [*others, None], strict=False)) if one != other)


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
