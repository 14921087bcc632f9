"""math-verify beside the published rule, which takes "-1 + i" for -1 (https://github.com/huggingface/Math-Verify)."""

from __future__ import annotations

import threading

from bnf_align.records import BadInput

SECONDS = 5


def equivalent(answer: str, gold: str) -> bool:
    """Whether both are the same expression, read as LaTeX.

    Raises:
        BadInput: If math-verify is not installed.
    """
    try:
        from math_verify import LatexExtractionConfig, parse, verify
    except ImportError as error:
        raise BadInput("--math-verify needs math-verify: pip install 'bnf-align[eval]'. Nothing else does.") from error
    # Its other way of reading hands digits and operators to sympy's `parse_expr`, which runs them as Python. Its
    # time limit is a signal, which only the main thread can have.
    seconds = SECONDS if threading.current_thread() is threading.main_thread() else None
    wanted, found = (
        parse(f"${text.strip().strip('$')}$", [LatexExtractionConfig()], parsing_timeout=seconds)
        for text in (gold, answer)
    )
    return bool(verify(wanted, found, timeout_seconds=seconds))
