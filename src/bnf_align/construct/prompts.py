"""Prompts from where they lie, each with an id under which its candidates are filed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from bnf_align.data.read import iter_rows
from bnf_align.records import BadInput, rows_text

Row = dict[str, Any]

NAMES = ("prompt", "messages", "instruction", "question")
"""Columns that are read as the prompt, the first that a row has."""
ANSWERS = ("assistant",)


def read_prompts(source: str, split: str = "train", column: str | None = None, limit: int | None = None) -> list[Row]:
    """Rows with `id` and `prompt` (text or messages); the other columns travel along, a gold `answer` for one.

    A conversation that ends with an answer gives up that answer: it is what the model is asked for. Of several rows
    with the same prompt and no id of their own the first stays.

    Args:
        source: A file, a folder or a hub name, as `train` reads it.
        split: Which split, where there are several.
        column: The prompt's column, where it is not one of `prompt`, `messages`, `instruction`, `question`.
        limit: The first so many.

    Raises:
        BadInput: If a row has no prompt, or two rows share an id.
    """
    rows = list(islice(iter_rows(source, split), limit))
    name = column or next((known for known in NAMES if any(known in row for row in rows)), None)
    if name is None:
        seen = ", ".join(dict.fromkeys(key for row in rows for key in row))
        raise BadInput(f"{source} has no column of prompts. I see: {seen}. Name it with --map prompt=COLUMN.")
    empty = [number for number, row in enumerate(rows) if not row.get(name)]
    if empty:
        raise BadInput(f"{source}: {rows_text(empty)} have no `{name}`, so there is nothing to answer. Take them out.")
    found: dict[str, Row] = {}
    for row in rows:
        prompt = _asked(row[name])
        entry = {"id": str(row.get("id", _digest(prompt))), "prompt": prompt, **_others(row, name)}
        if entry["id"] in found and "id" in row:
            raise BadInput(f"{source}: two rows have the id {entry['id']!r}; candidates are filed by id.")
        found.setdefault(entry["id"], entry)
    return list(found.values())


def _asked(prompt: Any) -> str | list[dict[str, Any]]:
    if isinstance(prompt, list):
        last = max((at for at, turn in enumerate(prompt) if turn.get("role") not in ANSWERS), default=-1)
        return prompt[: last + 1]
    return str(prompt)


def _digest(prompt: Any) -> str:
    """The same prompt has the same id in every file, so appended prompts find the finished ones."""
    text = json.dumps(prompt, ensure_ascii=True, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _others(row: Mapping[str, Any], name: str) -> Row:
    return {key: value for key, value in row.items() if key not in ("id", "prompt", name)}


def as_messages(prompts: Iterable[Row]) -> list[Row]:
    """Prompts that are text as a user's turn, for a chat model."""
    return [
        row if isinstance(row["prompt"], list) else {**row, "prompt": [{"role": "user", "content": row["prompt"]}]}
        for row in prompts
    ]
