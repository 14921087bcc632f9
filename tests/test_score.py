"""Scoring files: every shape that answers come in, one model's at a time, and what a number travels with."""

import gzip
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bnf_align.engines import Generation
from bnf_align.evaluation import score_outputs
from bnf_align.evaluation.run import run
from bnf_align.evaluation.score import model_name, score_file
from bnf_align.evaluation.tasks import TASKS
from bnf_align.journal import read_jsonl
from bnf_align.records import BadInput

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

ROWS = [
    {"id": "a", "output": '{"reasoning": "9 * 2", "answer": "18"}', "answer": "# 18"},
    {"id": "b", "output": '{"reasoning": "9 * 3", "answer": "26"}', "answer": "# 27"},
]
BOXED = {"id": "c", "output": "so \\boxed{27}", "answer": "27"}


def write(path, rows):
    text = json.dumps(rows) if ".jsonl" not in path.name else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def verdicts(result):
    return [item["correct"] for item in result.items]


# Shapes


@pytest.mark.parametrize("name", ["m.jsonl", "m.jsonl.gz", "m.json", "m.json.gz"])
def test_every_kind_of_file_gives_the_same_numbers(tmp_path, name):
    result = score_file(write(tmp_path / name, ROWS), "gsm8k")
    assert result.metrics == score_outputs("gsm8k", ROWS).metrics
    assert result.metrics["accuracy"] == 50
    assert result.provenance["model"] == "m"


def test_zero_evals_own_files_are_read(tmp_path):
    rows = [
        {
            "session_id": row["id"],
            "chat_history": ["..."],
            "model_input": "n/a",
            "output": [row["output"], "another sample"],
            "generator": "org/some-model",
            "configs": {"temperature": 0},
            "dataset": "gsm",
            "answer": row["answer"],
        }
        for row in ROWS
    ]
    result = score_file(write(tmp_path / "some-model.json", rows), "gsm8k")
    assert [(item["id"], item["correct"]) for item in result.items] == [("a", True), ("b", False)]
    assert result.provenance["model"] == "org/some-model"


def test_our_own_answers_are_scored_without_another_file(tmp_path):
    class Engine:
        name, weights = "tiny", None

        def generate(self, requests, sampling, done=()):
            assert "How many?" in requests[0].prompt[0]["content"]
            yield [Generation(one.id, ['{"reasoning": "", "answer": "18"}'], ["stop"], [9], 50) for one in requests]

    task = TASKS["gsm8k"]
    items = task.items([{"question": "How many?", "answer": "#### 18"}, {"question": "And now?", "answer": "#### 19"}])
    path = run(task, items, Engine(), tmp_path / "answers.jsonl", about={"command": "bnf-align eval run"}).path
    result = score_file(path, "gsm8k")
    assert verdicts(result) == [True, False]
    about = result.provenance
    assert (about["model"], about["seed"], about["command"]) == ("tiny", 0, "bnf-align eval run")
    assert about["template"].startswith("ours:")
    assert about["file"] == str(path)
    with pytest.raises(BadInput, match=r"the rows have 1: tiny\. None is 'renamed'"):
        score_file(path, "gsm8k", "renamed")
    with pytest.raises(BadInput, match="was made for gsm8k, not for crux"):
        score_file(path, "crux")


def test_a_card_that_cannot_be_read_is_said(tmp_path):
    path = write(tmp_path / "m.jsonl", ROWS)
    (tmp_path / "m.jsonl.card.json").write_text("{")
    with pytest.raises(BadInput, match=r"card\.json says what m\.jsonl was made with"):
        score_file(path, "gsm8k")


def test_a_number_of_a_published_file_says_what_is_not_known(tmp_path):
    about = score_file(write(tmp_path / "gemma-2-9b-it.json", ROWS), "gsm8k").provenance
    assert about["model"] == "gemma-2-9b-it"
    assert {name for name, value in about.items() if value is None} == {"template", "judge", "seed", "command"}


# Gold answers


def without_gold(*ids):
    return [{"id": name, "output": '{"answer": "18"}'} for name in ids]


def test_a_gold_answer_may_come_from_the_items(tmp_path):
    items = [{"question": "a?", "answer": "6 * 3\n#### 18"}, {"question": "b?", "answer": "#### 19"}]
    data = write(tmp_path / "items.jsonl", items)
    rows = without_gold("gsm8k-main-test-#1", "gsm8k-main-test-#0", "elsewhere")
    rows.append({**rows[0], "id": "gsm8k-main-test-#1", "answer": "18"})  # its own gold answer goes first
    result = score_file(write(tmp_path / "m.jsonl", rows), "gsm8k", data=data)
    assert verdicts(result) == [False, True, True]
    assert result.dropped == {"no item of --data has this id": ["elsewhere"]}
    assert result.metrics["total"] == 3


def test_choices_may_come_from_the_items_too():
    item = {"id": "x", "question": "q", "choices": ["one", "two"], "correct_answer": "two"}
    rows = [{"id": "x", "output": '{"answer": "B"}'}]
    assert verdicts(score_outputs("mmlu_redux", rows, data=[item])) == [True]


