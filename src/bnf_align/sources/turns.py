"""Conversations in the spellings of other products as TRL's messages: role and content.

Read are OpenAI's messages, ShareGPT's from and value (LLaMA-Factory, FastChat), LangChain's type and content, with or
without the envelope of its serialisation, the content parts of OpenAI's and Anthropic's APIs, ms-swift's rounds, and
transcripts.
"""

from __future__ import annotations

import json
import re
from typing import Any

from bnf_align.sources.fields import dicts, inside
from bnf_align.sources.files import unpacked
from bnf_align.sources.source import Message

ROLES = {
    **dict.fromkeys(("human", "Human", "User", "prompter", "HumanMessage", "HumanMessageChunk"), "user"),
    **dict.fromkeys(("gpt", "ai", "model", "Assistant", "AIMessage", "AIMessageChunk"), "assistant"),
    **dict.fromkeys(("developer", "SystemMessage"), "system"),
    **dict.fromkeys(("function", "observation", "tool_response", "ToolMessage", "FunctionMessage"), "tool"),
}
"""Role of a source -> ours; one that is in neither stays as it is, and training asks for `--role_map`."""

CALLS = ("function_call", "tool_call")
TEXTS = ("text", "input_text", "output_text")
THOUGHTS = ("thinking", "redacted_thinking", "reasoning")
HH_TURN = re.compile(r"\n\n(Human|Assistant):")
EXTRA_ID_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")
"""Between the turns of a prompt of HelpSteer, whose first one is the user's."""


def user(text: Any) -> Message:
    """A user turn."""
    return {"role": "user", "content": text}


def assistant(text: Any) -> Message:
    """An assistant turn."""
    return {"role": "assistant", "content": text}


def messages(value: Any) -> list[Message] | None:
    """A conversation, or None for what is none.

    Example:
        >>> messages([{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}])
        [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]
    """
    value = [value] if isinstance(value, dict) else unpacked(value)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]  # LangChain calls a model with a batch of conversations
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(part, dict) and {"human", "assistant"} <= part.keys() for part in value):
        return [turn for part in value for turn in (user(part["human"]), assistant(part["assistant"]))]
    turns = [turn for part in value if (turn := message(part)) is not None]
    return turns if len(turns) == len(value) else None


def messages_in(text: str) -> list[Message] | None:
    """The conversation in a text that is JSON of one; None for any other text, which may be JSON of something else."""
    value = unpacked(text)
    parts = dicts(value if isinstance(value, list) else [value])
    return messages(value) if parts and all("role" in part or "from" in part for part in parts) else None


def message(value: Any) -> Message | None:
    """One turn, or None for what is none."""
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("message"), dict) and len(value) == 1:  # Phoenix
        return message(value["message"])
    if any(isinstance(name, str) and name.startswith("message.") for name in value):
        return message({str(name).removeprefix("message."): part for name, part in value.items()})
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
    """A tool call as the chat templates read it; LangChain writes `args`, Phoenix a name for each part."""
    if (name := inside(call, "tool_call.function.name")) is not None:
        function = {"name": name, "arguments": inside(call, "tool_call.function.arguments")}
        return {"type": "function", "id": inside(call, "tool_call.id"), "function": function}
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


def transcript(text: Any, turn: re.Pattern[str] = HH_TURN, first: str = "") -> list[Message] | None:
    r"""The turns of a transcript, or None for what is none.

    Args:
        text: The transcript. White space at the ends of a turn is the transcript's, not the turn's.
        turn: What stands before a turn, with its speaker as a group.
        first: The speaker of what stands before the first such mark; "" where nothing may stand there.

    Example:
        >>> transcript("\n\nHuman: Hi\n\nAssistant: Hello")
        [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]
    """
    if not isinstance(text, str):
        return None
    before, *parts = turn.split(text)
    if first:
        parts = [first, before, *parts]
    if (before.strip() and not first) or not parts:
        return None
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [{"role": ROLES[speaker], "content": words.strip()} for speaker, words in turns]


def asked(*texts: Any, system: Any = None, history: Any = None) -> list[Message] | None:
    """A question as a conversation: what was set and said before it, and its texts, one a line; None without any."""
    said = [text for text in texts if isinstance(text, str) and text]
    if not said:
        return None
    before: list[Message] = []
    for turn in history if isinstance(history, list) else []:
        if not isinstance(turn, list | tuple) or len(turn) != 2:
            return None
        before += [user(turn[0]), assistant(turn[1])]
    return with_system([*before, user("\n".join(said))], system)


def with_system(turns: list[Message], system: Any) -> list[Message]:
    """A conversation with a system prompt that stands beside it, unless it begins with one of its own."""
    if not isinstance(system, str) or not system.strip() or (turns and turns[0]["role"] == "system"):
        return turns
    return [{"role": "system", "content": system}, *turns]


def ending(value: Any) -> tuple[list[Message], list[Message]] | None:
    """An answer, and the turns before it where it is the end of a whole conversation; None for what is no answer."""
    turns = messages_in(value) if isinstance(value, str) else messages(value)
    if isinstance(value, str) and turns is None:
        return [], [assistant(value)]
    return (turns[:-1], turns[-1:]) if turns and turns[-1]["role"] == "assistant" else None
