"""WildBench: the judge's questions, its replies, and WB-Score and WB-Reward by upstream's rules."""

import gzip
import json
import os
from pathlib import Path

import pytest

from bnf_align.evaluation.tasks.wild_bench import WildBench, WildBenchPairs
from bnf_align.evaluation.tasks.wild_bench_scores import read_choice
from bnf_align.judge.reply import read_score, value_of
from bnf_align.records import BadInput

TASK, PAIRS = WildBench(), WildBenchPairs()
PUBLIC = Path(os.environ.get("BNF_ALIGN_DATA", ""))
needs_public_data = pytest.mark.skipif(
    "BNF_ALIGN_DATA" not in os.environ, reason="needs the public data: set BNF_ALIGN_DATA to its folder"
)


def hub_row(name="s1", **more):
    """A row in the schema of the v2 data set."""
    turn = {"language": "English", "redacted": False, "timestamp": None, "toxic": False}
    row = {
        "id": name,
        "session_id": name,
        "conversation_input": [
            {"role": "user", "content": "Plan a trip.", **turn},
            {"role": "assistant", "content": "Where to?", **turn},
            {"role": "user", "content": "To {$checklist}, please.", **turn},
        ],
        "references": {"gpt-4": "Fly."},
        "length": 3,
        "checklist": ["Does it name a {place}?", "Is it short?"],
        "intent": "A plan.",
        "primary_tag": "Planning",
        "secondary_tags": ["Reasoning", "Math"],
    }
    return row | more


ITEM = TASK.items([hub_row()])[0]


def graded(name, score, output="some words", **more):
    """A row of upstream's score files."""
    return {"session_id": name, "model_test": "m", "score": score, "model_output": output} | more


def test_the_prompt_is_the_conversation_itself():
    assert TASK.prompt(ITEM) == [
        {"role": "user", "content": "Plan a trip."},
        {"role": "assistant", "content": "Where to?"},
        {"role": "user", "content": "To {$checklist}, please."},
    ]


def test_items_of_items_are_the_same_items():
    assert TASK.items([ITEM]) == [ITEM]
    assert ITEM["primary_tag"] == "Planning"


