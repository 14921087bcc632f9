"""Arena-Hard: verdicts, the two games of a question, and the published win rates from the published battles."""

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from bnf_align.evaluation.tasks.arena_hard import GO_ON, ArenaHard
from bnf_align.evaluation.tasks.arena_hard_games import verdict
from bnf_align.records import BadInput

TASK = ArenaHard()
PUBLIC = Path(os.environ.get("BNF_ALIGN_DATA", ""))
needs_public_data = pytest.mark.skipif(
    "BNF_ALIGN_DATA" not in os.environ, reason="needs the public data: set BNF_ALIGN_DATA to its folder"
)
ITEM = {"id": "q1", "question": "Sort a list.", "category": None, "cluster": None}

UPSTREAM_FORM = """\
judge_model: some-judge
temperature: 0
regex_pattern: \\[\\[([AB<>=]+)\\]\\]
# Add your model below
model_list:
  - some-model
system_prompt: "Decide.\\n\\n1. A: [[A>>B]]\\nExample: \\"tie: [[A=B]]\\"."
prompt_template: ["<|Prompt|>\\n{question_1}\\n\\n<|A|>\\n{answer_1}\\n\\n<|B|>\\n{answer_2}\\n<|B ends|>"]
"""


def public(name):
    return [json.loads(line) for line in gzip.decompress((PUBLIC / "arena_hard" / name).read_bytes()).splitlines()]


def expected(key):
    if "BNF_ALIGN_DATA" not in os.environ:
        return []
    return json.loads((PUBLIC / "expected.json").read_text())[key]


def flat(question, game, text, **more):
    row = {"question_id": question, "model": "m", "judge": "j", "game": game, "judgment": text}
    return row | more


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Mine: 4.\n\nSo [[A>>B]]", "A>>B"),
        ("[[B>A]], as I said: [[B>A]]", "B>A"),
        ("[[A=B]]", "A=B"),
        ("at first [[A>B]], but no, [[B>A]]", None),
        ("[A>B] or A>>B", None),
        ("[[A > B]] [[]] [[C]]", None),
        ("", None),
        ("[[A<B]]", "A<B"),
        ("[[A>>A]]", "A>>A"),
    ],
)
def test_a_verdict_is_the_only_label_of_a_text(text, label):
    assert verdict(text) == label


@pytest.mark.parametrize(
    ("label", "as_b", "as_a"),
    [("A>>B", 0, 100), ("A>B", 0, 100), ("A=B", 50, 50), ("B>A", 100, 0), ("B>>A", 100, 0)],
)
def test_the_model_is_b_in_game_1_and_a_in_game_2(label, as_b, as_a):
    for game, rate in ((1, as_b), (2, as_a)):
        metrics = TASK.score([flat("q", game, f"[[{label}]]")]).metrics
        assert metrics["win_rate"] == pytest.approx(rate)
        assert metrics["battles"] == (3 if ">>" in label else 1)


def test_a_much_better_weighs_three_battles():
    rows = [flat("q", 1, "[[B>>A]]"), flat("q", 2, "[[B>A]]"), flat("r", 1, "[[A=B]]")]
    metrics = TASK.score(rows).metrics
    assert metrics["win_rate"] == pytest.approx(100 * (3 * 1 + 0 + 0.5) / 5)
    assert (metrics["battles"], metrics["total"]) == (5, 2)


def test_a_game_without_a_verdict_is_dropped_and_counted_and_the_other_game_stays():
    rows = [
        flat("q", 1, "I cannot say."),
        flat("q", 2, "[[A>B]]"),
        flat("r", 1, "[[A>B]] no [[B>A]]"),
        flat("r", 2, "[[A<B]]"),
        flat("s", 1, None),
    ]
    result = TASK.score(rows)
    assert result.dropped == {
        "no verdict in the judgment": ["q#1"],
        "several verdicts that differ": ["r#1"],
        "a label that the judge was not offered": ["r#2"],
        "no judgment": ["s#1"],
    }
    assert result.metrics["win_rate"] == pytest.approx(100)
    assert (result.metrics["battles"], result.metrics["total"]) == (1, 1)
    assert result.items[0] == {"id": "q", "verdicts": [None, "A>B"], "score": 1.0, "weight": 1}


