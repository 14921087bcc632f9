"""A rewritten answer is chosen over the one it corrects, and never over one that somebody rated up."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bnf_align.records import BadInput
from bnf_align.sources import Options, import_rows
from exports_traces import feedback, lines, run
from test_importers import QUICK, folder, text_of

ASKED = {"role": "user", "content": "Why?"}
BETTER = [{"role": "assistant", "content": "Better."}]


def imported(path, votes, **options):
    runs = [run(f"r{n}", {"input": f"Question {n}?"}, {"output": f"Answer {n}."}) for n in range(3)]
    files = [lines(path / "runs.jsonl", runs), lines(path / "feedback.jsonl", votes)]
    rows, report = import_rows("langsmith", files, Options(**options))
    return list(rows), report


def told(rows):
    """Pairs as (chosen, rejected), single answers as (answer, label)."""
    return [
        (text_of(row["chosen"]), text_of(row["rejected"]))
        if "chosen" in row
        else (text_of(row["completion"]), row["label"])
        for row in rows
    ]


@pytest.mark.parametrize(
    "correction",
    [
        "Better.",
        {"output": "Better."},
        {"answer": "Better.", "explanation": "It was wrong."},
        {"desired_output": BETTER[0]},
        {"role": "assistant", "content": "Better."},
        {"messages": [{"role": "user", "content": "Question 0?"}, *BETTER]},
        '{"expected": "Better."}',
    ],
)
@pytest.mark.parametrize("score", [-1, None])
def test_a_correction_is_chosen_over_an_answer_rated_down_or_not_at_all(tmp_path, correction, score):
    rows, report = imported(tmp_path, [feedback(1, "r0", score, correction=correction, comment="No.")])
    assert rows == [
        {
            "prompt": [{"role": "user", "content": "Question 0?"}],
            "chosen": BETTER,
            "rejected": [{"role": "assistant", "content": "Answer 0."}],
            "id": "feedback-1",
            "created_at": "2026-05-05T23:23:11.077838",
            "reason": "No.",
            "model": "llama",
        }
    ]
    assert (report.pairs, report.ups, report.downs, report.dropped) == (1, 0, 0, {})


def test_an_answer_rated_up_stays_an_up_and_its_correction_is_counted(tmp_path):
    rows, report = imported(tmp_path, [feedback(1, "r0", 1, correction="Better.")])
    assert told(rows) == [("Answer 0.", True)]
    assert "corrections of answers that were rated up, left out: 1 row (0)" in report.notes


@pytest.mark.parametrize("raters", ["majority", "unanimous", "all"])
def test_a_correction_gives_way_to_anyone_s_up(tmp_path, raters):
    votes = [
        feedback(1, "r0", None, correction="Better."),
        feedback(2, "r0", 1),
        feedback(3, "r0", 1),
        feedback(4, "r1", 0),
    ]
    rows, report = imported(tmp_path, votes, raters=raters)
    assert set(told(rows)) == {("Answer 0.", True), ("Answer 1.", False)}
    assert report.dropped == {"a correction of an answer that was rated up": [0]}


def test_what_else_was_said_of_a_corrected_answer_is_in_the_pair(tmp_path):
    votes = [
        feedback(1, "r0", 0),
        feedback(2, "r0", 0, correction="Better."),
        feedback(3, "r0", 0, correction="Best."),
    ]
    rows, report = imported(tmp_path, votes)
    assert told(rows) == [("Better.", "Answer 0.")]
    assert any(note.startswith("2 more ratings of answers rated before") for note in report.notes)
    rows, _ = imported(tmp_path, votes, raters="all")
    assert told(rows) == [("Answer 0.", False), ("Better.", "Answer 0."), ("Best.", "Answer 0.")]


@pytest.mark.parametrize(
    "correction", [{"comment": "Too long."}, {"a": "b"}, [1], {"output": "x", "answer": "y"}, 5, ASKED]
)
def test_corrections_of_other_shapes_say_nothing_and_are_counted(tmp_path, correction):
    rows, report = imported(tmp_path, [feedback(1, "r0", 0, correction=correction)])
    assert told(rows) == [("Answer 0.", False)]
    assert "corrections that are no new answer, or beside another score: 1 row (0)" in report.notes


@pytest.mark.parametrize(("score", "better"), [(0, 1), (1, 0), (1, "0")])
def test_a_score_that_was_corrected_is_no_rating(tmp_path, score, better):
    """LangSmith's audit of evaluators writes the right score as the correction of a wrong one."""
    votes = [feedback(1, "r0", score, correction={"score": better, "explanation": "x"}), feedback(2, "r1", 0)]
    rows, report = imported(tmp_path, votes)
    assert told(rows) == [("Answer 1.", False)]
    assert report.dropped == {"a score that was corrected to another one": [0]}
    same = feedback(1, "r0", score, correction={"score": score})
    assert told(imported(tmp_path, [same])[0]) == [("Answer 0.", bool(score))]


def test_a_correction_under_a_key_of_its_own_needs_no_score(tmp_path):
    votes = [
        feedback(1, "r0", 0),
        feedback(2, "r0", None, key="correction", correction="Better."),
        feedback(3, "r1", 0.4, key="judge", correction="Unread."),
    ]
    rows, report = imported(tmp_path, votes)
    assert told(rows) == [("Better.", "Answer 0.")]
    assert "corrections that are no new answer, or beside another score: 1 row (2)" in report.notes


def test_a_correction_equal_to_the_answer_corrects_nothing(tmp_path):
    votes = [feedback(1, "r0", 0, correction="Answer 0."), feedback(2, "r1", None, correction="Answer 1.")]
    rows, report = imported(tmp_path, votes)
    assert (told(rows), report.dropped) == ([("Answer 0.", False)], {"no rating": [1]})


VOTES = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from([1, 0, None]), st.sampled_from([None, "Better.", "Best."])),
    min_size=1,
    max_size=8,
)


@given(votes=VOTES, raters=st.sampled_from(["majority", "unanimous", "all"]))
@settings(QUICK, max_examples=150)
def test_no_answer_that_anyone_rated_up_is_ever_rejected_and_none_trains_twice(votes, raters):
    ups = {f"Answer {run}." for run, score, _ in votes if score == 1}
    records = [feedback(n, f"r{run}", score, correction=text) for n, (run, score, text) in enumerate(votes)]
    with folder() as path:
        try:
            rows, _ = imported(path, records, raters=raters)
        except BadInput:
            return
    rejected = [text_of(row["rejected"]) for row in rows if "rejected" in row]
    assert not ups & set(rejected)
    assert all(text_of(row["chosen"]) in ("Better.", "Best.") for row in rows if "chosen" in row)
    answers = rejected + [text_of(row["completion"]) for row in rows if "completion" in row]
    assert raters == "all" or len(answers) == len(set(answers))
