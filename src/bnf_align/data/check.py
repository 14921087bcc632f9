"""A raw row as a checked one: messages in one spelling, a pair or a single answer; or the reason why it is neither."""

from __future__ import annotations

import ast
import json
import re
from array import array
from collections.abc import Mapping
from typing import Any

from bnf_align.data.columns import Columns, cell, is_message, looks_like_messages
from bnf_align.data.template import Message, shared_prefix
from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport, PreferenceRow, rows_text

Texts = dict[str, Any]
"""Prompt and answers of a row under their names, each a text or a list of messages."""

ROLES = ("system", "user", "assistant", "tool")
TEXT_COLUMNS = ("prompt", "chosen", "rejected", "completion", "messages")
SAID = {
    "parts": "message contents in several parts, joined to one text",
    "json": "messages that stand there as text, read as messages",
    "object": "a message where a list of them is meant, read as a list of one",
    "turn": "a text beside messages, read as a turn: a prompt as the user's, an answer as the assistant's",
    "system": "column `system` is read as the system message",
    "shared": "there is no `prompt`: it is read from what chosen and rejected begin with",
}
"""How what stands otherwise is read."""
SCORES = (
    ("chosen_score", "rejected_score"),
    ("score_chosen", "score_rejected"),
    ("chosen_rating", "rejected_rating"),
    ("chosen-rating", "rejected-rating"),
)
"""Columns in which public sets keep what the two answers of a pair were given."""
LOWER_SCORE = "chosen has the lower score of the two, or another column says that rejected won; are the sides swapped?"
TWO_SYSTEMS = "column `system` is not used where the conversation has another system message"
GUESSES = {"bot": "assistant", "gpt": "assistant", "model": "assistant", "ai": "assistant", "human": "user"}
GUESSES |= {"developer": "system", "function": "tool", "ipython": "tool"}
SHAREGPT = {"human": "user", "gpt": "assistant"}
PROMPT = re.compile(r"[:?：？]|\S\s*\n")
"""What a prompt has, a label, a question or a line, and words that two answers happen to begin with have not."""


