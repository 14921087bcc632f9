"""What a judge decided, from the JSON object that it wrote.

Only a key of the object that the judge itself wrote counts. Whatever it quotes stands inside a string of that object,
and nothing is searched for in text, so an answer that holds `"score": 10` cannot speak for the judge.
"""

from __future__ import annotations

import json
import re
from typing import Any

from bnf_align.thoughts import without_thoughts

BEGINS = re.compile(r"(?:\A|[:\n])\s*(?:```(?:json)?\s*)?\Z")
"""What stands before the object that a judge ends with: nothing, a line or a colon, and perhaps a fence."""
NUMBER = re.compile(r"\d{1,2}(\.\d+)?")


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all of its keys: a dict would keep only the last of two `score`."""


def value_of(reply: Any, key: str) -> Any:
    """What the judge wrote under `key`; None where the reply ends with no JSON object, it lacks it, or has two values.

    A judge without a JSON mode puts its object between fences or after a sentence, and may think before. The object
    is the one that begins with the first brace, or the last line; it reaches to the end of the reply.
    """
    text = without_thoughts(reply).strip() if isinstance(reply, str) else ""
    before, brace, rest = text.partition("{")
    parts = [(brace + rest).removesuffix("```")] if BEGINS.search(before) else []
    for part in (*parts, text.rpartition("\n")[2]):
        try:
            found = json.loads(part, strict=False, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError):
            continue
        values = [value for name, value in found if name == key] if isinstance(found, _Pairs) else []
        return values[0] if values and all(value == values[0] for value in values) else None
    return None


def read_score(value: Any) -> float | None:
    """A score from 0 to 10, a number or the text of one; None for anything else ("7/10", NaN, a list)."""
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= 10 else None
