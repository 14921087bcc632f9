"""Whether an answer is right by ZeroEval's rules: the same number, the right choice, the same Python literal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

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


def letter_of(choices: Sequence[str], gold: str) -> str | None:
    """The letter of the first choice that reads `gold`; None where none of the first 26 does."""
    return next((letter for letter, choice in zip(ascii_uppercase, choices, strict=False) if choice == gold), None)


def picks(answer: Any, letter: str) -> bool:
    """Whether `answer` is the letter, or has it with a closing bracket anywhere.

    Example:
        >>> picks("B", "B"), picks("(B) 12 and not (C) 7", "C"), picks("B.", "B"), picks(["B"], "B")
        (True, True, False, False)
    """
    return answer == letter or (isinstance(answer, str | list | dict) and f"{letter})" in answer)


def same_literal(answer: str, gold: str) -> bool:
    r"""Whether both read the same without the quotes around them; two empty texts do.

    Nothing is parsed: `[1,2]` is not `[1, 2]`. A newline in the answer stands for the gold's `\n`, which JSON turned
    into one.

    Example:
        >>> same_literal("abc", "'abc'"), same_literal("[1,2]", "[1, 2]"), same_literal("", "''")
        (True, False, True)
    """
    return answer.strip("'\"").replace("\n", "\\n") == gold.strip("'\"")
