r"""The answer in the JSON object that a model was asked for, or in what it wrote instead.

Rules of ZeroEval (WildEval/ZeroEval 8c1485e, `src/evaluation/eval_utils.py`), oddities included: published numbers
depend on them. Tried in this order:

1. the first balanced `{...}`, braces in texts counted too, without its newlines, as strict JSON; if that span is no
   JSON, no second one is tried;
2. where it has no `answer`: a regular expression for each key;
3. for Llama-3.1 only, which likes to end so: `\boxed{...}`.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

BRACE = re.compile(r"[{}]")
BOXED = re.compile(r"\\boxed{(\w+)}")
BOXING_MODEL = "Llama-3.1"
BOXED_WITHIN = 30
"""How many of the last characters must hold the word `boxed`."""

# A quoted value up to the next quote; else a bare value up to a comma or space; else the key without its quotes.
VALUES = {
    key: tuple(
        re.compile(pattern)
        for pattern in (rf'"{key}"\s*:\s*"([^"]*)"', rf'"{key}"\s*:\s*([^,\s]*)', rf"{key}\s*:\s*([^,\s]*)")
    )
    for key in ("reasoning", "answer")
}


class Extracted(NamedTuple):
    """What a model answered."""

    answer: Any
    """As JSON has it: a text mostly, but a number, list, object or null too."""
    reasoning: Any
    """The same; an empty text where there is none."""


def extract(text: str, model: str = "", *, blank_is_answer: bool = True) -> Extracted | None:
    """The answer in `text`, or None where there is none.

    Args:
        text: A model's whole output.
        model: Its name, for the third rule.
        blank_is_answer: Whether null and "" are answers. They are, though wrong ones, but not in multiple choice.

    Example:
        >>> extract('Sure! {"reasoning": "3 * 6", "answer": 18}')
        Extracted(answer=18, reasoning='3 * 6')
    """
    found = _first_object(text)
    if found is None or "answer" not in found:
        found = _loose_values(text)
    if "answer" not in found or (not blank_is_answer and found["answer"] in (None, "")):
        boxes = BOXING_MODEL in model and "boxed" in text[-BOXED_WITHIN:]
        boxed = BOXED.search(text) if boxes else None
        if boxed is None:
            return None
        found["answer"] = boxed[1]
    return Extracted(found["answer"], found.get("reasoning", ""))


def text_of(answer: Any) -> str:
    """An answer as text: what Python prints, so null is "None" and a list has its brackets."""
    try:
        return str(answer)
    except RecursionError:  # brackets nested as deep as the JSON reader just allows
        return ""


def _first_object(text: str) -> dict[str, Any] | None:
    depth = start = 0
    for brace in BRACE.finditer(text):
        if brace[0] == "{":
            if depth == 0:
                start = brace.start()
            depth += 1
        elif depth:
            depth -= 1
            if depth == 0:
                try:
                    return json.loads(text[start : brace.end()].replace("\n", ""))
                except (ValueError, RecursionError):  # no JSON, or a number of more digits than Python reads
                    return None
    return None


def _loose_values(text: str) -> dict[str, Any]:
    values = {}
    for key, patterns in VALUES.items():
        match = next((match for pattern in patterns if (match := pattern.search(text))), None)
        if match:
            values[key] = match[1]
    return values
