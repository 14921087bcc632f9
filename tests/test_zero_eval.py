"""ZeroEval's tasks: published numbers and prompts to the digit and byte, and the same rules on rows of our own."""

import gzip
import json
import os
import re
from pathlib import Path

import pytest

from bnf_align.evaluation import score_outputs
from bnf_align.evaluation.score import score_file
from bnf_align.evaluation.tasks import TASKS
from bnf_align.records import BadInput

PUBLIC = os.environ.get("BNF_ALIGN_DATA")
needs_public = pytest.mark.skipif(not PUBLIC, reason="needs the public data: set BNF_ALIGN_DATA to its folder")

NAMES = {"gsm8k": "gsm", "math_l5": "math-l5", "crux": "crux", "mmlu_redux": "mmlu-redux"}
FILES = [
    (task, model) for task in ("gsm8k", "math_l5", "crux") for model in ("Meta-Llama-3-8B-Instruct", "gemma-2-9b-it")
]


def path_of(task, model):
    return Path(PUBLIC) / "zeroeval" / NAMES[task] / f"{model}.jsonl.gz"


def read(path):
    with gzip.open(Path(PUBLIC) / path, "rt") as lines:
        return [json.loads(line) for line in lines]


def prompted(task):
    """The public rows of `task` that carry the prompt they were made with."""
    return read(path_of(task, "Athene-70B.partial" if task == "mmlu_redux" else "Meta-Llama-3-8B-Instruct"))


def prompt_of(task, item, template=None):
    (message,) = TASKS[task].prompt(item, template)
    assert message["role"] == "user"
    return message["content"]


def choice_lines(choices):
    return "".join(f"- ({letter}) {choice}\n" for letter, choice in zip("ABCD", choices, strict=True))


# Published numbers


@needs_public
@pytest.mark.parametrize(("task", "model"), FILES)
def test_every_published_number_comes_out_to_the_printed_digit(task, model):
    expected = json.loads((Path(PUBLIC) / "expected.json").read_text())["zeroeval"]
    printed = next(row["as_published"] for row in expected if (row["task"], row["model"]) == (NAMES[task], model))
    metrics = score_file(path_of(task, model), task).metrics
    assert f"{metrics['accuracy']:.2f}" == printed["Acc"]
    assert f"{metrics['no_answer']:.2f}" == printed["No answer"]
    assert f"{metrics['reason_length']:.2f}" == printed["Reason Lens"]
    assert metrics["total"] == printed["Total"]


@needs_public
def test_every_published_verdict_of_mmlu_redux_comes_out():
    rows = prompted("mmlu_redux")
    result = score_file(path_of("mmlu_redux", "Athene-70B.partial"), "mmlu_redux")
    verdicts = [item["correct"] for item in result.items]
    assert verdicts == [row["published_correct"] for row in rows]
    assert (verdicts.count(True), verdicts.count(None), len(verdicts)) == (720, 1, 976)


@needs_public
@pytest.mark.parametrize("label", ["gone", "turned over"])
def test_published_labels_are_never_read(label):
    rows = prompted("mmlu_redux")
    for row in rows:
        published = row.pop("published_correct")
        if label == "turned over":
            row |= {"published_correct": not published, "matched": not published, "correct": not published}
    assert score_outputs("mmlu_redux", rows).items == score_outputs("mmlu_redux", prompted("mmlu_redux")).items


@needs_public
def test_math_verify_differs_only_where_the_first_number_is_not_the_answer():
    result = score_file(path_of("math_l5", "gemma-2-9b-it"), "math_l5", math_verify=True)
    differing = {item["answer"] for item in result.items if bool(item["correct"]) != item["correct_math_verify"]}
    assert differing == {"-1 + i", "-4, -5"}
    assert f"{result.metrics['accuracy_math_verify']:.2f}" == "19.14"
    assert f"{result.metrics['accuracy']:.2f}" == "19.42"


# Prompts