@pytest.mark.parametrize(
    "broken",
    [
        {"conversation_input": []},
        {"conversation_input": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    ],
)
def test_a_row_without_a_query_is_refused(broken):
    with pytest.raises(BadInput, match=r"Row 0 is no task of WildBench.*--data FILE"):
        TASK.items([hub_row(**broken)])


def test_every_placeholder_is_filled_once_and_what_was_filled_in_is_left_alone():
    template = 'H[{$history}]Q[{$user_query}]O[{$model_output}]C[{$checklist}] {"score": "[1~10]", {$other}}'
    (question,) = TASK.questions(ITEM, "see {$user_query} {$history}", template=template)
    assert question.messages == [
        {
            "role": "user",
            "content": "H[USER: Plan a trip.\n\nASSISTANT: Where to?\n\n]Q[To {$checklist}, please.]"
            "O[see {$user_query} {$history}]C[- Does it name a {place}?\n- Is it short?\n] "
            '{"score": "[1~10]", {$other}}',
        }
    ]


@needs_public_data
@pytest.mark.parametrize(
    ("name", "task", "baseline", "fields"),
    [
        ("judge_prompt_score.v2.md", TASK, None, ("model_output",)),
        ("judge_prompt_pairwise.v2.md", PAIRS, "theirs", ("candidate_A", "candidate_B")),
    ],
)
def test_upstreams_templates_are_filled_byte_for_byte(name, task, baseline, fields):
    template = (PUBLIC / "wildbench" / name).read_text(encoding="utf-8")
    item = TASK.items([hub_row(checklist=["One?", "Two?"])])[0]
    item["conversation_input"][-1]["content"] = "To Rome."
    (question,) = task.questions(item, "mine\n", baseline, template)
    order = ("theirs", "mine\n") if question.row.get("game") == 1 else ("mine\n", "theirs")
    texts = {
        "history": "USER: Plan a trip.\n\nASSISTANT: Where to?\n\n",
        "user_query": "To Rome.",
        "checklist": "- One?\n- Two?\n",
        **dict(zip(fields, order, strict=False)),
    }
    want = template
    for field, text in texts.items():  # as upstream does it
        assert want.count(f"{{${field}}}") == 1
        want = want.replace(f"{{${field}}}", text)
    assert [message["content"] for message in question.messages] == [want]
    assert "{$" not in want


def test_our_wording_shows_the_judge_everything():
    (question,) = TASK.questions(ITEM, "My answer.")
    for text in ("Plan a trip.", "Where to?", "To {$checklist}, please.", "My answer.", "- Is it short?"):
        assert question.messages[0]["content"].count(text) == 1
    assert question.id == "s1"
    assert question.row == {
        "item": "s1",
        "primary_tag": "Planning",
        "secondary_tags": ["Reasoning", "Math"],
        "output_chars_stripped": 10,
        "truncated": False,
    }


def test_a_template_that_hides_the_output_is_refused():
    with pytest.raises(BadInput, match=r"no place for model_output.*--judge-template"):
        TASK.questions(ITEM, "a", template="{$user_query}")
    with pytest.raises(BadInput, match="no place for candidate_B"):
        PAIRS.questions(ITEM, "a", "b", "{$user_query} {$candidate_A}")


@pytest.mark.parametrize(
    ("value", "score"),
    [
        ("7", 7),
        (7, 7),
        (" 8 ", 8),
        ("6.5", 6.5),
        ("10", 10),
        (0, 0),
        ("7/10", None),
        ("[7]", None),
        ("seven", None),
        ("11", None),
        (-1, None),
        (True, None),
        (None, None),
        ([7], None),
        (float("nan"), None),
        ("nan", None),
        ("", None),
    ],
)
def test_a_score_is_a_number_from_0_to_10(value, score):
    assert read_score(value) == score


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ('{"strengths": "a", "score": "7"}', "7"),
        ('\n```json\n{"score": 7}\n```\n', 7),
        ('{"strengths": "two\nlines", "score": "7"}', "7"),
        ('{"strengths": "it wrote {\\"score\\": \\"10\\"}", "score": "2"}', "2"),
        ('{"strengths": {"score": "10"}, "weaknesses": "-"}', None),
        ('{"score": "10", "strengths": "-", "score": "2"}', None),
        ('{"score": "2", "score": "2"}', "2"),
        ('[{"score": "10"}]', None),
        ('[["score", "10"]]', None),
        ('The response says {"score": "10"}', None),
        ('{"score": "10"} {"score": "2"}', None),
        ('```json\n{"score": "10"}\n``` but ```json\n{"score": "2"}\n```', None),
        ('Here is my rating:\n```json\n{"score": 7}\n```', 7),
        ('Rating: {"strengths": "a", "score": 7}', 7),
        ('It wrote {"score": 10}, which is wrong.\n{"score": 2}', 2),
        ('<think>{"score": 10}</think>{"score": 2}', 2),
        ('{"score": 2} is too low: {"score": 10}', None),
        ('{"strengths": {"score": "10"}', None),
        ('"score": "10"', None),
        ('{"strengths": "cut o', None),
        ("[" * 100_000, None),
        ("", None),
        (None, None),
    ],
)
def test_only_a_key_of_the_judges_own_object_speaks(reply, value):
    assert value_of(reply, "score") == value


def test_the_plain_score_takes_all_and_the_length_only_whole_outputs():
    rows = [
        graded("a", "8", "  twelve chars "),
        graded("b", "1", " \n"),
        graded("c", 6, "cut off... (truncated)"),
        graded("d", "5", "four"),
    ]
    metrics = TASK.score(rows).metrics
    assert metrics["wb_score_plain"] == pytest.approx((20 / 4 - 5) * 20)
    assert metrics["average_length"] == pytest.approx((12 + 4) / 2)
    assert metrics["total"] == 4


def test_a_reply_without_a_score_is_dropped_and_counted():
    rows = [graded("a", "9"), graded("b", "7/10"), {**graded("c", "9"), "parsed_result": {"N/A": "N/A"}}]
    result = TASK.score(rows)
    assert result.metrics["wb_score_plain"] == pytest.approx(80)
    assert result.metrics["total"] == 1
    assert list(result.dropped.values()) == [["b", "c"]]


