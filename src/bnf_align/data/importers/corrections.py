"""Answers that a person rewrote, as LangSmith's feedback has them in `correction`, whose shape is the user's own."""

from __future__ import annotations

from typing import Any

from bnf_align.data.importers.files import unpacked
from bnf_align.data.importers.importer import Message
from bnf_align.data.importers.scores import number_of
from bnf_align.data.importers.turns import assistant, message, messages

NAMES = (
    "output",
    "answer",
    "response",
    "completion",
    "text",
    "message",
    "messages",
    "desired",
    "desired_output",
    "expected",
    "expected_output",
    "corrected",
    "correction",
    "ground_truth",
)
"""Under which of its names a correction holds the better answer. A `comment` or `explanation` is about an answer."""


def rewritten(correction: Any, depth: int = 3) -> list[Message] | None:
    """The better answer in a correction: a text, a turn, the last of several, or one of these under one of `NAMES`.

    Example:
        >>> rewritten({"answer": "Paris."}), rewritten({"score": 1, "explanation": "It is right."})
        ([{'role': 'assistant', 'content': 'Paris.'}], None)
    """
    value = unpacked(correction)
    if isinstance(value, str):
        return [assistant(value)] if value.strip() else None
    turn = message(value)
    turns = messages(value) if turn is None else [turn]
    if turns is not None:
        return turns[-1:] if turns[-1]["role"] == "assistant" and turns[-1].get("content") else None
    named = [value[name] for name in NAMES if value.get(name)] if isinstance(value, dict) else []
    return rewritten(named[0], depth - 1) if len(named) == 1 and depth else None


def corrects_the_score(correction: Any, score: Any) -> bool:
    """Whether a correction is of the score, another one in its place, as LangSmith's audit of evaluators writes it."""
    value = unpacked(correction)
    better = value.get("score") if isinstance(value, dict) else None
    return better is not None and (number_of(better) is None or number_of(better) != number_of(score))
