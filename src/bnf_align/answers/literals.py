"""Whether an answer is the same Python literal: the rule of ZeroEval for CRUXEval since 2024-09-22."""

from __future__ import annotations


def same_literal(answer: str, gold: str) -> bool:
    r"""Whether both read the same without the quotes around them; two empty texts do.

    Nothing is parsed: `[1,2]` is not `[1, 2]`. A newline in the answer stands for the gold's `\n`, which JSON turned
    into one.

    Example:
        >>> same_literal("abc", "'abc'"), same_literal("[1,2]", "[1, 2]"), same_literal("", "''")
        (True, False, True)
    """
    return answer.strip("'\"").replace("\n", "\\n") == gold.strip("'\"")
