"""WildBench's numbers: WB-Score from 1-10 scores, WB-Reward from pairwise verdicts.

Source of the rules: allenai/WildBench d6b8dca, `leaderboard/data_dir/_create_tables.py` and `_merge_results.py` (the
macro average in `src/view_wb_eval.py` is an older, unweighted one).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

GROUP_WEIGHTS = {
    "Creative Tasks": 0.5,
    "Planning & Reasoning": 1.25,
    "Math & Data Analysis": 1.0,
    "Information/Advice seeking": 0.75,
    "Coding & Debugging": 1.25,
}
"""What a group of tasks counts in the macro average; 4.75 in all."""

GROUP_OF_TAG = {
    "Information seeking": "Information/Advice seeking",
    "Advice seeking": "Information/Advice seeking",
    "Creative Writing": "Creative Tasks",
    "Editing": "Creative Tasks",
    "Brainstorming": "Creative Tasks",
    "Role playing": "Creative Tasks",
    "Others": "Creative Tasks",
    "Coding & Debugging": "Coding & Debugging",
    "Reasoning": "Planning & Reasoning",
    "Planning": "Planning & Reasoning",
    "Math": "Math & Data Analysis",
    "Data Analysis": "Math & Data Analysis",
}

OUTCOMES = {2: "win_much", 1: "win", 0: "tie", -1: "lose", -2: "lose_much"}
"""How far the model is ahead of the reference -> upstream's name."""

REWARDS = {"win_much": 1.0, "win": 0.5, "tie": 0.0, "lose": -0.5, "lose_much": -1.0}


def groups_of(primary: str, secondary: Iterable[str] = ()) -> list[str]:
    """The groups of an item from its primary and secondary tags, each once.

    >>> groups_of("Planning", ["Reasoning", "Math"])
    ['Planning & Reasoning', 'Math & Data Analysis']

    Raises:
        KeyError: If a tag is not one of the 12.
    """
    return list(dict.fromkeys(GROUP_OF_TAG[tag] for tag in (primary, *secondary)))


def adjusted(mean: float) -> float:
    """A mean judge score, 1 to 10, on the published scale: 5 is 0 and 10 is 100."""
    return (mean - 5) * 2 * 10


def category_scores(scores: Sequence[float], groups: Sequence[Collection[str]]) -> dict[str, float]:
    """Group -> adjusted mean score of the items that carry it; an item counts in each of its groups.

    Args:
        scores: 1 to 10, of the items with an output that is neither empty nor truncated.
        groups: Of each item, from `groups_of`.
    """
    of_group: dict[str, list[float]] = {}
    for score, names in zip(scores, groups, strict=True):
        for name in set(names):
            of_group.setdefault(name, []).append(score)
    return {name: adjusted(sum(of_group[name]) / len(of_group[name])) for name in GROUP_WEIGHTS if name in of_group}


def macro(categories: Mapping[str, float]) -> float:
    """The weighted mean over the five groups.

    As upstream, a group without an item counts as 0, the value of a mean score of 5; `missing_groups` names them.
    """
    return sum(value * GROUP_WEIGHTS[name] for name, value in categories.items()) / sum(GROUP_WEIGHTS.values())


def wb_score(categories: Mapping[str, float]) -> float:
    """The reported WB-Score: the weighted mean of `category_scores`."""
    return macro(categories)


def missing_groups(categories: Mapping[str, float]) -> list[str]:
    """The groups that no item carries: with any, a macro average is not one of WildBench's."""
    return [name for name in GROUP_WEIGHTS if name not in categories]


def outcome(ahead: int, length: int, reference_length: int, margin: int = -1) -> str:
    """The name of a verdict under WB-Reward's length rule.

    Args:
        ahead: 2, 1, 0, -1, -2: the model much better, slightly better, a tie, and the reference likewise.
        length: Characters of the model's output.
        reference_length: Characters of the reference's.
        margin: K: a slight win of an output longer by more than this is a tie. Below 0 there is no such rule; the
            leaderboard's default is 500.
    """
    longer = length - reference_length if ahead > 0 else reference_length - length
    return OUTCOMES[0 if abs(ahead) == 1 and 0 <= margin < longer else ahead]


def reward(counts: Mapping[str, int], total: int | None = None) -> float:
    """WB-Reward in [-1, 1] from the number of verdicts of each name.

    Args:
        counts: Name of `OUTCOMES` -> number of items.
        total: All judged items, of which upstream leaves those with an empty or truncated output out of `counts` but
            not out of the mean; None takes the sum of `counts`.
    """
    points = sum(REWARDS[name] * counts.get(name, 0) for name in REWARDS)
    return points / (total if total is not None else sum(counts.get(name, 0) for name in REWARDS))


def task_macro_reward(counts_of_group: Mapping[str, Mapping[str, int]]) -> float:
    """The weighted mean over the groups of the rewards within them."""
    return macro({name: reward(counts) for name, counts in counts_of_group.items()})


def mixed_reward(rewards: Collection[float]) -> float:
    """The published mix: the mean over the three references."""
    return sum(rewards) / len(rewards)
