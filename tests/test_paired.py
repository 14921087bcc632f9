"""Two models on the same items."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy.stats import binomtest

from bnf_align.evaluation.paired import compare
from bnf_align.records import BadInput
from bnf_align.stats import bootstrap_mean, holm, permutation_test, sign_test


def scored(values):
    return {str(item): value for item, value in enumerate(values)}


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (5, 0), (3, 9), (9, 3), (10, 10), (700, 800), (1_400, 1_300)])
def test_the_sign_test_is_exact(wins, losses):
    decided = wins + losses
    tail = sum(math.comb(decided, number) for number in range(min(wins, losses) + 1))
    expected = min(1.0, float(Fraction(2 * tail, 2**decided)))
    assert sign_test(wins, losses) == pytest.approx(expected, rel=1e-9)


def test_the_permutation_test_approaches_the_enumeration_of_all_sign_flips():
    gaps = np.array([1.5, -0.5, 2.0, 0.5, 1.0, -1.0, 3.0, 0.0, 0.5, 1.0])
    flips = np.array(list(itertools.product((-1, 1), repeat=len(gaps))))
    exact = np.mean(np.abs(flips @ gaps) >= abs(gaps.sum()) - 1e-9)
    assert permutation_test(gaps, permutations=40_000) == pytest.approx(exact, abs=0.005)


def test_holm_multiplies_the_smallest_p_value_by_all_and_each_next_by_one_less():
    assert holm([0.04, 0.01, 0.03, 0.9]) == pytest.approx([0.09, 0.04, 0.09, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_right_and_wrong_is_compared_by_mcnemar_on_the_items_that_differ():
    first = scored([True] * 60 + [True] * 15 + [False] * 5 + [False] * 20)
    second = scored([True] * 60 + [False] * 15 + [True] * 5 + [False] * 20)
    found = compare(first, second)
    assert (found.test, found.wins, found.losses, found.ties) == ("mcnemar", 15, 5, 80)
    assert found.difference == pytest.approx(0.10)
    assert found.p_value == pytest.approx(binomtest(15, 20).pvalue)
    turned = compare(second, first)
    assert turned.difference == pytest.approx(-0.10)
    assert (turned.wins, turned.p_value) == (5, found.p_value)


def test_scores_are_compared_by_permutation():
    rng = np.random.default_rng(0)
    base = rng.integers(1, 9, size=200)
    better = base + rng.choice([0, 1, 2, -1], size=200, p=[0.4, 0.3, 0.2, 0.1])
    found = compare(scored(better.tolist()), scored(base.tolist()))
    assert found.test == "permutation"
    assert found.p_value < 0.001
    assert found.interval.low > 0
    assert found.difference == pytest.approx((better - base).mean())


def test_pairing_sees_a_difference_that_two_separate_intervals_do_not():
    """Items of very different difficulty: each mean has a wide interval, their difference a narrow one."""
    hardness = np.random.default_rng(1).normal(0, 10, size=300)
    found = compare(scored((hardness + 1).tolist()), scored((hardness + np.resize([0.0, 0.5], 300)).tolist()))
    separate = bootstrap_mean(hardness)
    assert separate.high - separate.low > 2
    assert found.interval.low > 0.7
    assert found.p_value < 0.001


def test_the_interval_is_that_of_a_mean_difference():
    gaps = np.random.default_rng(2).normal(0.3, 2.0, size=900)
    low, high = bootstrap_mean(gaps)
    assert (high - low) / 2 == pytest.approx(1.96 * gaps.std() / math.sqrt(900), rel=0.03)
    assert (high + low) / 2 == pytest.approx(gaps.mean(), abs=0.01)


def test_only_shared_items_count_and_the_others_are_counted():
    first, second = {"a": 1, "b": 0, "c": 1}, {"b": 1, "c": 1, "d": 0, "e": 1}
    found = compare(first, second)
    assert (found.difference, found.unpaired) == (-0.5, 3)
    assert (found.wins, found.losses, found.ties) == (0, 1, 1)


def test_a_model_does_not_differ_from_itself():
    for values in ([True, False] * 30, [1.0, 7.5, 3.0] * 20):
        found = compare(scored(values), scored(values))
        assert (found.difference, found.interval, found.p_value) == (0, (0, 0), 1)


def test_chance_differences_are_called_significant_about_as_often_as_they_should():
    rng = np.random.default_rng(3)
    p_values = [permutation_test(rng.normal(size=30), permutations=200, seed=seed) for seed in range(300)]
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.06)


def test_a_comparison_depends_on_the_seed_and_not_on_the_order_of_items():
    rng = np.random.default_rng(4)
    first, second = scored(rng.normal(size=80).tolist()), scored(rng.normal(size=80).tolist())
    turned = dict(reversed(first.items()))
    assert compare(first, second) == compare(turned, second)
    assert compare(first, second, seed=1).interval != compare(first, second).interval


def test_models_without_a_common_item_cannot_be_paired():
    with pytest.raises(BadInput, match="share none of their 1 and 2 items"):
        compare({"a": 1}, {"b": 1, "c": 0})