@needs_public
@pytest.mark.parametrize("task", NAMES)
def test_a_template_recovered_from_one_prompt_rebuilds_every_stored_one(task):
    rows = prompted(task)
    template = rows[0]["prompt"].replace(rows[0]["question"], "{question}")
    if task == "mmlu_redux":
        template = template.replace(choice_lines(rows[0]["choices"]), "{choices}")
    items = TASKS[task].items(rows)
    assert [prompt_of(task, item, template) for item in items] == [row["prompt"] for row in rows]


@needs_public
@pytest.mark.parametrize("source", ["cruxeval", "zeroeval"])
def test_a_crux_template_of_code_and_input_rebuilds_every_stored_prompt_from_either_source(source):
    stored, code = prompted("crux"), read("cruxeval/cruxeval.jsonl.gz")
    template = stored[0]["prompt"].replace(code[0]["code"], "{code}").replace(code[0]["input"], "{input}")
    items = TASKS["crux"].items(code if source == "cruxeval" else stored)
    assert [prompt_of("crux", item, template) for item in items] == [row["prompt"] for row in stored]
    assert [item["id"] for item in items] == [row["id"] for row in stored]
    assert [item["answer"] for item in items] == [row["answer"] for row in stored]


@needs_public
@pytest.mark.parametrize("task", NAMES)
def test_our_wording_is_our_own(task):
    """Six words in a row that the stored instruction has too would be a copy; the form itself is the protocol."""

    def runs(text):
        words = re.findall(r"\w+", text.lower())
        return {tuple(words[start : start + 6]) for start in range(len(words) - 5)}

    row = prompted(task)[0]
    theirs = row["prompt"].replace(choice_lines(row.get("choices", "ABCD")), "")
    assert not runs(re.sub(r"\{\w+\}", "", TASKS[task].template)) & runs(theirs)


QUESTION = {
    "id": "q",
    "question": "How many?",
    "choices": ["one", "two"],
    "code": "def f(a):\n    return a",
    "input": "1",
}


@pytest.mark.parametrize("task", NAMES)
def test_our_prompt_has_the_structure_of_the_protocol(task):
    item = {key: value for key, value in QUESTION.items() if task != "crux" or key != "question"}
    text = prompt_of(task, item)
    assert re.findall(r"^## (\w+)", text, re.MULTILINE) == (
        ["Question", "Choices", "Instruction"] if task == "mmlu_redux" else ["Question", "Instruction"]
    )
    assert ("def f(a):\n    return a\n\nf(1)\n" if task == "crux" else "\nHow many?\n") in text
    assert ("- (A) one\n- (B) two\n\n" in text) is (task == "mmlu_redux")
    form = re.search(r"```json\n(.*)```\n$", text, re.DOTALL)
    assert list(json.loads(form[1])) == ["reasoning", "answer"]


def test_a_text_is_filled_in_as_it_is_even_where_it_looks_like_a_template():
    item = {"id": "q", "question": "{choices} {question} {$question}", "choices": ["{question}", "b"]}
    assert prompt_of("mmlu_redux", item, "{question}|{choices}|{other}") == (
        "{choices} {question} {$question}|- (A) {question}\n- (B) b\n|{other}"
    )


@pytest.mark.parametrize(("task", "template"), [("gsm8k", "Answer!"), ("gsm8k", "{choices}"), ("crux", "{question}")])
def test_a_template_that_does_not_fit_the_items_is_refused(task, template):
    """With `{question}` our wording would slip into a prompt that says it is the published one."""
    item = {key: value for key, value in QUESTION.items() if task != "crux" or key != "question"}
    with pytest.raises(BadInput, match="--template"):
        TASKS[task].prompt(item, template)


# Items


def test_gsm8k_items_come_from_worked_solutions_and_from_zero_eval():
    hub = [
        {"config": "main", "question": "a?", "answer": "2 * 9 = <<2*9=18>>18\n#### 18"},
        {"question": "b?", "answer": "#### 2,125"},
    ]
    assert TASKS["gsm8k"].items(hub) == [
        {"id": "gsm8k-main-test-#0", "question": "a?", "answer": "18"},
        {"id": "gsm8k-main-test-#1", "question": "b?", "answer": "2,125"},
    ]
    assert TASKS["gsm8k"].items([{"id": "x", "question": "a?", "answer": "# 18"}])[0]["answer"] == "18"


