"""Whether raters agree is measured by Krippendorff's alpha, over the answers that several of them rated."""

import numpy as np
import pytest

from bnf_align.data.doctor import examine
from bnf_align.data.doctor.agreement import krippendorff, rater_column
from rows import pair, single


def agreement(path, **settings):
    return next((finding for finding in examine(path, **settings).findings if finding.name == "agreement"), None)


def literal_alpha(units) -> float:
    """Krippendorff (2011), section A and C, word for word: 1 - observed disagreement / expected disagreement."""
    units = [unit for unit in units if len(unit) > 1]
    ratings = [rating for unit in units for rating in unit]
    observed = sum(
        sum(a != b for i, a in enumerate(unit) for j, b in enumerate(unit) if i != j) / (len(unit) - 1)
        for unit in units
    )
    expected = sum(a != b for i, a in enumerate(ratings) for j, b in enumerate(ratings) if i != j)
    return 1 - (observed / len(ratings)) / (expected / (len(ratings) * (len(ratings) - 1)))


def test_alpha_is_that_of_the_literature():
    """The binary example of Krippendorff (2011), section A: ten items, two observers, alpha 0.095."""
    meg = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    owen = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    alpha, observed = krippendorff(np.array(meg) + np.array(owen), np.full(10, 2))
    assert alpha == pytest.approx(0.095, abs=5e-4)
    assert observed == pytest.approx(0.6)


def test_alpha_of_items_with_two_three_and_five_ratings_is_the_literal_one():
    generator = np.random.default_rng(0)
    units = [generator.integers(0, 2, size=size).tolist() for size in (2, 2, 3, 3, 5, 5, 2, 4)]
    alpha, _ = krippendorff(np.array([sum(unit) for unit in units]), np.array([len(unit) for unit in units]))
    assert alpha == pytest.approx(literal_alpha(units), abs=1e-12)


def test_where_all_ratings_are_the_same_alpha_is_undefined():
    assert krippendorff(np.array([2, 2]), np.array([2, 2])) == (None, 1.0)


def rated(number, label, rater, **columns):
    return single(number, label, rater=rater, **columns)


def test_raters_of_the_same_answers_are_compared_though_training_leaves_the_torn_ones_out(write):
    rows = [rated(0, True, "ann"), rated(0, True, "bob"), rated(1, False, "ann"), rated(1, False, "bob")]
    rows += [rated(2, True, "ann"), rated(2, False, "bob"), rated(3, True, "ann"), rated(4, None, "bob")]
    found = agreement(write(rows))
    assert found.figures["answers"] == 3
    assert found.figures["of"] == 4
    assert found.figures["raters"] == 2
    assert found.figures["agreement"] == pytest.approx(2 / 3, abs=1e-4)
    assert found.figures["alpha"] == pytest.approx(literal_alpha([[1, 1], [0, 0], [1, 0]]), abs=1e-4)
    assert "3 of 4 answers have two ratings or more (column `rater`, 2 raters)" in found.text
    assert found.level == "note"


def test_a_rater_who_changes_their_mind_counts_once_with_the_last_rating(write):
    rows = [rated(0, False, "ann"), rated(0, True, "ann"), rated(0, True, "bob"), rated(1, False, "ann")]
    rows += [rated(1, False, "bob")]
    figures = agreement(write(rows)).figures
    assert (figures["answers"], figures["alpha"]) == (2, 1.0)


def test_two_pairs_of_the_same_answers_are_one_item_whichever_was_chosen(write):
    rows = [pair(0, annotator_id=1), pair(0, annotator_id=2, chosen="b0", rejected="a0"), pair(1, annotator_id=1)]
    rows += [pair(1, annotator_id=2), pair(2, annotator_id=2, chosen="b2", rejected="a2"), pair(2, annotator_id=1)]
    figures = agreement(write(rows)).figures
    assert (figures["answers"], figures["agreement"]) == (3, pytest.approx(1 / 3, abs=1e-4))
    # All choose the first answer of the text's order, or the second: [[1, 0], [1, 1], [0, 1]].
    assert figures["alpha"] == pytest.approx(literal_alpha([[1, 0], [1, 1], [0, 1]]), abs=1e-4)


def test_ratings_that_are_no_more_than_chance_are_a_warning_from_twenty_answers_on(write):
    rows = [
        rated(number, label, rater)
        for number in range(20)
        for rater, label in (("ann", number % 2 == 0), ("bob", number % 4 < 2))
    ]
    assert agreement(write(rows)).level == "warning"
    assert "hardly more than chance" in agreement(write(rows)).text
    assert agreement(write(rows[:38])).level == "note"


def test_nothing_is_said_without_a_column_of_raters_or_with_one_rater(write):
    assert agreement(write([single(0), single(1, False)])) is None
    assert agreement(write([rated(0, True, "ann"), rated(1, False, "ann")])) is None
    assert agreement(write([rated(0, True, "ann"), rated(1, False, None)])) is None


def test_raters_who_never_rated_the_same_answer_are_said_not_to_be_comparable(write):
    found = agreement(write([rated(0, True, "ann"), rated(1, False, "bob")]))
    assert found.figures == {"answers": 0, "raters": 2}
    assert "no answer has ratings of two people" in found.text


def test_a_column_that_stands_for_another_is_no_rater(write):
    rows = [{"user": "q0", "completion": "a", "label": True}, {"user": "q1", "completion": "a", "label": False}]
    assert agreement(write(rows), column_map={"prompt": "user"}) is None
    assert rater_column(["id", "User_ID", "Annotator"]) == "Annotator"
    assert rater_column(["id", "text"]) is None
