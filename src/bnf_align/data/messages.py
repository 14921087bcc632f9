"""Message lists: one spelling of roles and contents, and what of a list is prompt and what is answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bnf_align.records import BadInput, DataReport, rows_text

Message = dict[str, Any]

ROLES = ("system", "user", "assistant", "tool")
TEXT_COLUMNS = ("prompt", "chosen", "rejected", "completion", "messages")


class MessageReader:
    """Brings messages to a known `role`, a `content` that is text or absent, and no None, one row after the other.

    Args:
        role_map: The source's role -> ours, as `--role_map` gives it.
        report: Where contents made of several parts are said.
    """

    def __init__(self, role_map: Mapping[str, str] | None, report: DataReport) -> None:
        self._roles = _checked_map(role_map or {})
        self._report = report
        self._unknown: dict[str, list[int]] = {}
        self._parted: list[int] = []

    def read(self, number: int, row: dict[str, Any]) -> None:
        """Normalise the messages of the row with a number, in place.

        Raises:
            BadInput: If a column is neither text nor messages, or a content is not text.
        """
        for column, messages in _message_lists(row, number):
            row[column] = [clean_message(message, f"row {number}, {column}", self._roles) for message in messages]
            for message in row[column]:
                if message["role"] not in ROLES:
                    self._unknown.setdefault(message["role"], []).append(number)
            if any(isinstance(message.get("content"), list) for message in messages):
                self._parted.append(number)

    def finish(self) -> None:
        """Say what all rows together have.

        Raises:
            BadInput: If there are unknown roles.
        """
        if self._unknown:
            raise BadInput(f"{self._report.source}: {_unknown_roles(self._unknown)}")
        if self._parted:
            parted = rows_text(self._parted)
            self._report.notes.append(f"message contents in several parts, joined to one text: {parted}")


def _checked_map(role_map: Mapping[str, str]) -> Mapping[str, str]:
    for theirs, ours in role_map.items():
        if ours not in ROLES:
            raise BadInput(f"--role_map {theirs}={ours}: `{ours}` is not a role. Known: {', '.join(ROLES)}.")
    return role_map


def _message_lists(row: Mapping[str, Any], number: int) -> Iterator[tuple[str, list[Any]]]:
    for column in TEXT_COLUMNS:
        value = row.get(column)
        if isinstance(value, list):
            yield column, value
        elif value is not None and (not isinstance(value, str) or column == "messages"):
            kind = type(value).__name__
            raise BadInput(
                f"Row {number}: `{column}` is neither text nor a list of messages, but {kind}: {value!r:.80}"
            )


def clean_message(message: Any, place: str, roles: Mapping[str, str]) -> Message:
    """A message with a `role`, a `content` that is text or absent, and no None.

    Raises:
        BadInput: If it is no message, or its content is not text.
    """
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        seen = f"keys {', '.join(message)}" if isinstance(message, dict) else type(message).__name__
        hint = " (ShareGPT's from and value are to be written as role and content)" if "from" in seen else ""
        raise BadInput(f"{place}: a message needs `role` and `content`, but this one has {seen}{hint}.")
    named = {key: value for key, value in message.items() if value is not None}
    named["role"] = roles.get(message["role"], message["role"])
    if "content" in named:
        named["content"] = _text(named["content"], place)
    return named


def _text(content: Any, place: str) -> str:
    """Content as one text: many templates print a list of parts as Python would, brackets and all."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    for part in parts:
        if not isinstance(part, dict) or part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type", "no type") if isinstance(part, dict) else type(part).__name__
            raise BadInput(f"{place}: a message content holds {kind}: only text is supported.")
    return "".join(part["text"] for part in parts)


def _unknown_roles(unknown: Mapping[str, list[int]]) -> str:
    found = "; ".join(f"{role!r} in {rows_text(sorted(set(numbers)))}" for role, numbers in unknown.items())
    guesses = {"bot": "assistant", "gpt": "assistant", "model": "assistant", "ai": "assistant", "human": "user"}
    guesses |= {"developer": "system", "function": "tool", "ipython": "tool"}
    flags = " ".join(f"{role}={guesses.get(role.lower(), 'user|assistant|system|tool')}" for role in unknown)
    return (
        f"Unknown role {found}; known: {', '.join(ROLES)}. A chat template prints what it does not know in a way no "
        f"model was trained on. Map it with --role_map {flags}"
    )


def is_empty(answer: str | list[Message]) -> bool:
    """Whether an answer says nothing: no text and no tool call in any assistant turn."""
    if isinstance(answer, str):
        return not answer.strip()
    turns = [message for message in answer if message["role"] == "assistant"]
    return not any(turn.get("content", "").strip() or turn.get("tool_calls") for turn in turns)


def split_last_answer(messages: list[Message]) -> tuple[list[Message], list[Message]] | None:
    """A conversation as (all before its last assistant turn, that turn); None where it has no such turn."""
    at = max((i for i, message in enumerate(messages) if message["role"] == "assistant"), default=None)
    return None if at is None else (messages[:at], messages[at : at + 1])