def test_the_weighted_score_counts_an_item_in_each_of_its_groups():
    rows = [graded("a", "9"), graded("b", "6"), graded("c", "4"), graded("empty", "1", ""), graded("d", "7")]
    tags = {
        "a": ["Planning", "Reasoning", "Math"],
        "b": ["Data Analysis"],
        "c": ["Coding & Debugging", "Editing"],
        "empty": ["Math"],
        "d": ["Advice seeking", "Others", "Role playing"],
    }
    groups = {
        "Planning & Reasoning": (9, 1.25),
        "Math & Data Analysis": ((9 + 6) / 2, 1),
        "Coding & Debugging": (4, 1.25),
        "Creative Tasks": ((4 + 7) / 2, 0.5),
        "Information/Advice seeking": (7, 0.75),
    }
    want = sum((mean - 5) * 20 * weight for mean, weight in groups.values()) / 4.75
    metrics = TASK.score(rows, tags=tags).metrics
    assert metrics["wb_score"] == pytest.approx(want)
    assert metrics["wb_score/Math & Data Analysis"] == pytest.approx(50)
    assert metrics["wb_score_plain"] == pytest.approx((27 / 5 - 5) * 20)


def test_tags_may_come_with_the_rows_as_a_mapping_or_as_the_items():
    items = [hub_row("a"), hub_row("b", primary_tag="Editing", secondary_tags=[])]
    rows = [graded("a", "9"), graded("b", "6")]
    want = TASK.score(rows, tags=items).metrics["wb_score"]
    assert want == pytest.approx((80 * 1.25 + 80 * 1 + 20 * 0.5) / 4.75)
    tags = {"a": ["Planning", "Reasoning", "Math"], "b": "Editing"}
    assert TASK.score(rows, tags=tags).metrics["wb_score"] == want
    assert TASK.score(rows, tags={item["id"]: item for item in items}).metrics["wb_score"] == want
    assert TASK.score(rows, data=items).metrics["wb_score"] == want
    names = ("primary_tag", "secondary_tags")
    tagged = [row | {name: item[name] for name in names} for row, item in zip(rows, items, strict=True)]
    assert TASK.score(tagged).metrics["wb_score"] == want


def test_without_every_tag_the_weighted_score_is_null_and_that_is_said():
    rows = [graded("a", "9"), graded("b", "6")]
    result = TASK.score(rows, tags={"a": ["Math"]})
    assert result.metrics["wb_score"] is None
    assert result.metrics["wb_score_plain"] == pytest.approx(50)
    assert "1 of 2 items have no task tags" in result.notes[0]
    assert "--tags FILE" in result.notes[0]
    with pytest.raises(BadInput, match="no tag 'Maths'"):
        TASK.score(rows, tags={"a": ["Maths"], "b": ["Math"]})


def test_our_judgments_score_as_upstreams_file_does():
    outputs = {"s1": " A plan. ", "s2": "", "s3": "cut... (truncated)"}
    replies = {"s1": '{"score": "9"}', "s2": '{"score": 1}', "s3": '```json\n{"score": 4}\n```'}
    ours = []
    for name, output in outputs.items():
        (question,) = TASK.questions(TASK.items([hub_row(name)])[0], output)
        ours.append({"id": question.id, "model": "m", "judge": "j", **question.row, "judgment": replies[name]})
    native = [graded(name, value_of(replies[name], "score"), outputs[name]) for name in outputs]
    want = TASK.score(native, tags={name: hub_row() for name in outputs})
    found = TASK.score(ours)
    assert found.metrics == want.metrics
    assert found.metrics["average_length"] == 7
    assert found.items == want.items
    assert found.items[2] == {"id": "s3", "score": 4.0, "length": 18, "truncated": True}


def test_answers_alone_give_their_length():
    rows = [{"session_id": "a", "generator": "m", "output": ["  abc "]}, {"id": "b", "model": "m", "output": "abcde"}]
    result = TASK.score(rows)
    assert result.metrics["average_length"] == 4
    assert result.metrics["wb_score_plain"] is None
    assert "eval judge" in result.notes[0]


def test_lengths_may_come_from_the_answers():
    answers = [{"session_id": "a", "generator": "m", "output": [" abc"]}, {"id": "b", "model": "m", "output": ""}]
    rows = [{"session_id": name, "model": "m", "score": score} for name, score in (("a", "9"), ("b", "1"))]
    assert TASK.score(rows).metrics["average_length"] is None
    result = TASK.score(rows, answers=answers, tags={"a": ["Math"], "b": ["Math"]})
    assert result.metrics["average_length"] == 3
    assert result.metrics["wb_score/Math & Data Analysis"] == pytest.approx(80)


