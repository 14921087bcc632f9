"""Whether an answer picks the right choice: the rule of ZeroEval for multiple choice."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any


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
