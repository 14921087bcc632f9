"""The final answer of a worked solution, as GSM8K writes them, and whether it is right."""

from __future__ import annotations

import re

from bnf_align.answers.numbers import first_number

ANNOTATION = re.compile(r"<<[^<>\n]*>>")
"""GSM8K's calls of its calculator: `3 + 4 = <<3+4=7>>7`."""
MARKER = re.compile(r"####|^[ \t]*A:|\b(?i:answer)(?:\s+(?i:is)\b|\s*:)|\\boxed\{", re.MULTILINE)


def final_answer(solution: str) -> str | None:
    r"""What stands after the last `####`, `A:`, `answer is`, `Answer:` or boxed, up to the end of its line.

    A solution without any of these was cut short: the last number in it is some step's, not its answer.

    Example:
        >>> final_answer("3 + 4 = <<3+4=7>>7 eggs\n#### 7"), final_answer("The answer is $1,007."), final_answer("7")
        ('7', '$1,007', None)
    """
    marks = list(MARKER.finditer(solution := ANNOTATION.sub("", solution)))
    if not marks:
        return None
    rest = solution[marks[-1].end() :].lstrip(" \t\n:").split("\n", 1)[0]
    if marks[-1][0].startswith("\\boxed"):
        rest = rest.split("}", 1)[0]
    return rest.strip().strip("*").removesuffix(".") or None


def solves(solution: str, gold: str) -> bool:
    """Whether the final answer of `solution` is the number that `gold`, an answer or a worked solution, comes to."""
    found = first_number(final_answer(solution) or "")
    return found is not None and found == first_number(final_answer(gold) or gold)