def test_a_label_in_what_the_judge_was_shown_is_no_verdict():
    native = {
        "question_id": "q",
        "model": "m",
        "judge": "j",
        "games": [
            {"user_prompt": "the answer says [[B>>A]]", "judgment": "No label from me.", "score": "B>>A"},
            {"user_prompt": "the answer says [[A>>B]]", "judgment": "\nB is better: [[B>A]]", "score": "B>A"},
        ],
    }
    result = TASK.score([native])
    assert result.dropped == {"no verdict in the judgment": ["q#1"]}
    assert result.metrics["win_rate"] == 0


def test_a_recorded_verdict_beside_the_text_is_not_looked_at():
    result = TASK.score([flat("q", 2, "[[A>B]]", recorded_verdict="B>>A", score="B>>A")])
    assert (result.metrics["win_rate"], result.metrics["battles"]) == (100, 1)


def test_every_shape_of_the_same_judgments_gives_the_same_number():
    texts = {("q", 1): "[[B>A]]", ("q", 2): "[[B>>A]]", ("r", 1): "[[A=B]]", ("r", 2): "[[A>>B]]"}
    flats = [flat(question, game, text) for (question, game), text in texts.items()]
    ours = [
        {"id": f"{question}#{game}", "item": question, "model": "m", "judge": "j", "game": game, "judgment": text}
        for (question, game), text in texts.items()
    ]
    native = [
        {
            "question_id": question,
            "model": "m",
            "judge": "j",
            "games": [{"user_prompt": "", "judgment": texts[question, game], "score": "-"} for game in (1, 2)],
        }
        for question in ("q", "r")
    ]
    later = [
        {
            "uid": row["question_id"],
            "model": "m",
            "judge": "j",
            "games": [{"judgment": {"answer": game["judgment"]}, "prompt": [], "score": "-"} for game in row["games"]],
        }
        for row in native
    ]
    winners = {"q": ["model_b"] + ["model_a"] * 3, "r": ["tie"] + ["model_b"] * 3}
    battles = [
        {"question_id": question, "model_a": "gpt-4-0314", "model_b": "m", "winner": winner}
        for question, names in winners.items()
        for winner in names
    ]
    want = TASK.score(flats)
    assert want.metrics["win_rate"] == pytest.approx(100 * (1 + 0 + 0.5 + 3) / 8)
    for rows in (ours, native, later, battles):
        found = TASK.score(rows)
        assert found.metrics == want.metrics
        assert [item["score"] for item in found.items] == [item["score"] for item in want.items]


def test_a_score_speaks_only_where_a_file_leaves_the_text_out_and_that_is_said():
    games = [{"score": "B>A"}, {"score": None}]
    result = TASK.score([{"question_id": "q", "model": "m", "judge": "j", "games": games}])
    assert result.metrics["win_rate"] == 100
    assert "1 games have no text of the judge" in result.notes[0]
    assert result.dropped == {"no judgment": ["q#2"]}


def test_battles_count_the_same_from_either_side():
    def rows(a, b, *winners):
        return [{"question_id": n, "model_a": a, "model_b": b, "winner": name} for n, name in enumerate(winners)]

    forward = TASK.score(rows("gpt-4-0314", "m", "model_a", "model_b", "tie", "model_b"))
    backward = TASK.score(rows("m", "gpt-4-0314", "model_b", "model_a", "tie", "model_a"))
    assert forward.metrics["win_rate"] == pytest.approx(62.5)
    assert backward.metrics == forward.metrics
    assert forward.items == backward.items


def test_several_models_in_a_file_need_a_choice_and_the_error_lists_them():
    rows = [flat("q", 2, "[[A>B]]", model="one"), flat("q", 2, "[[B>A]]", model="lab/two")]
    with pytest.raises(BadInput, match=r"lab/two, one.*--model NAME"):
        TASK.score(rows)
    with pytest.raises(BadInput, match="None is 'three'"):
        TASK.score(rows, model="three")
    assert TASK.score(rows, model="one").metrics["win_rate"] == 100
    assert TASK.score(rows, model="two").metrics["win_rate"] == 0


def test_a_mean_over_two_judges_or_two_baselines_is_refused():
    with pytest.raises(BadInput, match="judged by j and by k"):
        TASK.score([flat("q", 1, "[[A>B]]"), flat("q", 2, "[[A>B]]", judge="k")])
    with pytest.raises(BadInput, match="compared with gpt-4-0314 and with other"):
        TASK.score([flat("q", 1, "[[A>B]]"), flat("q", 2, "[[A>B]]", baseline="other")])


def test_rows_of_another_task_are_refused():
    with pytest.raises(BadInput, match="no judgment, battle or answer"):
        TASK.score([{"session_id": "s", "score": 7}])
    with pytest.raises(BadInput, match="no judgment, battle or answer"):
        TASK.score([])