@pytest.mark.parametrize(
    "odd",
    [
        {"id": "a", "model_outputs": {"m": "x"}},
        {"id": "a", "score": 5, "output_chars": "291"},
        {"id": "a", "game": 1, "baseline_length": 3},
        {"id": "a", "score": 5, "primary_tag": "Math", "secondary_tags": 3},
    ],
)
def test_a_row_of_another_form_is_named_and_no_crash(odd):
    with pytest.raises(BadInput, match=r"1 row .* no judgment or answer of WildBench"):
        TASK.score([odd])


def test_tags_that_are_no_texts_are_refused():
    with pytest.raises(BadInput, match="--tags"):
        TASK.score([{"id": "a", "score": 5, "output_chars": 3}], tags={"a": 3})


def test_several_models_or_judges_in_a_file_are_not_mixed():
    rows = [graded("a", "9"), graded("a", "3", model_test="lab/n")]
    with pytest.raises(BadInput, match=r"lab/n, m.*--model NAME"):
        TASK.score(rows)
    assert TASK.score(rows, model="n").metrics["wb_score_plain"] == pytest.approx(-40)
    with pytest.raises(BadInput, match="judged by j and by k"):
        TASK.score([graded("a", "9", judge="j"), graded("b", "9", judge="k")])
    with pytest.raises(BadInput, match="no judgment or answer of WildBench"):
        TASK.score([{"question_id": "q", "model": "m"}])


# Pairs.


def compared(name, choice, output="x" * 10, reference="y" * 10, game=2, **more):
    """A judgment of ours; `choice` is in the judge's own terms."""
    (question,) = (
        one
        for one in WildBenchPairs(both_orders=True).questions(TASK.items([hub_row(name)])[0], output, reference)
        if one.row["game"] == game
    )
    reply = json.dumps({"analysis of A": "-", "choice": choice})
    return {"id": question.id, "model": "m", "judge": "j", **question.row, "judgment": reply} | more


@pytest.mark.parametrize(("choice", "ahead"), [("A++", 2), ("A+", 1), ("A=B", 0), ("B+", -1), ("B++", -2)])
def test_the_five_choices_turn_with_the_places(choice, ahead):
    assert read_choice(choice) == ahead
    for game, sign in ((1, -1), (2, 1)):
        assert TASK.score([compared("a", choice, game=game)]).metrics["wb_reward"] == pytest.approx(sign * ahead / 2)


@pytest.mark.parametrize("choice", ["A", "tie", "A+++", "a+", "", None, 1])
def test_another_choice_is_dropped_and_counted(choice):
    assert read_choice(choice) is None
    result = TASK.score([compared("a", choice), compared("b", "A+")])
    assert list(result.dropped.values()) == [["a (the reference)"]]
    assert (result.metrics["wb_reward"], result.metrics["pairs"]) == (0.5, 1)


def test_the_order_is_drawn_by_item_and_seed_and_both_places_occur():
    items = TASK.items([hub_row(f"s{number}") for number in range(40)])

    def games(task, chosen):
        return {item["id"]: [q.row["game"] for q in task.questions(item, "mine", "theirs")] for item in chosen}

    once = games(WildBenchPairs(seed=1), items)
    assert games(WildBenchPairs(seed=1), items[::-1][:7]) == {item["id"]: once[item["id"]] for item in items[::-1][:7]}
    assert 8 < sum(game == [1] for game in once.values()) < 32
    assert games(WildBenchPairs(seed=2), items) != once
    assert set(map(tuple, games(WildBenchPairs(both_orders=True), items).values())) == {(1, 2)}


def test_the_model_stands_where_the_row_says():
    first, second = WildBenchPairs(both_orders=True).questions(
        ITEM, "mine", "  ", "{$user_query}|{$candidate_A}|{$candidate_B}"
    )
    assert first.messages[0]["content"] == "To {$checklist}, please.|[This model response is empty.]|mine"
    assert second.messages[0]["content"] == "To {$checklist}, please.|mine|[This model response is empty.]"
    assert (first.id, second.id) == ("s1#1", "s1#2")
    assert first.row == {
        "item": "s1",
        "primary_tag": "Planning",
        "secondary_tags": ["Reasoning", "Math"],
        "length": 4,
        "baseline_length": 0,
        "truncated": False,
        "game": 1,
    }
    with pytest.raises(BadInput, match="--baseline FILE"):
        PAIRS.questions(ITEM, "mine")


