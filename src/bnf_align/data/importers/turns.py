"""Conversations in the spellings of other products as TRL's messages: role and content.

Read are OpenAI's messages, ShareGPT's from and value (LLaMA-Factory, FastChat), LangChain's type and content, with or
without the envelope of its serialisation, and the content parts of OpenAI's and Anthropic's APIs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bnf_align.data.importers.files import unpacked
from bnf_align.data.importers.importer import Message, Pair
from bnf_align.data.importers.shape import dicts
from bnf_align.records import DataReport

ROLES = {
    "human": "user",
    "HumanMessage": "user",
    "HumanMessageChunk": "user",
    "gpt": "assistant",
    "ai": "assistant",
    "model": "assistant",
    "AIMessage": "assistant",
    "AIMessageChunk": "assistant",
    "developer": "system",
    "SystemMessage": "system",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "ToolMessage": "tool",
    "FunctionMessage": "tool",
}
"""Role of a source -> ours; one that is in neither stays as it is, and training asks for `--role_map`."""

CALLS = ("function_call", "tool_call")
TEXTS = ("text", "input_text", "output_text")
THOUGHTS = ("thinking", "redacted_thinking", "reasoning")


def user(text: str) -> Message:
    """A user turn."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """An assistant turn."""
    return {"role": "assistant", "content": text}


def messages(value: Any) -> list[Message] | None:
    """A conversation, or None for what is none.

    Example:
        >>> messages([{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}])
        [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]
    """
    value = unpacked(value)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]  # LangChain calls a model with a batch of conversations
    if not isinstance(value, list) or not value:
        return None
    turns = []
    for part in value:
        turn = message(part)
        if turn is None:
            return None
        turns.append(turn)
    return turns


def message(value: Any) -> Message | None:
    """One turn, or None for what is none."""
    if not isinstance(value, dict):
        return None
    role, body = _opened(value)
    content = body.get("content", body.get("value"))
    if not isinstance(role, str) or not {"content", "value", "tool_calls"} & body.keys():
        return None
    if role in CALLS:
        calls = _called(content)
        return None if calls is None else {"role": "assistant", "tool_calls": calls}
    turn: Message = {"role": ROLES.get(role, role)}
    if content is not None:
        turn["content"] = _parts(content) if isinstance(content, list) else content
    if calls := [_call(call) for call in dicts(body.get("tool_calls"))]:
        turn["tool_calls"] = calls
    return turn | {name: body[name] for name in ("name", "tool_call_id") if body.get(name)}


def _opened(value: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Role and body of a turn, out of LangChain's envelopes where it lies in one."""
    if isinstance(value.get("kwargs"), dict) and isinstance(value.get("id"), list) and value["id"]:
        return value["kwargs"].get("type") or value["id"][-1], value["kwargs"]
    if isinstance(value.get("data"), dict) and "type" in value:
        return value["type"], value["data"]
    return next((value[name] for name in ("role", "from", "type") if value.get(name)), None), value


def _parts(content: list[Any]) -> list[Any]:
    """Content parts with text named as text, and without what the model only thought."""
    parts: list[Any] = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if isinstance(part, str) or kind in TEXTS:
            parts.append({"type": "text", "text": part if isinstance(part, str) else part.get("text")})
        elif kind not in THOUGHTS:
            parts.append(part)
    return parts


def _call(call: dict[str, Any]) -> Message:
    """A tool call as the chat templates read it; LangChain writes `args` and no `function`."""
    if "function" in call or "args" not in call:
        return call
    function = {"name": call.get("name"), "arguments": call["args"]}
    return {"type": "function", "id": call.get("id"), "function": function}


def _called(content: Any) -> list[Message] | None:
    """The calls in a turn that is nothing but calls, as ShareGPT and ms-swift write them: JSON text."""
    try:
        calls = json.loads(content) if isinstance(content, str) else content
    except (ValueError, RecursionError):
        return None
    calls = calls if isinstance(calls, list) else [calls]
    if not calls or not all(isinstance(call, dict) and {"name", "arguments"} <= call.keys() for call in calls):
        return None
    return [{"type": "function", "function": {name: call[name] for name in ("name", "arguments")}} for call in calls]


def asked(*texts: Any, system: Any = None, history: Any = None) -> list[Message] | None:
    """A question as a conversation: what was set and said before it, and its texts, one a line; None without any."""
    said = [text for text in texts if isinstance(text, str) and text]
    if not said:
        return None
    before = [{"role": "system", "content": system}] if isinstance(system, str) and system else []
    for turn in history if isinstance(history, list) else []:
        if not isinstance(turn, list | tuple) or len(turn) != 2:
            return None
        before += [user(turn[0]), assistant(turn[1])]
    return [*before, user("\n".join(said))]


def with_system(turns: list[Message], system: Any) -> list[Message]:
    """A conversation with a system prompt that stands beside it, unless it begins with one of its own."""
    if not isinstance(system, str) or not system or (turns and turns[0]["role"] == "system"):
        return turns
    return [{"role": "system", "content": system}, *turns]


def ending(value: Any) -> tuple[list[Message], list[Message]] | None:
    """An answer, and the turns before it where it is the end of a whole conversation; None for what is no answer."""
    turns = messages([value] if isinstance(value, dict) else value)
    if isinstance(value, str) and turns is None:  # text, which may be a JSON object or list without being turns
        return [], [assistant(value)]
    return (turns[:-1], turns[-1:]) if turns and turns[-1]["role"] == "assistant" else None


def choice(
    row: int, prompt: Sequence[Message] | None, chosen: Any, rejected: Any, extras: dict[str, Any], report: DataReport
) -> Pair | None:
    """A pair from two answers, each a text, a turn, or a conversation that ends in it; None, and counted, from others.

    Args:
        row: The record's number.
        prompt: The turns before the answers, where they stand on their own.
        chosen: The better answer.
        rejected: The worse one.
        extras: Columns that travel along.
        report: Where a record that makes no pair is counted.
    """
    better, worse = ending(chosen), ending(rejected)
    if better is None or worse is None:
        report.drop("chosen or rejected is missing, or is no answer", row)
        return None
    before = list(prompt or [])
    if len(better[0]) > len(before):  # the conversation in the answer is the whole one; it may lack the system prompt
        before = with_system(better[0], before[0].get("content") if before and before[0]["role"] == "system" else None)
    if (better[0] and worse[0] and better[0] != worse[0]) or not before:
        report.drop("chosen and rejected do not answer one prompt", row)
        return None
    return Pair(row, before, better[1], worse[1], extras)
