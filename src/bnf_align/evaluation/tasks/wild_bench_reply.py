"""What a judge of WildBench decided: from its JSON to a score or a choice.

Only a key of the object that the judge itself wrote counts. Whatever it quotes stands inside a string of that object,
and nothing is searched for in text, so an output that holds `"score": 10` cannot speak for the judge.
"""

from __future__ import annotations

import json
import re
from typing import Any

FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)
NUMBER = re.compile(r"\d{1,2}(\.\d+)?")

CHOICES = {"A++": 2, "A+": 1, "A=B": 0, "B+": -1, "B++": -2}
"""The judge's choice -> how far response A is ahead of B."""


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
    """A score from 0 to 10, written as a number or as the text of one; None for anything else ("7/10", NaN, a list).

    The rubric starts at 1; upstream counts a 0 all the same.
    """
    if isinstance(value, str) and NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= 10 else None


def read_choice(value: Any) -> int | None:
    """How far response A is ahead, from one of the five choices; None for anything else."""
    return CHOICES.get(value.strip()) if isinstance(value, str) else None
