"""Which of several scores is the thumb, and numbers whose scale only the user knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bnf_align.records import BadInput, DataReport
from bnf_align.sources.source import Options

THUMBS = frozenset({"feedback", "user_feedback", "user_score", "user_liked", "thumb", "thumbs", "thumbs_up", "like"})
THUMBS |= {"liked", "helpful"}
"""Names under which a yes says that the answer was good. One such as `hallucination` would say the opposite."""
TRUE_FALSE = {"true": "up", "false": "down"}
THRESHOLDS = "--up_from NUMBER --down_to NUMBER"


def is_thumb(name: str) -> bool:
    """Whether a score of this name, written with `-`, `_` or a space, is a thumb."""
    return name.lower().replace("-", "_").replace(" ", "_") in THUMBS


def chosen_score(names: Mapping[str, int], options: Options, report: DataReport) -> str:
    """The score that is read.

    Raises:
        BadInput: If it is not certain, or the one that is named is not there.
    """
    listed = ", ".join(f"{name} ({count:,})" for name, count in Counter(names).most_common(20))
    if options.score_name is not None:
        if options.score_name not in names:
            raise BadInput(f"--score_name {options.score_name}: there is no such score. There are: {listed}")
        return options.score_name
    if len(names) == 1:
        return next(iter(names))
    thumbs = [name for name in names if is_thumb(name)]
    if len(thumbs) != 1:
        raise BadInput(
            f"Several scores, and which of them is the thumb is not certain: {listed}. Say --score_name NAME"
        )
    report.notes.append(f"score `{thumbs[0]}` is read, of {listed}; another? --score_name")
    return thumbs[0]


def by_threshold(values: Iterable[Any], options: Options) -> dict[str, str]:
    """A label map for the values that are numbers, by `--up_from` and `--down_to`; empty without them.

    Raises:
        BadInput: If a number would be both.

    Example:
        >>> by_threshold([1, 3, 4.5, True, "good"], Options(up_from=4, down_to=2))
        {'1': 'down', '3': 'drop', '4.5': 'up'}
    """
    up, down = options.up_from, options.down_to
    if up is None and down is None:
        return {}
    if up is not None and down is not None and down >= up:
        raise BadInput(
            f"--up_from {up:g} --down_to {down:g}: a score between them would be both; --down_to is the lower."
        )
    found = {str(value): number for value in values if (number := number_of(value)) is not None}
    ups = {text for text, number in found.items() if up is not None and number >= up}
    downs = {text for text, number in found.items() if down is not None and number <= down}
    return {text: "up" if text in ups else "down" if text in downs else "drop" for text in found}


def threshold_hint(values: Iterable[Any], flags: str = THRESHOLDS) -> str:
    """What to say beside `--label_map` where ratings are numbers, which may be many; nothing where they are words."""
    numbers = [number for value in values if (number := number_of(value)) is not None]
    if len(numbers) < 2:
        return ""
    return f". Or place the scale, which goes from {min(numbers):g} to {max(numbers):g}: {flags}"


def number_of(value: Any) -> float | None:
    """A score as a number, from a number or its text; None for a bool, a word or what is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < float("inf") else None


def label_of(cell: Any, text_only: bool) -> Any:
    """A label as its column has it: None for an empty cell or NaN; where all is text (CSV), a number for its text."""
    number = number_of(cell) if text_only else None
    if cell != cell or (text_only and cell == ""):
        return None
    return cell if number is None else number


def thumb_values(name: str, values: Sequence[Any]) -> list[Any]:
    """Scores of one name: where it is a thumb's and they are 1 and 0 alone, as bools; else as they are.

    Example:
        >>> thumb_values("user-feedback", [1, 0.0]), thumb_values("user-feedback", [1, 5]), thumb_values("toxic", [1])
        ([True, False], [1, 5], [1])
    """
    numbers = [value if isinstance(value, bool) else number_of(value) for value in values]
    if not is_thumb(name) or not all(
        value is None or number in (0, 1) for value, number in zip(values, numbers, strict=True)
    ):
        return list(values)
    return [None if value is None else number == 1 for value, number in zip(values, numbers, strict=True)]
