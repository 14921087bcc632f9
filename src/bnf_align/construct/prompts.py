"""Prompts from where they lie, each with an id under which its candidates are filed."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from itertools import islice
from typing import Any

from bnf_align.construct.score import OF_SCORERS
from bnf_align.data.check import TWO_SYSTEMS, clean_message, messages_in
from bnf_align.data.columns import looks_like_messages, talks
from bnf_align.data.ledger import EXTRAS
from bnf_align.data.read import iter_rows
from bnf_align.data.template import Message
from bnf_align.journal import Row
from bnf_align.records import BadInput, rows_text

logger = logging.getLogger(__name__)

NAMES = ("prompt", "messages", "instruction", "question")
"""Columns that are read as the prompt, the first that a row has."""
ANSWERS = ("answer", "completion", "chosen", "rejected", "messages")
"""Columns that hold answers to the prompt, beside it."""
MADE = ("id", "prompt", "candidates", "duplicates", *OF_SCORERS)
"""Columns that are made here: those of an earlier set would pass for the new candidates' scores."""


def read_prompts(source: str, split: str = "train", column: str | None = None, limit: int | None = None) -> list[Row]:
    """Rows with `id` and `prompt` (text or messages); the other columns travel along, a gold `answer` for one.

    A conversation that ends with an answer gives up that answer: it is what the model is asked for. A text in `system`
    becomes the system message, as in training; where any row has one, all prompts are conversations. Of several rows
    with the same prompt and no id of their own the first stays. Columns that JSON has no word for stay behind.

    Args:
        source: A file, a folder or a hub name, as `train` reads it.
        split: Which split, where there are several.
        column: The prompt's column, where it is not one of `prompt`, `messages`, `instruction`, `question`.
        limit: The first so many.

    Raises:
        BadInput: If a row has no prompt, or two rows share an id.
    """
    rows = list(islice(iter_rows(source, split), limit))
    name = next((known for known in ([column] if column else NAMES) if any(known in row for row in rows)), None)
    if name is None:
        seen = ", ".join(dict.fromkeys(key for row in rows for key in row))
        wanted = f"no column `{column}`" if column else "no column of prompts"
        raise BadInput(
            f"{source} has {wanted}. I see: {seen}. Rename the one with the prompts to `prompt`; `generate` also "
            "takes its name, --map prompt=COLUMN."
        )
    empty = [number for number, row in enumerate(rows) if not (str(row.get(name) or "")).strip()]
    if empty:
        raise BadInput(
            f"{source}: {rows_text(empty)} without a `{name}`, so there is nothing to answer. Take them out."
        )
    _say_what_is_not_read(source, rows, name)
    in_turns = any(row.get("system") for row in rows)
    found: dict[str, Row] = {}
    repeated, unused, differ = [], [], 0
    for number, row in enumerate(rows):
        prompt, own = _asked(row[name], f"{source}, row {number}"), row.get("id")
        others = {key: value for key, value in row.items() if key not in (*MADE, name) and _is_json(value)}
        if in_turns:
            system = others.pop("system", None)
            prompt = _with_system(prompt, system, f"{source}, row {number}")
            unused += [number] * bool(system and prompt[0]["content"] != system)
        entry = {"id": _digest(prompt) if own is None else str(own), "prompt": prompt, **others}
        if entry["id"] in found and own is not None:
            raise BadInput(f"{source}: two rows have the id {entry['id']!r}; candidates are filed by id.")
        repeated += [number] * (entry["id"] in found)
        differ += found.setdefault(entry["id"], entry) != entry
    if unused:
        logger.warning(f"{source}: {TWO_SYSTEMS}: {rows_text(unused)}")
    if repeated:
        lost = f"; {differ:,} of them have other columns, which ids of their own would keep" if differ else ""
        logger.warning(f"{source}: a prompt is repeated in {rows_text(repeated)} and the first of each stays{lost}.")
    return list(found.values())


def _say_what_is_not_read(source: str, rows: list[Row], column: str) -> None:
    """Columns that look like part of the question, and that the model is not given."""
    unread: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        for name in row.keys() - {column, "system", "id", *ANSWERS}:
            if row[name] and (name in EXTRAS or talks(name, row[name])):
                unread.setdefault(name, []).append(number)
    for name, numbers in unread.items():
        logger.warning(
            f"{source}: column `{name}` looks like part of the conversation, in {rows_text(numbers)}, and the model "
            f"is not given it. Write it into `{column}`, or take it out."
        )


def _asked(prompt: Any, place: str) -> str | list[Message]:
    """A text, or messages up to the last that is not an answer."""
    if isinstance(prompt, str):
        read = messages_in(prompt) if looks_like_messages(prompt) else None
        if read is None:
            return prompt
        prompt = read
    messages = [prompt] if isinstance(prompt, dict) else prompt
    if not isinstance(messages, list):
        raise BadInput(
            f"{place}: the prompt is neither text nor messages, but {type(prompt).__name__}: {prompt!r:.80}"
        )
    turns = [clean_message(message, place, {}) for message in messages]
    last = max((at for at, turn in enumerate(turns) if turn["role"] != "assistant"), default=-1)
    if last < 0:
        raise BadInput(f"{place}: the conversation has only answers, so there is nothing to answer. Take it out.")
    return turns[: last + 1]


def _with_system(prompt: str | list[Message], system: Any, place: str) -> list[Message]:
    """The prompt in messages, with the row's system text before them unless they have a system message."""
    turns = prompt if isinstance(prompt, list) else [{"role": "user", "content": prompt}]
    if not isinstance(system, str | None):
        raise BadInput(f"{place}: `system` must be text, not {type(system).__name__}.")
    if not system or turns[0]["role"] == "system":
        return turns
    return [{"role": "system", "content": system}, *turns]


def _digest(prompt: Any) -> str:
    """The same prompt has the same id in every file, so appended prompts find the finished ones."""
    text = json.dumps(prompt, ensure_ascii=True, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def as_messages(prompts: Iterable[Row]) -> list[Row]:
    """Prompts that are text as a user's turn, for a chat model."""
    return [
        row if isinstance(row["prompt"], list) else {**row, "prompt": [{"role": "user", "content": row["prompt"]}]}
        for row in prompts
    ]
