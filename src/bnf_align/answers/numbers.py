"""Whether two answers are the same number: the rule of ZeroEval for GSM8K and MATH."""

from __future__ import annotations

import re

from bnf_align.answers.arithmetic import arithmetic

NUMBER = re.compile(r"-?\d+(\.\d+)?")


def first_number(text: str) -> float | None:
    """The first number in `text`, without `$` and `,`; of a text with a fraction that is a sum, its value.

    Example:
        >>> first_number("$1,250.50 in all"), first_number("3/4"), first_number("3/4 of a cup"), first_number("none")
        (1250.5, 0.75, 3.0, None)
    """
    text = text.replace("$", "").strip().replace(",", "")
    if "/" in text and (value := arithmetic(text)) is not None:
        text = str(value)  # 1/1000000 is then "1e-06", so 1: as published
    match = NUMBER.search(text)
    return float(match[0]) if match else None


def same_number(answer: str, gold: str) -> bool:
    """Whether both have a first number, and the same one. What comes after it does not count."""
    found = first_number(answer)
    return found is not None and found == first_number(gold)