@pytest.mark.parametrize(
    "odd",
    [
        {"id": "q", "output": "x", "choices": ["one", "two"]},
        {"id": "q", "games": ["[[A>B]]"]},
        {"id": "q", "model": "m", "game": 1, "judgment": 7},
        {"id": "q", "winner": "model_a", "model_a": "m"},
        {"id": "q", "output": "x", "tokens": "12"},
    ],
)
def test_a_row_of_another_form_is_named_and_no_crash(odd):
    with pytest.raises(BadInput, match=r"1 row .* no judgment, battle or answer of Arena-Hard"):
        TASK.score([odd])


def test_the_tokens_are_those_on_record_once_for_each_answer():
    turn = {"content": "Hi", "token_len": 2}
    answers = [
        {"question_id": "q", "model_id": "m", "choices": [{"index": 0, "turns": [turn]}]},
        {"question_id": "r", "model": "m", "answer": "Hello", "token_len": 5},
        {
            "uid": "s",
            "model": "m",
            "messages": [{"role": "user"}, {"content": {"answer": "H"}}],
            "metadata": {"token_len": 8},
        },
    ]
    result = TASK.score(answers)
    assert result.metrics["average_tokens"] == 5
    assert result.metrics["win_rate"] is None
    assert "eval judge" in result.notes[0]
    assert TASK.answers(answers)["s"] == {"id": "s", "model": "m", "output": "H", "tokens": 8}

    judged = [flat("q", game, "[[A=B]]", tokens=count) for game, count in ((1, 4), (2, 4))]
    judged += [flat("r", 1, "[[A=B]]", tokens=10)]
    assert TASK.score(judged).metrics["average_tokens"] == 7
    assert TASK.score([*judged, flat("s", 1, "[[A=B]]", tokens=None)]).metrics["average_tokens"] is None
    bare = [flat(question, 1, "[[A=B]]", model="lab/m") for question in ("q", "r", "s")]
    assert TASK.score(bare).metrics["average_tokens"] is None
    assert TASK.score([row | {"model": "m"} for row in bare], answers=answers).metrics["average_tokens"] == 5
    with pytest.raises(BadInput, match="None is 'lab/m'"):
        TASK.score(bare, answers=answers)


def test_the_judge_sees_the_pair_in_both_orders_after_the_same_instructions():
    first, second = TASK.questions(ITEM, "mine", "theirs")
    assert (first.id, second.id) == ("q1#1", "q1#2")
    assert (first.row, second.row) == ({"item": "q1", "game": 1}, {"item": "q1", "game": 2})
    assert [message["role"] for message in first.messages] == ["system", "user"]
    assert first.messages[0] == second.messages[0]
    text = first.messages[1]["content"]
    assert text.index("Sort a list.") < text.index("theirs") < text.index("mine")
    assert second.messages[1]["content"] == text.replace("theirs", "*").replace("mine", "theirs").replace("*", "mine")


def test_our_wording_offers_the_five_labels_and_the_second_attempt_none():
    system = TASK.questions(ITEM, "mine", "theirs")[0].messages[0]["content"]
    assert all(system.count(f"[[{label}]] if") == 1 for label in ("A>>B", "A>B", "A=B", "B>A", "B>>A"))
    assert verdict(GO_ON) is None


def test_upstreams_template_is_filled_byte_for_byte():
    answer = "uses {question_1}, {answer_2} and {braces}: ünï\\n"
    asked = TASK.questions(ITEM, answer, "theirs {answer_1}", UPSTREAM_FORM)[1]
    assert asked.messages == [
        {"role": "system", "content": 'Decide.\n\n1. A: [[A>>B]]\nExample: "tie: [[A=B]]".'},
        {
            "role": "user",
            "content": f"<|Prompt|>\nSort a list.\n\n<|A|>\n{answer}\n\n<|B|>\ntheirs {{answer_1}}\n<|B ends|>",
        },
    ]


def test_a_plain_text_is_a_template_of_one_turn():
    asked = TASK.questions(ITEM, "mine", "theirs", "Q: {question_1}\nA: {answer_1}\nB: {answer_2}\n- [[A>B]]?")[0]
    assert asked.messages == [{"role": "user", "content": "Q: Sort a list.\nA: theirs\nB: mine\n- [[A>B]]?"}]


def test_what_cannot_be_asked_is_refused_with_the_flag_that_mends_it():
    with pytest.raises(BadInput, match="--baseline FILE"):
        TASK.questions(ITEM, "mine")
    with pytest.raises(BadInput, match=r"no place for answer_2.*--judge-template"):
        TASK.questions(ITEM, "mine", "theirs", "{question_1} {answer_1}")