def test_math_items_come_from_the_hub_and_from_zero_eval():
    assert TASKS["math_l5"].items([{"id": 7, "problem": "p", "answer": "-15"}]) == [
        {"id": "7", "question": "p", "answer": "-15"}
    ]
    assert TASKS["math_l5"].items([{"question": "p", "answer": 4}]) == [{"id": "0", "question": "p", "answer": "4"}]


def test_crux_items_keep_the_gold_apart_from_a_models_output():
    row = {"id": "sample_3", "code": "def f(a): ...", "input": "'x'", "output": "None"}
    (item,) = TASKS["crux"].items([row])
    assert item == {"id": "crux-test-#3", "code": "def f(a): ...", "input": "'x'", "answer": "None"}
    answered = {**item, "output": '{"answer": "5"}'}
    assert TASKS["crux"].items([answered])[0]["answer"] == "None"


def test_crux_questions_of_another_form_keep_their_text():
    (item,) = TASKS["crux"].items([{"id": "c", "question": "What is f(1)?", "answer": "1"}])
    assert prompt_of("crux", item, "<{question}>") == "<What is f(1)?>"
    with pytest.raises(BadInput, match="names code, input"):
        TASKS["crux"].prompt(item)


def test_mmlu_items_leave_bad_questions_out_and_correct_wrong_letters():
    def row(config, error_type, correct_answer=None, answer=0):
        return {
            "config": config,
            "question": "q",
            "choices": ["a", "b", "c", "d"],
            "answer": answer,
            "error_type": error_type,
            "correct_answer": correct_answer,
        }

    items = TASKS["mmlu_redux"].items(
        [
            row("anatomy", "bad_question_clarity"),
            row("anatomy", "ok", answer=3),
            row("anatomy", "wrong_groundtruth", "C"),
            row("virology", "ok", "D", answer=1),
            row("virology", "wrong_groundtruth", "a or b"),
            row("virology", "wrong_groundtruth", "E"),
            row("virology", "wrong_groundtruth", ""),
            row("virology", "wrong_groundtruth"),
            row("virology", "multiple_correct_answers", "AB"),
            row("virology", "no_correct_answer", "A"),
            row("virology", "expert"),
            row("virology", "ok", answer="2"),
        ]
    )
    assert [(item["id"], item["correct_answer"]) for item in items] == [
        ("mmlu-redux-anatomy-#1", "d"),
        ("mmlu-redux-anatomy-#2", "c"),
        ("mmlu-redux-virology-#0", "b"),
        ("mmlu-redux-virology-#8", "c"),
    ]
    assert TASKS["mmlu_redux"].items(items) == items


@pytest.mark.parametrize("task", NAMES)
def test_rows_that_are_no_items_are_refused(task):
    with pytest.raises(BadInput, match=r"1 of 1 rows are no items of .*row 0 .*text.*--data"):
        TASKS[task].items([{"text": "x"}])


@pytest.mark.parametrize("task", NAMES)
def test_items_are_published_at_a_fixed_commit(task):
    assert re.fullmatch("[0-9a-f]{40}", TASKS[task].hub.revision)


# Scores


def answered(*outputs, **gold):
    return [{"id": number, "output": output, **gold} for number, output in enumerate(outputs)]


def as_json(answer, reasoning="r"):
    return json.dumps({"reasoning": reasoning, "answer": answer})


def verdicts(task, *outputs, **gold):
    return [item["correct"] for item in score_outputs(task, answered(*outputs, **gold)).items]


