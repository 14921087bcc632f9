"""What a judge of Arena-Hard decided: from its text to a label, from a label to an outcome."""

from __future__ import annotations

import re
from typing import NamedTuple

from bnf_align.thoughts import without_thoughts

# lmarena/arena-hard-auto d99b139, config/judge_config.yaml, `regex_pattern`. Version 2.0 has other rules.
LABEL = re.compile(r"\[\[([AB<>=]+)\]\]")

MUCH = 3
"""Battles that a verdict of "much better" stands for."""


class Outcome(NamedTuple):
    """What one game says of the model."""

    score: float
    """1 won, 0.5 tied, 0 lost."""
    weight: int


# For assistant A. The pattern also lets `A<B`, `A>>A` or `B=A` pass: the five labels the judge was offered count, as
# upstream, the others drop their game.
OUTCOMES = {
    "A>>B": Outcome(1.0, MUCH),
    "A>B": Outcome(1.0, 1),
    "A=B": Outcome(0.5, 1),
    "B>A": Outcome(0.0, 1),
    "B>>A": Outcome(0.0, MUCH),
}


def labels(judgment: str) -> set[str]:
    """The different labels in a judge's text; what it thinks before it speaks does not count."""
    return set(LABEL.findall(without_thoughts(judgment)))


def verdict(judgment: str) -> str | None:
    """The label that a judge's text decides on; None where it has none, or several that differ.

    Args:
        judgment: The judge's own turns and nothing else: a prompt quotes the answers, and an answer may hold a label.
    """
    found = labels(judgment)
    return found.pop() if len(found) == 1 else None


def outcome(label: str, game: int) -> Outcome | None:
    """What `label` says of the model, which is B in game 1 and A in game 2; None for a label that was not offered."""
    of_a = OUTCOMES.get(label)
    if of_a is None or game == 2:
        return of_a
    return Outcome(1 - of_a.score, of_a.weight)
