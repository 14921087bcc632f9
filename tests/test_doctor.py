"""The doctor says what training would do, because it calls what training calls."""

import json

import pytest

from bnf_align.data.doctor import examine
from bnf_align.data.read import iter_rows
from bnf_align.data.rows import preference_rows
from bnf_align.data.tokenize import tokenize_rows
from tiny_models import gemma_tokenizer, plain_tokenizer

GOOD = [{"prompt": "p", "completion": "a", "label": True}, {"prompt": "p", "completion": "b", "label": False}]


@pytest.fixture
def write(tmp_path):
    def to_file(rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return to_file


def test_clean_rows_have_status_0(write):
    path = write(GOOD)
    result = examine(path, tokenizer=plain_tokenizer(), max_length=8)
    assert (result.status, result.error) == (0, None)
    assert result.lines() == [
        f"{path}: 2 rows -> 0 pairs, 1 ups, 1 downs",
        "  tokens of prompt and answer: p50 3, p95 3, max 3",
        "verdict: clean",
    ]


@pytest.mark.parametrize(
    ("rows", "max_length"),
    [
        (GOOD[:1], None),  # a warning: only ups
        ([*GOOD, {**GOOD[0], "completion": ""}], None),  # a row left out
        ([*GOOD, {**GOOD[0], "completion": "long answer"}], 5),  # a row cut
    ],
)
def test_warnings_dropped_rows_and_cut_rows_have_status_1(write, rows, max_length):
    result = examine(write(rows), tokenizer=plain_tokenizer(), max_length=max_length)
    assert result.status == 1
    assert result.lines()[-1] == "verdict: usable; read the lines above first"


def test_unusable_sources_have_status_2_and_the_reason(write):
    result = examine(write([{"question": "q", "good": "a", "bad": "b"}]))
    assert result.status == 2
    assert "--map prompt=question chosen=good rejected=bad" in result.lines()[0]
    assert result.as_dict()["error"] == result.error
    assert examine("nowhere.jsonl").status == 2
    system = {"prompt": [{"role": "system", "content": "s"}], "completion": [{"role": "assistant", "content": "a"}]}
    assert "--merge_system_prompt" in examine(write([{**system, "label": True}]), tokenizer=gemma_tokenizer()).error


def test_the_flags_that_mend_a_source_mend_it_here_too(write):
    path = write([{"question": "q", "good": "a", "bad": "b"}])
    assert examine(path, column_map={"prompt": "question", "chosen": "good", "rejected": "bad"}).report.pairs == 1


def test_the_numbers_are_those_of_training(write):
    path = write(
        [*GOOD, {**GOOD[0], "label": None}, {**GOOD[0], "prompt": "p" * 9}, {**GOOD[1], "completion": "bbbbbbb"}]
    )
    rows, report = preference_rows(iter_rows(path), source=str(path))
    tokenize_rows(rows, plain_tokenizer(), report, max_length=8)
    assert examine(path, tokenizer=plain_tokenizer(), max_length=8).report == report


def test_json_holds_every_row_number(write):
    path = write([*GOOD, *({**GOOD[0], "completion": ""} for _ in range(9))])
    result = json.loads(json.dumps(examine(path).as_dict()))
    assert result["status"] == 1
    assert result["dropped"] == {"an empty answer": 9}
    assert result["dropped_rows"] == {"an empty answer": [2, 3, 4, 5, 6, 7, 8, 9, 10]}
