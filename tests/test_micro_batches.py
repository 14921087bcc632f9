"""How a step is cut and dealt: nothing is lost, the budget holds, padding and waiting are least."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnf_align.data.micro_batches import OVERHEAD, Item, plan_step

lengths = st.lists(st.integers(2, 60), min_size=1, max_size=40)
few_long = st.lists(st.integers(20, 2000), min_size=1, max_size=7)


def singles(lengths) -> list[Item]:
    return [Item((i,), int(length)) for i, length in enumerate(lengths)]


def lognormal_step(seed: int) -> list[Item]:
    """256 responses of about 512 tokens, as in the padding benchmark."""
    return singles(np.clip(np.random.default_rng(seed).lognormal(5.9, 0.8, 256), 8, 4096))


def padded_tokens(cut: list[Item]) -> int:
    return max(item.length for item in cut) * sum(len(item.rows) for item in cut)


def cost(cut: list[Item]) -> int:
    return OVERHEAD + (padded_tokens(cut) if cut else 0)


def rounds(plan) -> int:
    """Time of a step in which ranks wait for one another in every round."""
    return sum(max(map(cost, cuts)) for cuts in zip(*plan, strict=True))


def greedy(items: list[Item], budget: int) -> list[list[Item]]:
    """Longest first, a new micro-batch wherever the budget is full."""
    cuts: list[list[Item]] = []
    for item in sorted(items, key=lambda item: -item.length):
        if cuts and padded_tokens([*cuts[-1], item]) <= budget:
            cuts[-1].append(item)
        else:
            cuts.append([item])
    return cuts


def partitions(items: list[Item], budget: int):
    """Every way to cut items that keeps to the budget, neighbours in length or not."""
    if not items:
        yield []
        return
    first, rest = items[0], items[1:]
    for size in range(len(rest) + 1):
        for chosen in combinations(range(len(rest)), size):
            cut = [first, *(rest[i] for i in chosen)]
            if len(cut) == 1 or padded_tokens(cut) <= budget:
                for others in partitions([item for i, item in enumerate(rest) if i not in chosen], budget):
                    yield [cut, *others]


@settings(deadline=None)
@given(lengths, st.integers(10, 200), st.integers(1, 4))
def test_a_plan_holds_every_item_once_and_gives_ranks_equally_many_micro_batches(lengths, budget, world):
    items = singles(lengths)
    plan = plan_step(items, budget, world)
    assert len(plan) == world
    assert len({len(rank) for rank in plan}) == 1
    assert sorted(item.rows[0] for rank in plan for cut in rank for item in cut) == list(range(len(items)))


@settings(deadline=None)
@given(lengths, st.integers(10, 200), st.integers(1, 4))
def test_a_micro_batch_stays_within_the_budget_unless_one_item_alone_exceeds_it(lengths, budget, world):
    items = [Item((i, i + 1000), length) for i, length in enumerate(lengths)]
    for rank in plan_step(items, budget, world):
        for cut in rank:
            assert len(cut) <= 1 or padded_tokens(cut) <= budget


@settings(deadline=None)
@given(lengths, st.integers(10, 200), st.integers(1, 4))
def test_a_micro_batch_is_empty_only_where_no_cut_gives_ranks_equally_many(lengths, budget, world):
    items = singles(lengths)
    plan = plan_step(items, budget, world)
    fewest = len(greedy(items, budget))  # any number from the fewest to one item each can be cut
    possible = any(number % world == 0 for number in range(fewest, len(items) + 1))
    assert possible == all(cut for rank in plan for cut in rank)


@settings(deadline=None, max_examples=60)
@given(few_long, st.integers(500, 6000), st.integers(1, 2))
def test_one_rank_pays_the_least_of_all_ways_to_cut(lengths, budget, rows_per_item):
    items = [Item(tuple(range(rows_per_item)), length) for length in lengths]
    (cuts,) = plan_step(items, budget, 1)
    assert sum(map(cost, cuts)) == min(sum(map(cost, way)) for way in partitions(items, budget))


def test_two_ranks_take_hardly_longer_than_the_best_of_all_ways_to_cut():
    random = np.random.default_rng(0)
    found, best = [], []
    for _ in range(20):
        items = singles(random.integers(20, 2000, 7))
        found.append(rounds(plan_step(items, 4000, 2)))
        ways = (sorted(map(cost, way), reverse=True) for way in partitions(items, 4000) if len(way) % 2 == 0)
        best.append(min(sum(way[::2]) for way in ways))
    assert all(ours >= least for ours, least in zip(found, best, strict=True))
    assert np.mean(np.divide(found, best)) < 1.03


@settings(deadline=None)
@given(lengths, st.integers(100, 4000))
def test_one_rank_pays_no_more_than_with_the_greedy_cut(lengths, budget):
    items = singles(10 * length for length in lengths)
    (cuts,) = plan_step(items, budget, 1)
    assert sum(map(cost, cuts)) <= sum(map(cost, greedy(items, budget)))


@pytest.mark.parametrize("budget", [2048, 8192, 32768])
def test_padding_is_below_the_greedy_cut_s_and_below_three_percent(budget):
    for seed in range(3):
        items = lognormal_step(seed)
        useful = sum(item.length for item in items)
        (cuts,) = plan_step(items, budget, 1)
        ours, theirs = (sum(map(padded_tokens, way)) for way in (cuts, greedy(items, budget)))
        assert useful / 0.97 >= ours
        assert ours <= theirs


@pytest.mark.parametrize("budget", [8192, 32768])
def test_eight_ranks_wait_for_one_another_less_than_a_tenth_of_the_time(budget):
    for seed in range(3):
        plan = plan_step(lognormal_step(seed), budget, 8)
        work = sum(cost(cut) for rank in plan for cut in rank)
        assert rounds(plan) <= 1.1 * work / 8
        assert max(sum(map(cost, rank)) for rank in plan) <= 1.03 * work / 8


def test_each_round_gives_its_costliest_micro_batch_to_the_rank_that_has_done_least():
    # No two fit together. Rounds: 100 90, 80 75, 70 51. A snake would end with 245 and 221.
    plan = plan_step(singles([51, 70, 75, 80, 90, 100]), 100, 2)
    assert [[cut[0].length for cut in rank] for rank in plan] == [[100, 75, 51], [90, 80, 70]]


@settings(deadline=None)
@given(st.lists(st.integers(2, 60), min_size=1, max_size=20, unique=True), st.randoms(), st.integers(1, 4))
def test_the_plan_depends_on_the_items_and_not_on_their_order(lengths, random, world):
    items = singles(lengths)
    shuffled = random.sample(items, len(items))
    assert plan_step(items, 120, world) == plan_step(shuffled, 120, world)


def test_micro_batches_hold_rows_of_like_length():
    (rank,) = plan_step(singles([10, 50, 11, 49, 12, 48]), 150, 1)
    assert sorted(sorted(item.length for item in cut) for cut in rank) == [[10, 11, 12], [48, 49, 50]]


def test_a_rank_without_items_gets_an_empty_micro_batch():
    plan = plan_step(singles([5]), 100, 3)
    assert sorted(len(cut) for rank in plan for cut in rank) == [0, 0, 1]


def test_nothing_to_do_is_a_plan_without_micro_batches():
    assert plan_step([], 100, 2) == [[], []]
