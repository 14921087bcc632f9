"""Labels: what is read, that it is said, and that nothing on earth turns a down into an up."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnf_align.data.labels import read_labels
from bnf_align.records import BadInput


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([True, False, None], [True, False, None]),
        (["true", "False", "TRUE"], [True, False, True]),
        ([1, 0, 1], [True, False, True]),
        ([1, -1, None], [True, False, None]),
        ([1.0, -1.0, None], [True, False, None]),
        ([1.0, -0.0], [True, False]),
        ([True, 0, "false", 1], [True, False, False, True]),
        ([-1], [False]),
        ([], []),
        ([float("nan"), 1.0, 0.0], [None, True, False]),
        ([np.True_, np.False_], [True, False]),
        ([np.int64(1), np.int8(-1), np.float32("nan")], [True, False, None]),
        ([np.float32(1), np.float64(0)], [True, False]),
        ([np.str_("true"), np.str_("False")], [True, False]),
    ],
)
def test_bools_their_names_and_the_two_number_codes_are_read(values, expected):
    assert read_labels(values)[0] == expected


def test_what_was_read_is_said_once_with_counts():
    assert read_labels([1] * 975 + [-1] * 229)[1] == (
        "975 x 1 read as up, 229 x -1 read as down; another meaning? --label_map"
    )
    assert read_labels([True, False])[1] is None
    assert read_labels([True, "true"])[1] is not None


@pytest.mark.parametrize(
    ("values", "read"), [(["1", "0", None], [True, False, None]), (["-1", "1", ""], [False, True, None])]
)
def test_the_texts_of_a_csv_are_read_as_their_numbers_are(values, read):
    labels, note = read_labels(values)
    assert labels == read
    assert "1 x '1' read as up" in note


@pytest.mark.parametrize("values", [[1, 0, -1], [0, -1], [1.0, 0.0, -1.0], ["1", "0", "-1"]])
def test_zero_beside_minus_one_is_ambiguous(values):
    with pytest.raises(BadInput, match=r"both 0 and -1 .* --label_map 1=up -1=down 0=drop"):
        read_labels(values)


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        ([0.1, 0.9, 0.9], "2 x 0.9, 1 x 0.1"),
        ([1, 2], "1 x 1, 1 x 2"),
        (["good", "bad", "good"], "2 x good, 1 x bad"),
        (["1", "0", "2"], "1 x '1', 1 x '0', 1 x '2'"),
        (["1.0", "0.0"], "1 x '1.0', 1 x '0.0'"),
        ([["up"]], r"1 x \['up'\]"),
        (["thumbsDown", True], "1 x thumbsDown, 1 x true"),
        (["", True], "1 x '', 1 x true"),
        (["", "yes"], "1 x yes"),
    ],
)
def test_any_other_value_stops_and_all_values_are_listed_with_counts(values, seen):
    with pytest.raises(BadInput, match=f"Seen: {seen}. .*--label_map "):
        read_labels(values)


def test_the_error_names_the_rows_and_guesses_no_meaning():
    with pytest.raises(
        BadInput, match=r"Values 0.9 in 2 rows \(7, 9\).*--label_map 0.9=up\|down\|drop 1=up\|down\|drop"
    ):
        read_labels([1, 0.9, 0.9], rows=[5, 7, 9])


def test_a_map_of_values_that_do_not_occur_never_passes_for_obeyed():
    values, table = ["user_score:1", "user_score:0"], {"user_score:1": "up", "user_score:0": "down"}
    with pytest.raises(
        BadInput, match=r"--label_map 1=down 0=up: no rating has such a value.*Seen: 1 x user_score:1, "
    ):
        read_labels(values, {"1": "down", "0": "up"}, table=table, strict=True)
    _, note = read_labels(values, {"1": "down", "0": "up"}, table=table)
    assert note.endswith("another meaning? --label_map; no value is what 1=down 0=up names")
    labels, note = read_labels(values, {"user_score:1": "down", "0": "up"}, table=table, strict=True)
    assert labels == [False, False]
    assert note.endswith("(--label_map); no value is what 0=up names")


def test_of_many_values_those_without_a_meaning_are_in_the_advice():
    with pytest.raises(BadInput, match=r"--label_map N/A=up\|down\|drop 1=up\|down\|drop 2=up\|down\|drop \.\.\."):
        read_labels([1, 2, 3, "N/A"], {"1": "down", "2": "down", "3": "up"})


def test_a_map_gives_every_value_its_meaning():
    labels, note = read_labels(["good", "bad", "meh", None], {"good": "up", "bad": "down", "meh": "drop"})
    assert labels == [True, False, None, None]
    assert note == "1 x good read as up, 1 x bad read as down, 1 x meh left out (--label_map)"
    assert read_labels([1, 2.0, "1", True], {"1": "down", "2": "up", "true": "up"})[0] == [False, True, False, True]


def test_a_map_must_cover_all_values_and_know_its_targets():
    with pytest.raises(BadInput, match=r"Values meh in 1 row \(1\) are not in --label_map"):
        read_labels(["good", "meh"], {"good": "up"})
    with pytest.raises(BadInput, match=r"--label_map good=yes: a value is mapped to up, down or drop"):
        read_labels(["good"], {"good": "yes"})


DOWNS = st.sampled_from([False, 0, -1, 0.0, -0.0, -1.0, "false", "False", "FALSE"])
UPS = st.sampled_from([True, 1, 1.0, "true", "True", "TRUE"])
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=6),
    st.binary(max_size=3),
    st.lists(st.integers()),
)


@settings(deadline=None)
@given(st.lists(st.one_of(DOWNS, UPS, ANYTHING), max_size=12))
def test_no_input_turns_a_down_into_an_up_or_an_up_into_a_down(values):
    try:
        labels, _ = read_labels(values)
    except BadInput:
        return
    for value, label in zip(values, labels, strict=True):
        is_down = value in (0, -1) if isinstance(value, bool | int | float) else str(value).lower() == "false"
        is_up = value == 1 if isinstance(value, bool | int | float) else str(value).lower() == "true"
        assert label is (True if is_up else False if is_down else None)
        gap = (
            value is None
            or value != value
            or (value == "" and not any(isinstance(one, bytes | bool | int | float | list) for one in values))
        )
        assert gap == (label is None)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c", 1, 2.5, True]), max_size=10), st.data())
def test_a_map_never_gives_a_value_the_opposite_meaning(values, data):
    names = {"a": "a", "b": "b", "c": "c", "1": 1, "2.5": 2.5, "true": True}
    given_map = {name: data.draw(st.sampled_from(["up", "down", "drop"])) for name in names}
    labels, _ = read_labels(values, given_map)
    meant = {"up": True, "down": False, "drop": None}
    for value, label in zip(values, labels, strict=True):
        name = "true" if value is True else str(value)
        assert label is meant[given_map[name]]


def test_a_one_among_marks_from_one_to_five_is_not_the_thumb_up_of_the_table():
    """Whoever maps the other marks alone must hear of the 1, in words or in numbers."""
    table = {"1": "up", "-1": "down"}
    for values in ([5, 1, 4, 1], ["5", "1", "4", "1"]):
        with pytest.raises(BadInput, match=r"2 x '?1"):
            read_labels(values, {"5": "up", "4": "up"}, table=table)
        labels, _ = read_labels(values, {"5": "up", "4": "up", "1": "down"}, table=table)
        assert labels == [True, False, True, False]
    assert read_labels([1, -1, 1], {}, table=table)[0] == [True, False, True]


def test_what_the_user_says_stands_above_the_table():
    table = {"1": "up", "-1": "down"}
    assert read_labels([1, -1, 1], {"1": "down", "-1": "up"}, table=table)[0] == [False, True, False]


def test_of_many_values_the_first_and_the_most_frequent_are_listed():
    values = [n / 50 for n in range(1, 31)] + [0.5]
    with pytest.raises(BadInput) as error:
        read_labels(values)
    assert "Values 0.02, 0.04, 0.06, ... in 31 rows (0, 1, 2, ...)" in str(error.value)
    assert "Seen: 2 x 0.5, 1 x 0.02, " in str(error.value)
    assert "and 10 other values." in str(error.value)
