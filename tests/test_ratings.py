"""Win rates and their intervals: published numbers, and the same rules on battles of our own."""

import gzip
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bnf_align.evaluation.control import fit_logistic
from bnf_align.evaluation.ratings import Battle, clustered_intervals, official_intervals, read_battles, win_rates
from bnf_align.records import BadInput

PUBLIC = os.environ.get("BNF_ALIGN_DATA")
needs_public = pytest.mark.skipif(not PUBLIC, reason="needs the public data: set BNF_ALIGN_DATA to its folder")


def published(file):
    with gzip.open(Path(PUBLIC) / "arena_hard" / file, "rt") as lines:
        battles = read_battles(map(json.loads, lines))
    expected = json.loads((Path(PUBLIC) / "expected.json").read_text())["arena_hard"]
    return battles, {row["model"]: row for row in expected if row["file"] == file}


def star(questions=400, seed=0):
    """Two models against `base` on the same questions: `good` wins 70 %, `poor` 30 %, with ties and weights."""
    rng = np.random.default_rng(seed)
    return [
        Battle(str(question), model, "base", float(rng.choice([1, 0.5, 0], p=[p - 0.1, 0.2, 0.9 - p])), weight)
        for question in range(questions)
        for model, p in (("good", 0.7), ("poor", 0.3))
        for weight in (1, int(rng.choice([1, 3])))
    ]


def half_width(interval):
    return (interval.high - interval.low) / 2


@needs_public
@pytest.mark.parametrize(
    ("file", "baseline", "models"),
    [("battles_gpt-4-0613.jsonl.gz", "gpt-4-0314", 1), ("battles_jl_e99fab2.jsonl.gz", "gpt4_1106_preview", 7)],
)
def test_every_published_win_rate_comes_out_to_the_printed_digit(file, baseline, models):
    battles, expected = published(file)
    rates = win_rates(battles, baseline)
    assert {model: round(rate, 2) for model, rate in rates.items()} == {
        model: row["score"] for model, row in expected.items()
    }
    assert len(rates) == models


@needs_public
def test_the_published_interval_is_too_narrow_because_it_draws_games_apart():
    battles, expected = published("battles_gpt-4-0613.jsonl.gz")
    clustered = clustered_intervals(battles, "gpt-4-0314")["gpt-4-0613"]
    assert half_width(clustered) == pytest.approx(3.96, abs=0.1)
    official = official_intervals(battles, "gpt-4-0314")["gpt-4-0613"]
    row = expected["gpt-4-0613"]
    # 100 resamples: an end has a standard error of about 0.4.
    assert official == pytest.approx((row["rating_q025"], row["rating_q975"]), abs=1.2)
    many = official_intervals(battles, "gpt-4-0314", resamples=10_000)["gpt-4-0613"]
    assert half_width(many) == pytest.approx(2.5, abs=0.15)


def test_a_win_rate_is_the_weighted_mean_outcome_with_ties_as_halves():
    battles = [
        Battle("1", "m", "base", 1.0, weight=3),
        Battle("1", "m", "base", 0.5),
        Battle("2", "m", "base", 0.0, weight=3),
        Battle("2", "m", "base", 1.0),
    ]
    assert win_rates(battles, "base") == {"m": pytest.approx(100 * 4.5 / 8)}


def test_a_weight_is_so_many_copies_and_either_side_may_be_named_first():
    battles = star()
    copies = [battle._replace(weight=1) for battle in battles for _ in range(battle.weight)]
    turned = [Battle(b.question, b.opponent, b.model, 1 - b.score, b.weight) for b in battles]
    assert win_rates(copies, "base") == pytest.approx(win_rates(battles, "base"))
    assert win_rates(turned, "base") == pytest.approx(win_rates(battles, "base"))
    assert clustered_intervals(copies, "base") == clustered_intervals(battles, "base")
    assert official_intervals(copies, "base") == official_intervals(battles, "base")


def test_the_published_rows_are_read_from_the_side_of_model_a():
    rows = [
        {"question_id": 7, "model_a": "base", "model_b": "m", "winner": winner}
        for winner in ("model_a", "model_b", "model_b", "tie", "tie (bothbad)")
    ]
    battles = read_battles(rows)
    assert [battle.score for battle in battles] == [1, 0, 0, 0.5, 0.5]
    assert battles[0][:3] == ("7", "base", "m")
    assert win_rates(battles, "base") == {"m": pytest.approx(60)}


def test_a_row_without_a_verdict_is_named():
    rows = [{"question_id": "1", "model_a": "a", "model_b": "b", "winner": winner} for winner in ("tie", None, "a")]
    with pytest.raises(BadInput, match=r"2 rows \(1, 2\).*None"):
        read_battles(rows)


@pytest.mark.parametrize("battles", [[], [Battle("1", "a", "b", 1.0)], [Battle("1", "base", "base", 1.0)]])
def test_a_win_rate_needs_the_baseline_in_every_battle(battles):
    with pytest.raises(BadInput, match="common baseline"):
        win_rates(battles, "base")


def test_the_clustered_interval_is_that_of_the_mean_over_questions():
    battles = [Battle(str(number), "m", "base", float(number % 4 == 0)) for number in range(1_000)]
    expected = 1.96 * 100 * math.sqrt(0.25 * 0.75 / 1_000)
    (interval,) = clustered_intervals(battles, "base").values()
    assert half_width(interval) == pytest.approx(expected, rel=0.03)
    assert (interval.low + interval.high) / 2 == pytest.approx(25, abs=0.2)


def test_saying_everything_four_times_narrows_the_official_interval_only():
    once = star()
    four_times = once * 4
    for model in ("good", "poor"):
        before, after = (clustered_intervals(battles, "base")[model] for battles in (once, four_times))
        assert after == pytest.approx(before)
        before, after = (official_intervals(battles, "base", 4_000)[model] for battles in (once, four_times))
        assert half_width(after) == pytest.approx(half_width(before) / 2, rel=0.05)


@pytest.mark.parametrize("intervals", [clustered_intervals, official_intervals])
def test_an_interval_does_not_depend_on_the_order_of_the_battles(intervals):
    battles = star()
    assert intervals(battles[::-1], "base") == intervals(battles, "base")


def test_a_model_with_one_question_in_the_pool_still_gets_its_interval():
    battles = [*star(50), Battle("0", "rare", "base", 1.0)]
    assert clustered_intervals(battles, "base")["rare"] == (100, 100)


def test_win_rates_need_no_scikit_learn_and_the_rest_says_what_to_install(monkeypatch):
    code = """
import sys
sys.modules |= {"sklearn": None}
from bnf_align.evaluation.ratings import Battle, clustered_intervals, win_rates
battles = [Battle("1", "m", "base", 1.0)]
assert win_rates(battles, "base") == {"m": 100.0} and clustered_intervals(battles, "base")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    monkeypatch.setitem(sys.modules, "sklearn.linear_model", None)
    with pytest.raises(BadInput, match="pip install scikit-learn"):
        fit_logistic(np.ones((1, 1)), np.ones(1), np.ones(1))
