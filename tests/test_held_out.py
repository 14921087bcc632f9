"""Scores of a user's own held-out preferences, against numbers worked out by hand."""

import pytest

from bnf_align.evaluation import score_outputs
from bnf_align.records import BadInput


def response(item, side, logp, tokens):
    return {"id": f"{item}/{side}", "item": item, "side": side, "logp": logp, "tokens": tokens, "model": "m"}


PAIRS = [
    response(0, "chosen", -8.0, 8),  # likelier as a whole (by 2) and less so per token
    response(0, "rejected", -10.0, 20),
    response(1, "rejected", -3.0, 3),
    response(1, "chosen", -4.0, 8),  # the other way about (by -1)
    response(2, "chosen", -6.0, 6),
    response(2, "rejected", -6.0, 6),
]


def test_accuracy_and_margin_are_of_chosen_over_rejected_and_a_tie_is_half():
    metrics = score_outputs("held_out", PAIRS).metrics
    assert metrics["accuracy"] == pytest.approx(50)
    assert metrics["margin"] == pytest.approx((2 - 1 + 0) / 3)
    assert metrics["accuracy_per_token"] == pytest.approx(50)
    assert metrics["margin_per_token"] == pytest.approx((-0.5 + 0.5 + 0) / 3)
    assert (metrics["pairs"], metrics["auc_per_token"]) == (3, None)
    better = [response(0, "chosen", -1.0, 1), response(0, "rejected", -9.0, 1)]
    assert score_outputs("held_out", better).metrics["accuracy"] == 100


def test_thumbs_are_compared_up_against_down_per_token():
    rows = [response(0, "up", -1.0, 1), response(1, "up", -6.0, 2), response(2, "down", -2.0, 1)]
    rows += [response(3, "down", -3.0, 1)]
    # Up 0 beats both downs; up 1, at -3 a token, loses one and ties the other.
    assert score_outputs("held_out", rows).metrics["auc_per_token"] == pytest.approx(100 * 2.5 / 4)


def test_against_the_base_a_response_counts_by_how_much_likelier_it_became():
    base = [row | {"logp": row["logp"] - gain} for row, gain in zip(PAIRS, (1, 3, 2, 5, 1, 0), strict=True)]
    metrics = score_outputs("held_out", PAIRS, base=base).metrics
    assert metrics["reward_margin"] == pytest.approx(((1 - 3) + (5 - 2) + (1 - 0)) / 3)
    assert metrics["reward_accuracy"] == pytest.approx(200 / 3)


def test_half_a_pair_is_dropped_and_counted():
    result = score_outputs("held_out", PAIRS[:-1])
    assert result.metrics["pairs"] == 2
    assert result.dropped == {"one side of the pair is missing": ["2"]}


@pytest.mark.parametrize("change", [{"side": "left"}, {"logp": None}, {"tokens": "8"}])
def test_rows_of_another_kind_are_refused_also_the_bases(change):
    odd = [PAIRS[0] | change, *PAIRS[1:]]
    with pytest.raises(BadInput, match="1 of 6 rows"):
        score_outputs("held_out", odd)
    with pytest.raises(BadInput, match="1 of 6 rows"):
        score_outputs("held_out", PAIRS, base=odd)
