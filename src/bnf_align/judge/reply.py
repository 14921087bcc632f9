"""What a judge decided, from the JSON object that it wrote.

Only a key of the object that the judge itself wrote counts. Whatever it quotes stands inside a string of that object,
and nothing is searched for in text, so an answer that holds `"score": 10` cannot speak for the judge.
"""

from __future__ import annotations

import json
import re
from typing import Any

FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)
NUMBER = re.compile(r"\d{1,2}(\.\d+)?")


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with all of its keys: a dict would keep only the last of two `score`."""


def value_of(reply: Any, key: str) -> Any:
    """What the judge wrote under `key`; None where the reply is no JSON object, lacks it, or gives it two values."""
    text = reply.strip() if isinstance(reply, str) else ""
    if fenced := FENCED.fullmatch(text):  # judges without a JSON mode put their whole reply between fences
        text = fenced.group(1)
    try:
        found = json.loads(text, strict=False, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return None
    values = [value for name, value in found if name == key] if isinstance(found, _Pairs) else []
    return values[0] if values and all(value == values[0] for value in values) else None


def read_score(value: Any) -> float | None:
    """A score from 0 to 10, a number or the text of one; None for anything else ("7/10", NaN, a list)."""
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= 10 else None