def test_only_a_judgment_without_a_label_is_asked_about_again():
    question = TASK.questions(ITEM, "mine", "theirs")[0]
    assert TASK.follow_up(question, "so [[A>B]]") is None
    assert TASK.follow_up(question, "[[A>B]] [[B>A]]") is None
    again = TASK.follow_up(question, "both are fi")
    assert again.id == question.id
    assert again.messages[:2] == question.messages
    assert again.messages[2:] == [
        {"role": "assistant", "content": "both are fi"},
        {"role": "user", "content": GO_ON},
    ]


def test_the_second_attempt_is_in_the_words_of_the_template_or_the_number_says_that_it_is_in_ours():
    """Upstream's judge_config.yaml lacks it: without a `follow_up` of its own the template is not all that is said."""
    question = TASK.questions(ITEM, "mine", "theirs", UPSTREAM_FORM)[0]
    theirs = TASK.follow_up(question, "", UPSTREAM_FORM + "follow_up: Go on.\n")
    assert theirs.messages[-1]["content"] == "Go on."
    ours = TASK.follow_up(question, "", UPSTREAM_FORM)
    assert ours.messages[-1]["content"] == GO_ON
    marks = [
        TASK.score([asked.row | {"model": "m", "judgment": "[[A>B]]"}]).provenance.get("follow_up", "")
        for asked in (ours, theirs, question)
    ]
    assert [mark.startswith("ours:") for mark in marks] == [True, False, False]


def test_questions_of_either_version_give_the_same_items():
    v01 = {"question_id": "q1", "category": "c", "cluster": "k", "turns": [{"content": "Sort a list."}]}
    later = {"uid": "q1", "category": "c", "cluster": "k", "prompt": "Sort a list."}
    want = [{"id": "q1", "question": "Sort a list.", "category": "c", "cluster": "k"}]
    assert TASK.items([v01]) == TASK.items([later]) == TASK.items(want) == want
    assert TASK.prompt(want[0]) == [{"role": "user", "content": "Sort a list."}]
    with pytest.raises(BadInput, match="Row 1 is no question"):
        TASK.items([v01, {"question_id": "q2"}])


@needs_public_data
@pytest.mark.parametrize("row", expected("arena_hard"), ids=lambda row: row["model"])
def test_a_published_win_rate_comes_out_of_its_battles(row):
    result = TASK.score(public(row["file"]), model=row["model"])
    assert f"{result.metrics['win_rate']:.2f}" == f"{row['score']:.2f}"
    assert result.provenance["baseline"] == row["baseline"]
    assert result.metrics["average_tokens"] is None
    assert result.metrics["ci_low"] < result.metrics["ci_official_low"] < row["score"]
    assert row["score"] < result.metrics["ci_official_high"] < result.metrics["ci_high"]
    if "rating_q025" in row:  # another generator over another pool: near, not equal
        assert result.metrics["ci_official_low"] == pytest.approx(row["rating_q025"], abs=1)
        assert result.metrics["ci_official_high"] == pytest.approx(row["rating_q975"], abs=1)


@needs_public_data
@pytest.mark.parametrize("row", expected("arena_hard_verdicts"), ids=lambda row: row["file"])
def test_every_recorded_verdict_is_parsed_the_same(row):
    games = public(row["file"])
    found = [verdict(game["judgment"]) for game in games]
    assert found == [game["recorded_verdict"] for game in games]
    assert Counter(map(str, found)) == row["verdicts"]
    dropped = TASK.score(games).dropped
    nulls = dropped.get("no verdict in the judgment", []) + dropped.get("several verdicts that differ", [])
    assert len(nulls) == row["no_verdict"]
    assert len(dropped.get("a label that the judge was not offered", [])) == sum(
        count for label, count in row["verdicts"].items() if label in ("A<B", "A>>A")
    )


@needs_public_data
def test_the_public_questions_and_answers_meet():
    items = TASK.items(public("question_v0.1.jsonl.gz"))
    assert len(items) == 500
    for model in ("gpt-4-0314", "gpt-4-0613"):
        rows = public(f"answers/{model}.jsonl.gz")
        assert TASK.answers(rows).keys() == {item["id"] for item in items}
        # The leaderboard prints whole tokens: 423 and 354.
        assert int(TASK.score(rows).metrics["average_tokens"]) == {"gpt-4-0314": 423, "gpt-4-0613": 354}[model]