class RowChecker:
    """Raw rows to checked rows, one at a time; what is left out, or read otherwise than it stands there, is counted.

    `role_map` is the source's role -> ours (`--role_map`).

    Raises:
        BadInput: If a role is mapped to what is none.
    """

    def __init__(self, columns: Columns, role_map: Mapping[str, str] | None, report: DataReport) -> None:
        self._columns, self._roles, self._report = columns, role_map or {}, report
        self._scores = [names for names in SCORES if {*names} <= {*columns.names}]
        sides = [columns.renames.get(name, name) for name in ("chosen", "rejected")]
        self._swapped = sides == ["rejected", "chosen"]
        if {*sides} != {"chosen", "rejected"}:  # scores of columns under other names: whose they are is not known
            self._scores = []
        self._said: dict[str, array] = {}
        self._unknown: dict[str, list[int]] = {}
        for theirs, ours in self._roles.items():
            if ours not in ROLES:
                raise BadInput(f"--role_map {theirs}={ours}: `{ours}` is not a role. Known: {', '.join(ROLES)}.")

    def row(self, position: int, raw: Mapping[str, Any]) -> PreferenceRow | None:
        """The row at a position of the source with its label as it stands there; None, and counted, if left out.

        Raises:
            BadInput: If it is not what can be read at all.
        """
        number, row = self._columns.number(position, raw), self._columns.named(raw)
        place = f"{self._report.source}, row {number}"
        try:
            for column in TEXT_COLUMNS:
                value = row.get(column)
                if value is not None:
                    row[column] = self._text(number, column, value)
            texts = self._texts(number, row, place)
            if isinstance(texts, Reason):
                self._report.drop(texts, number)
                return None
            if "chosen" in texts and self._says_rejected_won(row):
                self._say(LOWER_SCORE, number)
            label = {"label": row.get("label")} if "completion" in texts else {}
            return {"row": number, **texts, **label, **_extras(row, place)}
        except RecursionError:
            raise BadInput(f"{place}: it is nested too deeply to be a conversation.") from None

    def finish(self) -> None:
        """Say what all rows together have; BadInput if there are unknown roles."""
        if self._unknown:
            found = "; ".join(f"{role!r} in {rows_text(sorted(set(rows)))}" for role, rows in self._unknown.items())
            flags = " ".join(f"{r}={GUESSES.get(r.lower(), 'user|assistant|system|tool')}" for r in self._unknown)
            raise BadInput(
                f"{self._report.source}: Unknown role {found}; known: {', '.join(ROLES)}. A chat template prints what "
                f"it does not know in a way no model was trained on. Map it with --role_map {flags}"
            )
        for name, rows in self._said.items():
            said = f"{SAID.get(name, name)}: {rows_text(rows.tolist())}"
            (self._report.notes if name in SAID else self._report.warnings).append(said)

    def _say(self, name: str, number: int) -> None:
        rows = self._said.setdefault(name, array("q"))
        if not rows or rows[-1] != number:
            rows.append(number)

    def _says_rejected_won(self, row: Mapping[str, Any]) -> bool:
        """Whether scores or a winner beside a pair speak for its rejected answer."""
        for names in self._scores:
            chosen, rejected = (row.get(name) for name in (reversed(names) if self._swapped else names))
            if isinstance(chosen, int | float) and isinstance(rejected, int | float) and chosen < rejected:
                return True
        return row.get("winner") == ("chosen" if self._swapped else "rejected")

    def _text(self, number: int, column: str, value: Any) -> str | list[Message] | None:
        """A column's value as a text or as messages; None where it is a gap in a table of pandas."""
        if isinstance(value, str):
            messages = messages_in(value) if looks_like_messages(value) else None
            if messages is None and column != "messages":
                return value
            value = value if messages is None else messages
            self._say("json", number)
        if isinstance(value, dict):
            value = [value]
            self._say("object", number)
        if (value := cell(value)) is None:
            return None
        if not isinstance(value, list | tuple):
            kind = type(value).__name__
            raise BadInput(
                f"Row {number}: `{column}` is neither text nor a list of messages, but {kind}: {value!r:.80}"
            )
        messages = [clean_message(message, f"row {number}, {column}", self._roles) for message in value]
        for message, raw in zip(messages, value, strict=True):
            if message["role"] not in ROLES:
                self._unknown.setdefault(message["role"], []).append(number)
            if isinstance(raw.get("content"), list):
                self._say("parts", number)
        return messages

    def _texts(self, number: int, row: Mapping[str, Any], place: str) -> Texts | Reason:
        """Prompt and answers of a row, all texts or all messages; or why there are none."""
        texts: Texts = {"prompt": row.get("prompt")}
        if row.get("chosen") is not None and row.get("rejected") is not None:
            texts |= {"chosen": row["chosen"], "rejected": row["rejected"]}
            if not texts["chosen"] or not texts["rejected"]:
                return Reason("empty_answer")
            if texts["chosen"] == texts["rejected"]:
                return Reason("equal_answers")
            # Conversations hold their prompt, beside which (as in UltraFeedback) a plain copy may stand.
            empty = "prompt" in row and texts["prompt"] is None
            if empty and self._columns.prompted and isinstance(texts["chosen"], str):
                return Reason("missing_column", columns="`prompt`")
            if not isinstance(texts["prompt"], list) and (at := shared_prompt(**texts)):
                if texts["prompt"] is None:
                    self._say("shared", number)
                texts = {"prompt": texts["chosen"][:at]} | {name: texts[name][at:] for name in ("chosen", "rejected")}
        elif row.get("completion") is not None:
            texts["completion"] = row["completion"]
        elif row.get("messages") is not None:
            split = split_last_answer(row["messages"])
            if split is None:
                return Reason("no_answer")
            texts = {"prompt": split[0], "completion": split[1]}
        else:
            columns = ("chosen", "rejected") if "chosen" in row or "rejected" in row else ("completion",)
            lacking = " and ".join(f"`{name}`" for name in columns if row.get(name) is None)
            return Reason("missing_column", columns=lacking)
        if texts["prompt"] is None or texts["prompt"] == []:
            return Reason("missing_column", columns="`prompt`")
        if any(is_empty(text) for name, text in texts.items() if name != "prompt"):
            return Reason("empty_answer")
        plain = [name for name, text in texts.items() if isinstance(text, str)]
        if self._columns.system or 0 < len(plain) < len(texts):
            _check_answers(texts, plain, place)
            if len(plain) < len(texts):
                self._say("turn", number)
            for name in plain:
                texts[name] = [{"role": "user" if name == "prompt" else "assistant", "content": texts[name]}]
        if self._columns.system:
            texts["prompt"] = self._with_system(number, texts["prompt"], cell(row.get("system")), place)
        return texts

    def _with_system(self, number: int, prompt: list[Message], system: Any, place: str) -> list[Message]:
        if not isinstance(system, str | None):
            raise BadInput(f"{place}: `system` must be text, not {type(system).__name__}.")
        if not system:
            return prompt
        if prompt[0]["role"] != "system":
            self._say("system", number)
            return [{"role": "system", "content": system}, *prompt]
        if prompt[0].get("content") != system:
            self._say(TWO_SYSTEMS, number)
        return prompt


