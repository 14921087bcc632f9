"""WB-Elo against the rules written out naively, and its anchors."""

import gzip
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from bnf_align.evaluation.elo import ScoredOutput, anchored_last, play, virtual_votes, wb_elo
from bnf_align.records import BadInput

PUBLIC = os.environ.get("BNF_ALIGN_DATA")


def some_pool(models=5, items=60, seed=0):
    """Scores and lengths that meet every rule: missing and empty outputs, long and short ones."""
    rng = np.random.default_rng(seed)
    return {
        f"m{model}": {
            str(item): ScoredOutput(int(rng.integers(1, 11)), int(rng.choice([0, 300, 1_200, 2_500, 4_000])))
            for item in range(items)
            if rng.random() < 0.9
        }
        for model in range(models)
    }


def naive_votes(pool, margin, tie_margin, length_margin):
    votes = []
    models = sorted(pool)
    for item in {item for model in models for item in pool[model]}:
        for a in models:
            for b in models:
                if a >= b or item not in pool[a] or item not in pool[b]:
                    continue
                (score_a, length_a), (score_b, length_b) = pool[a][item], pool[b][item]
                if length_a == 0 or length_b == 0:
                    continue
                if score_a - score_b >= margin:
                    outcome = 1
                elif score_b - score_a >= margin:
                    outcome = 0
                elif abs(score_a - score_b) <= tie_margin:
                    outcome = 0.5
                else:
                    continue
                votes.append((a, b, 0.5 if abs(length_a - length_b) > length_margin else outcome))
    return sorted(votes)


def naive_elo(votes, anchors, order, interval):
    """Votes as (first, second, outcome), one at a time."""
    elo, updates = {}, {}
    for a, b, outcome in (votes[number] for number in order):
        for model in (a, b):
            elo.setdefault(model, anchors.get(model, 1000))
            updates.setdefault(model, 0)
        if a in anchors and b in anchors:
            continue
        expected = 1 / (1 + 10 ** ((elo[b] - elo[a]) / 400))
        elo[a] += 4 * (outcome - expected)
        elo[b] += 4 * ((1 - outcome) - (1 - expected))
        for model in (a, b):
            if model in anchors and updates[model] % interval == 0:
                elo[model] = (elo[model] + anchors[model]) / 2
            updates[model] += 1
    return elo


@pytest.mark.parametrize(("margin", "tie_margin", "length_margin"), [(2, 1, 1_500), (3, 2, math.inf), (4, 1, 800)])
def test_votes_are_those_of_the_rules_written_out(margin, tie_margin, length_margin):
    pool = some_pool()
    votes = virtual_votes(pool, margin, tie_margin, length_margin)
    found = [
        (votes.models[a], votes.models[b], outcome)
        for a, b, outcome in zip(votes.first, votes.second, votes.score, strict=True)
    ]
    assert sorted(found) == naive_votes(pool, margin, tie_margin, length_margin)
    assert {outcome for *_, outcome in found} == {0, 0.5, 1}


@pytest.mark.parametrize(
    ("scores", "lengths", "expected"),
    [
        ((7, 5), (100, 100), [1]),
        ((5, 7), (100, 100), [0]),
        ((6, 5), (100, 100), [0.5]),
        ((9, 1), (2_000, 500), [1]),  # 1500 characters apart still counts
        ((9, 1), (2_001, 500), [0.5]),
        ((1, 9), (2_001, 500), [0.5]),  # the shorter one was better: a tie all the same
        ((9, 1), (100, 0), []),
    ],
)
def test_a_vote_is_decided_by_two_points_unless_the_lengths_are_far_apart(scores, lengths, expected):
    a, b = (ScoredOutput(score, length) for score, length in zip(scores, lengths, strict=True))
    assert virtual_votes({"a": {"1": a}, "b": {"1": b}}).score.tolist() == expected


def test_playing_all_orders_in_step_is_playing_each_alone():
    votes = virtual_votes(some_pool())
    anchors = {"m1": 1100.0, "m3": 950.0}
    anchor = np.array([anchors.get(model, math.nan) for model in votes.models])
    moving = anchored_last(votes, anchor)
    rng = np.random.default_rng(7)
    orders = np.stack([rng.permutation(len(moving.score)) for _ in range(6)], axis=1)
    ratings = play(moving, anchor, orders, k=4, interval=25)
    listed = [
        (moving.models[a], moving.models[b], outcome)
        for a, b, outcome in zip(moving.first, moving.second, moving.score, strict=True)
    ]
    for row, order in zip(ratings, orders.T, strict=True):
        assert dict(zip(votes.models, row, strict=True)) == pytest.approx(naive_elo(listed, anchors, order, 25))