@pytest.mark.parametrize("data", [(), [{"id": "z", "question": "q", "answer": "1"}]])
def test_without_gold_answers_there_is_no_number(data):
    with pytest.raises(BadInput, match=r"2 of 2 rows have no answer .* 'a'.*--data FILE"):
        score_outputs("gsm8k", without_gold("a", "b"), data=data)


def test_a_gold_answer_of_null_is_none():
    with pytest.raises(BadInput, match="--data FILE"):
        score_outputs("gsm8k", [{**ROWS[0], "answer": None}])


@pytest.mark.parametrize("rows", [[], [{"id": "a", "answer": "18"}], [*ROWS, {"id": "c", "published": True}]])
def test_rows_that_are_no_answers_are_refused(rows):
    with pytest.raises(BadInput, match="have no `output`"):
        score_outputs("gsm8k", rows)


def test_repeated_items_count_again_and_it_is_said():
    result = score_outputs("gsm8k", ROWS * 3)
    assert (result.metrics["accuracy"], result.metrics["total"]) == (50, 6)
    assert result.notes == ["4 rows with the item of an earlier one, counted again"]


# Models


def test_dots_belong_to_the_name_of_a_model():
    assert model_name("answers/Llama-3.1-8B.v2.jsonl.gz") == "Llama-3.1-8B.v2"


@pytest.mark.parametrize("column", ["model", "generator", "model_id"])
def test_a_number_is_one_models(column):
    rows = [{**ROWS[0], column: "first"}, {**ROWS[1], column: "org/second"}]
    assert verdicts(score_outputs("gsm8k", rows, "first")) == [True]
    assert verdicts(score_outputs("gsm8k", rows, "second")) == [False]
    with pytest.raises(BadInput, match=r"first, org/second.*--model"):
        score_outputs("gsm8k", rows)
    with pytest.raises(BadInput, match="--model"):
        score_outputs("gsm8k", rows, "third")


@pytest.mark.parametrize(
    ("file", "column", "model", "found"),
    [
        ("m.json", None, None, None),
        ("m.json", None, "Meta-Llama-3.1-8B-Instruct", True),
        ("m.json", "meta-llama/Meta-Llama-3.1-8B-Instruct", None, True),
        ("Llama-3.1-405B-Inst@sambanova.json", None, None, True),
        ("Llama-3.1-405B-Inst@lepton.json", "llama3-1-405b", None, True),
        ("Llama-3.1-405B.json", None, "another", None),
        ("Meta-Llama-3-8B-Instruct.json", "Meta-Llama-3-8B-Instruct", None, None),
    ],
)
def test_a_boxed_answer_counts_for_llama_3_1_however_its_name_is_known(tmp_path, file, column, model, found):
    row = BOXED | ({"generator": column} if column else {})
    assert verdicts(score_file(write(tmp_path / file, [row]), "math_l5", model)) == [found]


def test_an_unknown_task_is_refused():
    with pytest.raises(BadInput, match=r"no task 'gsm'.*gsm8k, math_l5, crux, mmlu_redux"):
        score_outputs("gsm", ROWS)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(BadInput, match="no file"):
        score_file(tmp_path / "none.jsonl", "gsm8k")


# Tags


def test_tags_are_read_from_rows_and_from_one_object(tmp_path):
    tags = [{"session_id": "s", "primary_tag": "Coding & Debugging", "secondary_tags": []}]
    judged = [{"session_id": "s", "output": "x", "score": 7}]
    rows = write(tmp_path / "tags.jsonl", tags)
    table = write(tmp_path / "tags.json", {"s": ["Coding & Debugging"]})
    file = write(tmp_path / "m.jsonl", judged)
    numbers = [score_file(file, "wild_bench", tags=path).metrics["wb_score"] for path in (rows, table)]
    assert numbers[0] == numbers[1] is not None


# Speed


def test_the_speed_benchmark_scores_as_many_rows_as_it_says(tmp_path):
    score_speed = importlib.import_module("score_speed")
    for name, rows in (("gsm", ROWS), ("math-l5", [BOXED])):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "m.jsonl.gz", rows)
    (tmp_path / "out").mkdir()
    files = score_speed.repeated(tmp_path, tmp_path / "out", rows=10)
    assert score_speed.score(files) == 10
    assert score_speed.rows_per_second(files, rounds=2).shape == (2,)


def test_scoring_imports_nothing_heavy():
    code = (
        "import sys\nfrom bnf_align.evaluation.score import score_file\n"
        "heavy = {'torch', 'transformers', 'datasets', 'openai', 'math_verify'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_result_is_one_json_object(tmp_path):
    result = score_file(write(tmp_path / "m.jsonl", ROWS), "gsm8k")
    found = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert found["metrics"] == {"accuracy": 50.0, "no_answer": 0.0, "reason_length": 5.0, "total": 2}
    assert found["items"][1] == {"id": "b", "correct": False, "answer": "26"}
    assert list(read_jsonl(tmp_path / "m.jsonl")) == ROWS
