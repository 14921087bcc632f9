"""Refusals, and phrases that many answers begin or end with, are counted on either side."""

import pytest

from bnf_align.data.doctor import examine, phrases
from bnf_align.data.doctor.phrases import REFUSAL, Share
from rows import assistant, pair, single, user

LONG = "one two three four five six seven eight"


def finding(result, name):
    return next((finding for finding in result.findings if finding.name == name), None)


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I’m very sorry, but no.",
        "Sorry, I can't do this.",
        "I cannot provide that.",
        "I can’t assist with that request.",
        "As an AI language model, I have no body.",
        "As a large language model I do not feel.",
        "Unfortunately, I am unable to do so.",
        "I apologize, but this is not something I do.",
        ' "I cannot say."',
        "I'm not able to see pictures.",
    ],
)
def test_refusals_are_known_by_how_they_begin(answer):
    assert REFUSAL.match(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry to hear that. Here is what helps.",
        "I can help with that.",
        "You said: I cannot sleep.",
        "As an airline, we fly.",
        "Sorry for the delay! The answer is 4.",
        "I could not agree more.",
    ],
)
def test_answers_that_only_sound_like_one_are_none(answer):
    assert not REFUSAL.match(answer)


def test_refusals_are_counted_on_either_side_of_pairs_and_of_single_answers(write):
    refusal = "I cannot help with that."
    rows = [pair(0, chosen=refusal), pair(1, rejected=refusal), pair(2, rejected=refusal), pair(3)]
    rows += [single(4, completion=refusal), single(5), single(6, False), single(7, False, completion=refusal)]
    rows += [single(8, None, completion=refusal), pair(9, chosen=refusal, rejected="I'm sorry, but no.")]
    found = finding(examine(write(rows)), "refusals")
    # Chosen or desirable: rows 0, 4, 9 of 0-3, 4, 5, 9; rejected or undesirable: 1, 2, 7, 9 of 0-3, 6, 7, 9.
    assert found.figures == {"ups": 3, "downs": 4, "of_ups": 7, "of_downs": 7}
    assert found.rows == [0, 1, 2, 4, 7, 9]
    assert found.level == "note"
    assert "42.9% of chosen or desirable answers (3 of 7)" in found.text
    assert finding(examine(write([pair(0), single(1, False), single(2)])), "refusals") is None


@pytest.mark.parametrize(("side", "learnt"), [("chosen", "to refuse"), ("rejected", "not to refuse")])
def test_refusals_on_one_side_alone_are_a_warning_that_says_what_is_learnt(write, side, learnt):
    rows = [pair(n, **({side: f"As an AI, I cannot. {n}"} if n < 20 else {})) for n in range(60)]
    found = finding(examine(write(rows)), "refusals")
    assert found.level == "warning"
    assert found.text.endswith(f"The model will learn {learnt}")
    few = [pair(n, **({side: f"As an AI, I cannot. {n}"} if n < 2 else {})) for n in range(6)]
    assert finding(examine(write(few)), "refusals").level == "note"


def test_shares_are_apart_where_they_differ_enough_and_their_intervals_do_not_meet():
    assert Share(30, 10, 100, 100).apart(0.1)
    assert not Share(30, 20, 100, 100).apart(0.05)  # 22 to 40 % and 13 to 29 %
    assert not Share(1040, 1000, 10_000, 100_000).apart(0.1)
    assert not Share(3, 0, 3, 0).apart(0.1)


def test_an_answer_in_messages_and_one_after_a_thought_are_refusals_too(write):
    rows = [
        {"prompt": [user("q")], "completion": [assistant("<think>Shall I?</think>\n\nI cannot say.")], "label": True},
        {"prompt": [user("r")], "completion": [assistant("I cannot say.")], "label": False},
    ]
    assert finding(examine(write(rows)), "refusals").rows == [0, 1]


def test_phrases_are_counted_by_side_and_named_with_their_share(write):
    ups = [single(n, completion=f"Sure! Here is my {LONG} {n}.") for n in range(30)]
    downs = [single(n + 30, False, completion=f"{n} {LONG} I hope this helps!") for n in range(15)]
    downs += [single(n + 45, False, completion=f"{n} {LONG} {n} {n} {n}.") for n in range(15)]
    found = finding(examine(write(ups + downs)), "boilerplate")
    assert found.figures["phrases"] == [
        {"where": "begin with", "phrase": "Sure! Here is my", "ups": 30, "downs": 0, "of_ups": 30, "of_downs": 30},
        {"where": "end in", "phrase": "I hope this helps!", "ups": 0, "downs": 15, "of_ups": 30, "of_downs": 30},
    ]
    assert found.rows == list(range(45))
    assert found.level == "warning"


def test_a_phrase_of_chosen_answers_alone_is_on_their_side(write):
    rows = [pair(n, chosen=f"Well, let me see: {LONG} {n}", rejected=f"{n} {LONG} {n}") for n in range(20)]
    found = finding(examine(write(rows)), "boilerplate")
    assert (found.figures["phrases"][0]["ups"], found.figures["phrases"][0]["downs"]) == (20, 0)
    assert found.level == "warning"


def test_a_phrase_on_both_sides_is_a_note_and_a_rare_one_is_none(write):
    rows = [
        pair(n, chosen=f"Well, let me see: {LONG} {n}", rejected=f"Well, let me see: {n} {LONG} {n}")
        for n in range(20)
    ]
    found = finding(examine(write(rows)), "boilerplate")
    assert found.level == "note"
    assert found.figures["phrases"][0]["ups"] == found.figures["phrases"][0]["downs"] == 20
    few = [pair(n, chosen=f"Well, let me see: {LONG} {n}", rejected=f"{n} {LONG} {n}") for n in range(9)]
    assert finding(examine(write(few)), "boilerplate") is None


def test_short_answers_and_refusals_have_no_opening(write):
    rows = [single(n, n % 2 == 0, completion="one two three four five") for n in range(40)]
    rows += [single(n + 40, n % 2 == 0, completion=f"I cannot help you with {n} {LONG} {n}") for n in range(40)]
    assert finding(examine(write(rows)), "boilerplate") is None


def test_of_a_large_source_one_row_in_so_many_is_looked_at_and_it_says_so(write, monkeypatch):
    monkeypatch.setattr(phrases, "LOOKED_AT", 30)
    rows = [single(n, n % 2 == 0, completion=f"Sure! Here is my {LONG} {n}.") for n in range(80)]
    found = finding(examine(write(rows)), "boilerplate")
    assert found.rows == list(range(0, 80, 3))
    assert "one row in 3 was looked at" in found.text


def test_a_secret_in_a_phrase_is_masked(write):
    rows = [single(n, n % 2 == 0, completion=f"Key AKIAIOSFODNN7EXAMPLE is yours {LONG} {n}") for n in range(30)]
    found = finding(examine(write(rows)), "boilerplate")
    assert found.figures["phrases"][0]["phrase"] == "Key [secret] is yours"
    assert "AKIA" not in found.text
