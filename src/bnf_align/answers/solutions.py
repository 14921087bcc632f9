"""The final answer of a worked solution, as GSM8K or MATH has them, and whether it is right."""

from __future__ import annotations

import re

from bnf_align.answers.expressions import expression, same_expression
from bnf_align.records import BadInput
from bnf_align.thoughts import without_thoughts

ANNOTATION = re.compile(r"<<[^<>\n]*>>")
"""GSM8K's calls of its calculator: `3 + 4 = <<3+4=7>>7`."""
MARKER = re.compile(r"####|^[ \t]*A:|\b(?i:answer)(?:\s+(?i:is)\b|\s*:)|\\(?:boxed|fbox)\s*\{", re.MULTILINE)
NEXT_PROBLEM = re.compile(
    r"^[ \t>*#]*(?i:question|problem|exercise|q|user|human|instruction)\b[ \t]*\d*[*]*[:.]", re.MULTILINE
)
"""A line with which a model that does not stop begins a problem of its own."""
STATED = re.compile(r"[\s*$€£\\(\[{+−-]*\d+(?!\.\s+[A-Za-z])")
"""What stands after GSM8K's `####`, and not after a heading's: a number, but no numbered title."""


def final_answer(solution: str) -> str | None:
    r"""What a solution states as its answer, up to the end of its line; reasoning before it is left out.

    That is what stands after the first `####` with a number, which ends a solution of GSM8K. Without one it is what
    stands after the last `A:`, `answer is`, `Answer:` or in the last box, before the next problem of a model that does
    not stop. A solution without any of these was cut short: the last number in it is some step's, not its answer.

    Example:
        >>> final_answer("3 + 4 = <<3+4=7>>7 eggs\n#### 7"), final_answer("The answer is $1,007."), final_answer("7")
        ('7', '$1,007', None)
    """
    solution = ANNOTATION.sub("", without_thoughts(solution))
    marks = list(MARKER.finditer(solution))
    stated = next((mark for mark in marks if mark[0] == "####" and STATED.match(solution, mark.end())), None)
    if stated is None and marks:
        run_on = NEXT_PROBLEM.search(solution, marks[0].end())
        stated = [mark for mark in marks if run_on is None or mark.start() < run_on.start()][-1]
    if stated is None:
        return None
    rest = solution[stated.end() :]
    if stated[0].startswith("\\"):
        return _in_braces(rest).strip() or None
    return rest.lstrip(" \t\n:").split("\n", 1)[0].strip().strip("*").removesuffix(".") or None


def _in_braces(text: str) -> str:
    """A text up to the brace that closes the one before it."""
    depth = 1
    for brace in re.finditer(r"(?<!\\)[{}]", text):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[: brace.start()]
    return ""


def gold_expression(gold: str) -> str:
    """The number or expression of a right answer, which may be a worked solution.

    Raises:
        BadInput: If it states none.
    """
    found = expression(final_answer(gold) or gold)
    if found is None:
        raise BadInput(
            f"the right answer {gold!r:.80} states no number or expression, so no final answer could equal it. "
            "Compare texts with --rule exact, or name a function of yours: --rule module:name"
        )
    return found


def solves(solution: str, gold: str) -> bool:
    """Whether the final answer of `solution` is the number or expression of `gold`, an answer or a worked solution.

    Raises:
        BadInput: If `gold` states none.
    """
    stated = final_answer(solution)
    return same_expression(None if stated is None else expression(stated), gold_expression(gold))
