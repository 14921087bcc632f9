"""What several people's choices between answers come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

Choice = tuple[str, str]
"""The better of two answers, and the worse one."""


def settled(choices: Sequence[Choice | None], raters: str) -> list[Choice]:
    """The choices to write a pair for, by the rule for several raters.

    Args:
        choices: One per person; None of one who preferred neither, which is a choice like the others.
        raters: As in `Options`: "majority" leaves out a tie, "unanimous" any disagreement, "all" nothing.

    Example:
        >>> settled([("a", "b"), None, ("a", "b")], "majority"), settled([("a", "b"), ("b", "a")], "majority")
        ([('a', 'b')], [])
    """
    if raters == "all":
        return [choice for choice in choices if choice is not None]
    ranked = Counter(choices).most_common(2)
    if len(ranked) > 1 and (raters == "unanimous" or ranked[0][1] == ranked[1][1]):
        return []
    return [choice for choice, _ in ranked[:1] if choice is not None]
