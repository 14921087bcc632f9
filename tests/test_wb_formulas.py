"""WildBench's formulas against the published leaderboard."""

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from bnf_align.evaluation.tasks.wild_bench_scores import (
    GROUP_OF_TAG,
    GROUP_WEIGHTS,
    adjusted,
    category_scores,
    item_groups,
    macro,
    outcome,
    reward,
)

PUBLIC = os.environ.get("BNF_ALIGN_DATA")
needs_public = pytest.mark.skipif(not PUBLIC, reason="needs the public data: set BNF_ALIGN_DATA to its folder")


def published(name):
    return json.loads((Path(PUBLIC) / "wildbench" / name).read_text())


@needs_public
def test_the_categories_of_every_leaderboard_row_give_its_wb_score():
    rows = published("leaderboard_score_v2.0625.json")
    assert len(rows) == 52
    for model, row in rows.items():
        assert macro(row["category_scores"]) == pytest.approx(row["wb_score"], abs=1e-9), model
        assert row["category_scores"].keys() == GROUP_WEIGHTS.keys()


@needs_public
def test_the_counts_of_every_reward_row_give_its_rewards():
    rows = [row for table in published("reward_counts.json").values() for row in table.values()]
    assert len(rows) == 268
    for row in rows:
        assert reward(row, row["total"]) == pytest.approx(row["reward"], abs=1e-12)
        rewards = {group: reward(counts) for group, counts in row["task_categorized_results"].items()}
        assert macro(rewards) == pytest.approx(row["task_macro_reward"], abs=1e-12)
        for group, counts in row["task_categorized_results"].items():
            assert reward(counts) == pytest.approx(row["task_categorized_rewards"][group], abs=1e-12)


@needs_public
def test_the_length_rule_of_the_published_counts_turns_slight_verdicts_into_ties_only():
    """K = 500 beside K = -1: what leaves `win` and `lose` arrives in `tie`, and the rest stays."""
    tables = published("reward_counts.json")
    for reference in ("gpt4t", "haiku", "llama"):
        free, ruled = tables[f"{reference}|K=-1"], tables[f"{reference}|K=500"]
        for model in free.keys() & ruled.keys():
            before, after = free[model], ruled[model]
            for name in ("win_much", "lose_much", "total"):
                assert before[name] == after[name]
            moved = before["win"] - after["win"], before["lose"] - after["lose"]
            assert min(moved) >= 0
            assert sum(moved) == after["tie"] - before["tie"]


@needs_public
@pytest.mark.parametrize("model", ["gpt-3.5-turbo-0125", "gemma-7b-it"])
def test_the_plain_score_of_published_judgments_comes_out(model):
    expected = {row["model"]: row for row in json.loads((Path(PUBLIC) / "expected.json").read_text())["wildbench"]}
    with gzip.open(Path(PUBLIC) / "wildbench" / f"{model}.jsonl.gz", "rt") as lines:
        scores = [float(json.loads(line)["score"]) for line in lines]
    assert adjusted(sum(scores) / len(scores)) == pytest.approx(expected[model]["wb_score_plain"], abs=1e-6)


def test_twelve_tags_fall_into_five_groups():
    assert Counter(GROUP_OF_TAG.values()) == {
        "Creative Tasks": 5,
        "Planning & Reasoning": 2,
        "Math & Data Analysis": 2,
        "Information/Advice seeking": 2,
        "Coding & Debugging": 1,
    }
    assert set(GROUP_OF_TAG.values()) == set(GROUP_WEIGHTS)
    assert sum(GROUP_WEIGHTS.values()) == 4.75


def test_an_item_counts_once_in_each_of_its_groups():
    tags = {"a": ["Math", "Data Analysis", "Coding & Debugging"], "b": ["Editing"], "c": ["Math"]}
    groups = item_groups(["a", "b", "c"], tags)
    assert groups[0] == ["Math & Data Analysis", "Coding & Debugging"]
    scores = category_scores([8, 3, 5], groups)
    assert scores == {"Math & Data Analysis": 30, "Coding & Debugging": 60, "Creative Tasks": -40}
    twice = category_scores([8, 3], [["Creative Tasks", "Creative Tasks"], ["Creative Tasks"]])
    assert twice == {"Creative Tasks": 10}


def test_wb_score_weighs_the_groups():
    categories = {
        "Creative Tasks": 10,
        "Planning & Reasoning": 20,
        "Math & Data Analysis": 30,
        "Information/Advice seeking": 40,
        "Coding & Debugging": 50,
    }
    expected = (0.5 * 10 + 1.25 * 20 + 1 * 30 + 0.75 * 40 + 1.25 * 50) / 4.75
    assert macro(categories) == pytest.approx(expected)
    assert macro(dict(reversed(categories.items()))) == pytest.approx(expected)


def test_a_group_without_items_counts_as_zero():
    assert macro({"Math & Data Analysis": 47.5}) == pytest.approx(10)


def test_a_score_of_five_is_zero_and_of_ten_a_hundred():
    assert [adjusted(mean) for mean in (5, 10, 1)] == [0, 100, -80]


@pytest.mark.parametrize(
    ("ahead", "longer", "margin", "expected"),
    [
        (2, 9_999, 500, "win_much"),  # a clear verdict stands whatever the lengths
        (-2, -9_999, 500, "lose_much"),
        (1, 501, 500, "tie"),
        (1, 500, 500, "win"),
        (1, -9_999, 500, "win"),  # shorter and better
        (-1, -501, 500, "tie"),  # the reference won and is the longer one
        (-1, -500, 500, "lose"),
        (-1, 9_999, 500, "lose"),
        (0, 9_999, 500, "tie"),
        (1, 9_999, -1, "win"),  # no rule
        (1, 1, 0, "tie"),
        (1, 0, 0, "win"),
    ],
)
def test_a_slight_win_of_a_much_longer_output_is_a_tie(ahead, longer, margin, expected):
    assert outcome(ahead, length=10_000 + longer, reference_length=10_000, margin=margin) == expected


def test_a_reward_is_one_for_much_better_and_half_for_slightly():
    counts = {"win_much": 3, "win": 4, "tie": 10, "lose": 1, "lose_much": 2}
    assert reward(counts) == pytest.approx((3 + 2 - 0.5 - 2) / 20)
    assert reward(counts, total=25) == pytest.approx(2.5 / 25)
    assert reward({"lose_much": 4}) == -1


def test_the_task_macro_reward_weighs_groups_and_not_items():
    counts = {"Creative Tasks": {"win_much": 1}, "Coding & Debugging": {"lose": 900}}
    assert macro({group: reward(found) for group, found in counts.items()}) == pytest.approx(
        (0.5 * 1 + 1.25 * -0.5) / 4.75
    )