def test_turning_votes_and_leaving_out_those_between_anchors_changes_no_rating():
    votes = virtual_votes(some_pool())
    anchors = {"m0": 1100.0, "m3": 950.0, "m4": 1020.0}
    anchor = np.array([anchors.get(model, math.nan) for model in votes.models])
    listed = [
        (votes.models[a], votes.models[b], outcome)
        for a, b, outcome in zip(votes.first, votes.second, votes.score, strict=True)
    ]
    kept = [number for number, (a, b, _) in enumerate(listed) if not (a in anchors and b in anchors)]
    moving = anchored_last(votes, anchor)
    assert len(moving.score) == len(kept) < len(listed)
    ratings = play(moving, anchor, np.arange(len(kept))[:, None], k=4, interval=100)
    assert dict(zip(votes.models, ratings[0], strict=True)) == pytest.approx(
        naive_elo(listed, anchors, range(len(listed)), 100)
    )


def test_an_anchored_model_steps_back_halfway_after_its_first_update_and_every_hundredth_after():
    def after(wins):
        pool = {
            "new": {str(item): ScoredOutput(9, 100) for item in range(wins)},
            "old": {str(item): ScoredOutput(1, 100) for item in range(wins)},
        }
        ratings = wb_elo(virtual_votes(pool), {"old": 1000.0}, orders=1)
        return ratings["new"].elo, ratings["old"].elo

    assert after(1) == pytest.approx((1002, 999))  # 998, then halfway home
    gain = 4 * (1 - 1 / (1 + 10 ** (-3 / 400)))
    assert after(2) == pytest.approx((1002 + gain, 999 - gain))
    (new_100, old_100), (new_101, old_101) = after(100), after(101)
    gain = 4 * (1 - 1 / (1 + 10 ** ((old_100 - new_100) / 400)))
    assert (new_101, old_101) == pytest.approx((new_100 + gain, (old_100 - gain + 1000) / 2))


def test_anchors_alone_keep_their_ratings():
    ratings = wb_elo(virtual_votes(some_pool(2)), {"m0": 1100.0, "m1": 950.0, "elsewhere": 1300.0})
    assert {model: rating[:] for model, rating in ratings.items()} == {"m0": (1100, 0, 0), "m1": (950, 0, 0)}


def test_a_new_model_that_wins_three_votes_in_four_settles_190_points_above():
    rng = np.random.default_rng(1)
    outcomes = rng.permutation([True] * 1_500 + [False] * 500)
    pool = {
        "new": {str(item): ScoredOutput(8 if won else 3, 100) for item, won in enumerate(outcomes)},
        "old": {str(item): ScoredOutput(5, 100) for item in range(2_000)},
    }
    ratings = wb_elo(virtual_votes(pool), {"old": 1000.0}, orders=32)
    assert ratings["new"].elo - ratings["old"].elo == pytest.approx(400 * math.log10(3), abs=12)
    assert 0 < ratings["new"].order_std < 30
    assert ratings["new"].votes == 2_000


def test_ratings_depend_on_the_seed_and_not_on_the_order_of_files_or_rows():
    pool = some_pool()
    anchors = {"m1": 1100.0}
    turned = {model: dict(reversed(pool[model].items())) for model in reversed(pool)}
    ratings = wb_elo(virtual_votes(pool), anchors, orders=8)
    assert wb_elo(virtual_votes(turned), anchors, orders=8) == ratings
    assert wb_elo(virtual_votes(pool), anchors, orders=8, seed=1) != ratings


def test_a_pool_without_an_anchor_has_no_scale():
    with pytest.raises(BadInput, match=r"None of m0, m1 has an anchor.*gpt-x"):
        wb_elo(virtual_votes(some_pool(2)), {"gpt-x": 1200.0})


@pytest.mark.skipif(not PUBLIC, reason="needs the public data: set BNF_ALIGN_DATA to its folder")
def test_published_scores_with_the_published_anchors():
    folder = Path(PUBLIC) / "wildbench"
    anchors = json.loads((folder / "elo_anchors.json").read_text())
    pool = {}
    for model in ("gpt-3.5-turbo-0125", "gemma-7b-it"):
        with gzip.open(folder / f"{model}.jsonl.gz", "rt") as lines:
            rows = [json.loads(line) for line in lines]
        pool[model] = {
            row["session_id"]: ScoredOutput(float(row["score"]), row["output_chars_stripped"])
            for row in rows
            if not row["truncated"]
        }
    votes = virtual_votes(pool)
    assert len(votes.score) > 900
    both = wb_elo(votes, anchors, orders=4)
    assert {model: rating.elo for model, rating in both.items()} == {model: anchors[model] for model in pool}
    # With its anchor hidden, gpt-3.5 is placed by its votes against one model near its published WB-Elo, which all 61
    # models went into.
    one = wb_elo(votes, {"gemma-7b-it": anchors["gemma-7b-it"]})["gpt-3.5-turbo-0125"].elo
    leaderboard = json.loads((folder / "leaderboard_score_v2.0625.json").read_text())
    assert one == pytest.approx(leaderboard["gpt-3.5-turbo-0125"]["wb_elo"], abs=25)