def messages_in(text: str) -> list[Message] | None:
    """The messages in a text that is their JSON, or a list of them as Python prints it; None for any other text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        if not text.lstrip().startswith(("{'", "[{'")):
            return None
        try:
            value = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    value = [value] if isinstance(value, dict) else value
    return value if isinstance(value, list) and value and all(map(is_message, value)) else None


def clean_message(message: Any, place: str, roles: Mapping[str, str]) -> Message:
    """A message with a `role`, a `content` that is text or absent, and no None.

    Raises:
        BadInput: If it is no message, or its content is not text.
    """
    plain = not roles and isinstance(message, dict) and message.keys() == {"role", "content"}
    if plain and isinstance(message["role"], str) and isinstance(message["content"], str):  # nearly all are so
        return dict(message)
    if isinstance(message, dict) and "role" not in message and isinstance(message.get("from"), str):
        role = message["from"]
        message = {"role": role if role in roles else SHAREGPT.get(role, role), "content": message.get("value")}
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        seen = f"keys {', '.join(message)}" if isinstance(message, dict) else type(message).__name__
        texts = " A list of texts is no conversation: write a row for each answer." if isinstance(message, str) else ""
        raise BadInput(f"{place}: a message needs `role` and `content`, but this one has {seen}.{texts}")
    named = {key: value for key, value in message.items() if value is not None}
    named["role"] = roles.get(message["role"], message["role"])
    content = named.get("content", "")
    if not isinstance(content, str):  # many templates print a list of parts as Python would, brackets and all
        parts = content if isinstance(content, list) else [content]
        for part in parts:
            if (
                not isinstance(part, dict)
                or part.get("type", "text") != "text"
                or not isinstance(part.get("text"), str)
            ):
                kind = part.get("type", "no type") if isinstance(part, dict) else type(part).__name__
                raise BadInput(f"{place}: a message content holds {kind}: only text is supported.")
        named["content"] = "".join(part["text"] for part in parts)
    return named


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


def shared_prompt(prompt: Any, chosen: Any, rejected: Any) -> int:
    """How many messages, or characters, of chosen and rejected are their prompt; 0 where they hold none.

    Where `extract_prompt` of trl 1.16 cuts, but in text never inside a word, and only where what is cut off holds a
    label (`Q:`), a question or a whole line: other words that both begin with are the answers' own. A `prompt` is a
    plain copy beside conversations.
    """
    if type(chosen) is not type(rejected) or (prompt is not None and isinstance(chosen, str)):
        return 0
    at = shared_prefix(chosen, rejected)
    if isinstance(chosen, list):
        # An answer that begins with the other keeps a message.
        at -= at == min(len(chosen), len(rejected))
        return 0 if prompt is not None and at and chosen[0]["role"] == "assistant" else at
    at = min(at, len(chosen) - 1, len(rejected) - 1)
    # Before a space, which goes with the word after it, as tokenizers have it.
    while at > 0 and not ((chosen[at].isspace() and rejected[at].isspace()) or chosen[at - 1] in "\n\t：？。！"):
        at -= 1
    return at if PROMPT.search(chosen, 0, at) else 0


def _check_answers(texts: Texts, plain: list[str], place: str) -> None:
    """Stop where an answer to a prompt of plain text is a conversation that brings turns of others along."""
    for name, text in texts.items():
        if "prompt" in plain and name not in plain and text[0]["role"] != "assistant":
            kinds = ", ".join(f"`{one}` is {'text' if one in plain else 'a message list'}" for one in texts)
            raise BadInput(f"{place}: {kinds}. Make all of them the same, text or message lists.")


def _extras(row: Mapping[str, Any], place: str) -> dict[str, Any]:
    """What the chat template gets beside the messages, as objects where the source has JSON text."""
    extras = {}
    for name, kind in (("tools", list), ("chat_template_kwargs", dict)):
        value = cell(row.get(name))
        try:
            value = json.loads(value) if isinstance(value, str) and value else value
        except json.JSONDecodeError as error:
            raise BadInput(f"{place}: `{name}` is text but not JSON ({error.msg}): {value:.60}") from error
        if value and not isinstance(value, kind):
            raise BadInput(f"{place}: `{name}` must be a {kind.__name__}, not {type(value).__name__}.")
        if name == "tools" and not all(isinstance(tool, dict) for tool in value or ()):
            raise BadInput(f"{place}: `tools` must be a list of objects, JSON schemas: {value!r:.60}")
        if value:
            extras[name] = value
    return extras
