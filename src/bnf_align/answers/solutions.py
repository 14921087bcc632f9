"""The final answer of a worked solution, as GSM8K or MATH has them, and whether it is right."""

from __future__ import annotations

import re

from bnf_align.answers.expressions import LONGEST, SCALE, expression, same_expression
from bnf_align.records import BadInput
from bnf_align.thoughts import without_thoughts

ANNOTATION = re.compile(r"<<[^<>\n]*>>")
"""GSM8K's calls of its calculator: `3 + 4 = <<3+4=7>>7`."""
MARKER = re.compile(
    r"^[#* \t]*(?i:(?:final[ \t]+)?answer)[* \t]*$|####|^[ \t]*A:"
    r"|\b(?i:answer)\**(?:\s+(?i:is)\b|\s*[:=])|\\(?:boxed|fbox)(?:\s*\{|\s+(?=-?\d))",
    re.MULTILINE,
)
END = re.compile(r"<\|(?:im_end|eot_id|endoftext|end|end_of_text)\|>|</s>|<end_of_turn>|<eos>")
"""What ends a turn, where a server wrote it into the text."""
NEXT_PROBLEM = re.compile(
    r"^[ \t>*#]*(?i:(?:question|problem|exercise|example|user|human|instruction)\b|q(?![a-z]))[ \t]*\d*[*]*[:.]"
    r"|^#+[ \t]*(?i:question|problem|exercise|example)[ \t]*\d*[ \t]*$"
    r"|<\|(?:im_start|start_header_id)\|>[ \t]*user|<start_of_turn>user|\[INST\]",
    re.MULTILINE,
)
"""With what a model that does not stop begins a problem of its own."""
STATED = re.compile(r"[\s*$€£\\(\[{+−-]*\d++(?!\.\s+[A-Za-z]|\)\s)")
"""What stands after GSM8K's `####`, and not after a heading's: a number, but no numbered title."""
NUMBER_ALONE = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:/\d+)?%?")
"""The expression of an answer of nothing but a number, from who was asked for nothing but a number."""
SHORT = 40
"""Characters that such an answer may have."""
OPENED = re.compile(r"(?:[\s:*]|\\\[|\$\$|```\w*\n)*")
"""What may stand between a mark and its answer: the line's end, a formula's or a block's beginning."""


def final_answer(solution: str) -> str | None:
    r"""What a solution states as its answer, up to the end of its line; reasoning before it is left out.

    That is what stands after the first `####` with a number, which ends a solution of GSM8K. Without one it is what
    stands after the last `A:`, `answer is`, `Answer:` or in the last box, before the next problem of a model that does
    not stop; a box stays the answer where a sentence about it follows ("the answer is correct"). Without any of these
    a number that stands alone is the answer; any other solution was cut short: its last number is some step's.

    Example:
        >>> final_answer("3 + 4 = <<3+4=7>>7 eggs\n#### 7"), final_answer("The answer is $1,007."), final_answer("a 7")
        ('7', '$1,007', None)
    """
    solution = END.split(ANNOTATION.sub("", without_thoughts(solution)), maxsplit=1)[0]
    marks = list(MARKER.finditer(solution))
    stated = next((mark for mark in marks if mark[0] == "####" and STATED.match(solution, mark.end())), None)
    if not marks and _is_number(solution.strip()):
        return solution.strip("*$ \t\r\n").removesuffix(".")
    if stated is not None or not marks:
        return None if stated is None else _after(stated, solution)
    marks = [mark for mark in marks if mark[0] != "####"] or marks  # without a number after it, it is a heading's
    first = next((mark for mark in marks if _states(_after(mark, solution))), marks[0])
    if run_on := NEXT_PROBLEM.search(solution, first.end()):
        solution = solution[: run_on.start()]
    own = [mark for mark in marks if mark.end() <= len(solution)]
    last = _after(own[-1], solution)
    boxes = [mark for mark in own if mark[0].startswith("\\")]
    return last if not boxes or _states(last) else _after(boxes[-1], solution)


def _states(answer: str | None) -> bool:
    """Whether what stands after a mark is an answer, right or wrong, and no sentence about one ("is correct")."""
    return answer is not None and (re.search(r"[\d\\]", answer) is not None or expression(answer) is not None)


def _is_number(text: str) -> bool:
    if len(text) > SHORT or re.search(r"[^\W\d_]", text):
        return False
    return NUMBER_ALONE.fullmatch(expression(text) or "") is not None


def _after(mark: re.Match[str], solution: str) -> str | None:
    """What is stated after a mark."""
    rest = solution[mark.end() :]
    if mark[0].endswith("{"):
        return _in_braces(rest).strip() or None
    if mark[0].startswith("\\"):
        return re.split(r"[\s$]", rest, maxsplit=1)[0].removesuffix(".")
    opened = OPENED.match(rest)
    rest = rest[opened.end() if opened else 0 :]
    return rest.split("\n", 1)[0].strip().strip("*").removesuffix(".") or None


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
    stated, wanted, right = final_answer(solution), gold_expression(gold), final_answer(gold) or gold
    if stated is None or len(stated) > LONGEST:
        return False
    if same_expression(expression(stated), wanted):
        return True
    # "3 million" is 3000000, and 3 where the question counts in millions: where one of both has the word.
    bare, bare_right = SCALE.sub(r"\1", stated), SCALE.sub(r"\1", right)
    if (bare == stated) == (bare_right == right):
        return False
    return same_expression(expression(bare), expression(bare_right) or wanted)
