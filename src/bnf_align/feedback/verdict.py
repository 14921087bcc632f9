"""What a person says of one answer, or of two to the same prompt, and the rows that keep it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bnf_align.feedback.store import Prompt, Row, choice, thumb

Verdict = bool | Literal["both", "neither"]
"""True for a thumb up, or for the first of two answers; of two answers both may be good, or neither."""


@dataclass(frozen=True)
class Answer:
    """What a model said."""

    text: str
    model: str | None
    cut: bool = False
    """Whether it was cut off at the most tokens it may have."""


def rows_of(prompt: Prompt, answers: Sequence[Answer], verdict: Verdict, reason: str = "", **about: Any) -> list[Row]:
    """A verdict as rows: a thumb, a pair, or, where neither of two answers is better, a thumb for each.

    Args:
        prompt: What was said before the answers.
        answers: One or two, in the order in which they stand on the page.
        verdict: See `Verdict`.
        reason: Why, if the person says so.
        about: What else each row keeps.
    """
    about["reason"] = reason.strip() or None
    if any(answer.cut for answer in answers):
        about["cut"] = True
    if len(answers) == 2:
        about["shown_first"] = answers[0].model
    if len(answers) == 1 or isinstance(verdict, str):
        label = verdict == "both" if isinstance(verdict, str) else verdict
        rows = [thumb(prompt, answer.text, label, model=answer.model, **about) for answer in answers]
        return [row | {"created_at": rows[0]["created_at"]} for row in rows]  # one judgement, one time
    chosen, rejected = answers if verdict else reversed(answers)
    about |= {"model": chosen.model, "rejected_model": rejected.model}
    return [choice(prompt, chosen.text, rejected.text, **about)]


def verdict_of(rows: Sequence[Row], answers: Sequence[Answer]) -> Verdict | None:
    """What `rows` say of `answers`, in the order in which they stand on the page now; None without rows."""
    if not rows:
        return None
    if len(rows) == 2:
        return "both" if rows[0]["label"] else "neither"
    if "label" in rows[0]:
        return bool(rows[0]["label"])
    chosen = rows[0]["chosen"]
    return answers[0].text == (chosen if isinstance(chosen, str) else chosen[0]["content"])
