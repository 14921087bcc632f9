"""Prompts from where they lie, each with an id under which its candidates are filed."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from itertools import islice
from typing import Any

from bnf_align.construct.score import OF_SCORERS
from bnf_align.data.check import clean_message
from bnf_align.data.read import iter_rows
from bnf_align.data.template import Message
from bnf_align.records import BadInput, rows_text

logger = logging.getLogger(__name__)

Row = dict[str, Any]

NAMES = ("prompt", "messages", "instruction", "question")
"""Columns that are read as the prompt, the first that a row has."""
MADE = ("id", "prompt", "candidates", "duplicates", *OF_SCORERS)
"""Columns that are made here: those of an earlier set would pass for the new candidates' scores."""


def read_prompts(source: str, split: str = "train", column: str | None = None, limit: int | None = None) -> list[Row]:
    """Rows with `id` and `prompt` (text or messages); the other columns travel along, a gold `answer` for one.

    A conversation that ends with an answer gives up that answer: it is what the model is asked for. Of several rows
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
        raise BadInput(f"{source} has {wanted}. I see: {seen}. Name it with --map prompt=COLUMN.")
    empty = [number for number, row in enumerate(rows) if not row.get(name)]
    if empty:
        raise BadInput(f"{source}: {rows_text(empty)} have no `{name}`, so there is nothing to answer. Take them out.")
    found: dict[str, Row] = {}
    repeated, differ = [], 0
    for number, row in enumerate(rows):
        prompt, own = _asked(row[name], f"{source}, row {number}"), row.get("id")
        others = {key: value for key, value in row.items() if key not in (*MADE, name) and _is_json(value)}
        entry = {"id": _digest(prompt) if own is None else str(own), "prompt": prompt, **others}
        if entry["id"] in found and own is not None:
            raise BadInput(f"{source}: two rows have the id {entry['id']!r}; candidates are filed by id.")
        repeated += [number] * (entry["id"] in found)
        differ += found.setdefault(entry["id"], entry) != entry
    if repeated:
        lost = f"; {differ:,} of them have other columns, which ids of their own would keep" if differ else ""
        logger.warning(f"{source}: a prompt is repeated in {rows_text(repeated)} and the first of each stays{lost}.")
    return list(found.values())


def _asked(prompt: Any, place: str) -> str | list[Message]:
    """A text, or messages up to the last that is not an answer."""
    if not isinstance(prompt, list):
        return str(prompt)
    turns = [clean_message(message, place, {}) for message in prompt]
    last = max((at for at, turn in enumerate(turns) if turn["role"] != "assistant"), default=-1)
    if last < 0:
        raise BadInput(f"{place}: the conversation has only answers, so there is nothing to answer. Take it out.")
    return turns[: last + 1]


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