def test_numbers_are_right_wrong_or_missing():
    for task in ("gsm8k", "math_l5"):
        outputs = [as_json("18"), as_json(18.0), as_json("$18/1"), as_json(None), as_json([18, 3]), "eighteen"]
        assert verdicts(task, *outputs, answer="# 18") == [True, True, True, False, True, None]
        assert verdicts(task, as_json("18"), answer=18) == [True]
    assert verdicts("gsm8k", as_json("18"), as_json("9"), answer="9 * 2\n#### 18") == [True, False]


def test_literals_are_right_wrong_or_missing():
    outputs = [as_json("None"), as_json(None), as_json("'None'"), as_json(""), "no idea"]
    assert verdicts("crux", *outputs, answer="None") == [True, True, True, False, None]
    assert verdicts("crux", as_json({"a": [1]}), as_json("{'a': [1]}"), answer="{'a': [1]}") == [True, True]
    assert verdicts("crux", as_json(""), answer="''") == [True]


def test_choices_are_right_wrong_or_missing():
    outputs = [as_json("B"), as_json("(B) two"), as_json("two"), as_json(2), as_json(None), as_json(""), "B"]
    expected = [True, True, False, False, None, None, None]
    assert verdicts("mmlu_redux", *outputs, choices=["one", "two", "two"], correct_answer="two") == expected


def test_shares_are_of_all_items_and_lengths_of_the_answered_ones():
    rows = answered(
        as_json("18", "12345"),
        as_json("17", "123"),
        "nothing",
        as_json(None, ["a", "b"]),
        '{"answer": "18"}',
        answer="18",
    )
    rows += answered(as_json("1", None), as_json("1", 5), answer="18")
    metrics = score_outputs("gsm8k", rows).metrics
    assert metrics == {
        "accuracy": 2 / 7 * 100,
        "no_answer": 1 / 7 * 100,
        "reason_length": (5 + 3 + 2 + 0 + 0 + 0) / 6,
        "total": 7,
    }


def test_shares_print_as_published_where_rounding_is_a_matter_of_order():
    rows = answered(*[as_json("1")] * 473, *[as_json("2")] * 327, answer="1")
    assert f"{score_outputs('crux', rows).metrics['accuracy']:.2f}" == "59.13"


def test_without_any_answer_there_is_no_length():
    assert score_outputs("crux", answered("", answer="1")).metrics["reason_length"] is None


@pytest.mark.parametrize("output", [None, [], "", [None]])
def test_an_empty_output_is_no_answer(output):
    assert verdicts("gsm8k", output, answer="18") == [None]


@pytest.mark.parametrize(("task", "name"), [("crux", "gsm8k-main-test-#0"), ("math_l5", "crux-test-#3")])
def test_rows_of_another_of_the_four_tasks_are_refused(task, name):
    """They have all that is needed, and would give a number."""
    with pytest.raises(BadInput, match=name.split("-")[0]):
        score_outputs(task, [{"id": name, "output": '{"answer": "1"}', "answer": "1"}])


def test_a_name_does_not_overrule_the_name_in_the_rows():
    row = {"id": 0, "output": '{"answer": "1"}', "answer": "1"}
    assert score_outputs("gsm8k", [row], model="mine").provenance["model"] == "mine"
    assert score_outputs("gsm8k", [row | {"model": "org/mine"}], model="mine").provenance["model"] == "org/mine"
    with pytest.raises(BadInput, match="the rows have 1: other"):
        score_outputs("gsm8k", [row | {"model": "other"}], model="mine")


def test_only_numbers_get_a_second_opinion():
    options = {"math_verify": True}
    result = score_outputs("gsm8k", answered(as_json("18 + 1"), as_json("18"), "", answer="#### 18"), **options)
    assert result.metrics["accuracy_math_verify"] == pytest.approx(100 / 3)
    assert result.metrics["accuracy"] == pytest.approx(200 / 3)
    assert "accuracy_math_verify" not in score_outputs("crux", answered(as_json("1"), answer="1"), **options).metrics


def test_a_gold_answer_that_is_none_of_the_choices_is_refused():
    with pytest.raises(BadInput, match="none of its `choices`"):
        verdicts("mmlu_redux", as_json("A"), choices=["one"], correct_answer="two")