def test_a_baseline_makes_the_task_ask_for_a_comparison():
    assert TASK.questions(ITEM, "mine", "theirs") == PAIRS.questions(ITEM, "mine", "theirs")
    assert TASK.questions(ITEM, "mine")[0].messages != PAIRS.questions(ITEM, "mine", "theirs")[0].messages


def test_a_slight_win_by_length_alone_is_a_tie():
    long, short = "x" * 600, "y" * 10
    rows = {
        "slight, longer": compared("a", "A+", long, short),
        "much, longer": compared("a", "A++", long, short),
        "slight, shorter": compared("a", "A+", short, long),
        "slight loss to a longer": compared("a", "B+", short, long),
        "slight, just within": compared("a", "A+", "x" * 510, short),
    }
    margin = {name: TASK.score([row]).metrics["wb_reward"] for name, row in rows.items()}
    assert list(margin.values()) == [0, 1, 0.5, 0, 0.5]
    off = [TASK.score([row], length_margin=-1).metrics["wb_reward"] for row in rows.values()]
    assert off == [0.5, 1, 0.5, -0.5, 0.5]


def test_an_empty_or_cut_output_counts_only_in_the_number_of_comparisons():
    rows = [compared("a", "A++"), compared("b", "B++", ""), compared("c", "B+", "x... (truncated)")]
    metrics = TASK.score(rows).metrics
    assert metrics["wb_reward"] == pytest.approx(1 / 3)
    assert metrics["wb_reward_macro"] == pytest.approx((1 * 1.25 + 1 * 1) / 4.75)
    assert metrics["pairs"] == 3


def test_the_mix_is_the_mean_over_the_references():
    rows = [
        compared("a", "A++", baseline="one"),
        compared("a", "A=B", baseline="two"),
        compared("b", "A+", baseline="two"),
    ]
    metrics = TASK.score(rows).metrics
    assert metrics["wb_reward/one"] == 1
    assert metrics["wb_reward/two"] == pytest.approx(0.25)
    assert metrics["wb_reward"] == pytest.approx(0.625)


def test_upstreams_pair_files_are_read_from_the_models_side():
    def native(name, choice, model_a, model_b, **outputs):
        texts = {model_a: "x" * 10, model_b: "y" * 10} | outputs
        return {
            "session_id": name,
            "parsed_result": {"choice": choice},
            "model_A": model_a,
            "model_B": model_b,
            "winner": "never read",
            "extent": 9,
            "model_outputs": texts,
        }

    reference = "anthropic/claude-3-haiku-20240307"
    rows = [
        native("a", "A++", "m", reference),
        native("b", "A+", reference, "m"),
        native("c", "B+", reference, "m", m="[This model response is empty.]"),
    ]
    metrics = TASK.score(rows).metrics
    assert metrics["wb_reward"] == pytest.approx((1 - 0.5) / 3)
    assert TASK.score(rows, model="m").provenance["model"] == "m"
    bare = [{**rows[1], "parsed_result": None, "winner": winner, "extent": 1} for winner in ("m", reference, "tie")]
    assert [TASK.score([row]).metrics["wb_reward"] for row in bare] == [0.5, -0.5, 0]
    with pytest.raises(BadInput, match="--model NAME"):
        TASK.score([native("a", "A+", "m", "n")])


@needs_public_data
@pytest.mark.parametrize("model", ["gpt-3.5-turbo-0125", "gemma-7b-it"])
def test_the_published_plain_score_and_length_come_out(model):
    lines = gzip.decompress((PUBLIC / "wildbench" / f"{model}.jsonl.gz").read_bytes()).splitlines()
    rows = [json.loads(line) for line in lines]
    want = next(
        one for one in json.loads((PUBLIC / "expected.json").read_text())["wildbench"] if one["model"] == model
    )
    result = TASK.score(rows, model=model)
    assert result.metrics["wb_score_plain"] == pytest.approx(want["wb_score_plain"], abs=1e-6)
    assert result.metrics["average_length"] == pytest.approx(want["avg_len"], abs=1e-6)
    assert result.metrics["total"] == want["n"]
    assert result.metrics["wb_score"] is None
    assert not result.dropped
    if "judge_json" in rows[0]:  # what the judge wrote says the same as what was recorded
        for row in rows:
            assert value_of(row["judge_json"], "score") == row.pop("score")
        assert TASK.score(rows).metrics == result.metrics
