"""Every reason for which a row is left out has one code and one sentence, and every room and page says the same."""

import ast
import json
import pickle
import re
from pathlib import Path
from string import Formatter

import pytest

from bnf_align.data.doctor import examine
from bnf_align.data.doctor.fix import IN_EXPORT, MENDED
from bnf_align.data.doctor.result import page
from bnf_align.data.rows import preference_rows
from bnf_align.reasons import REASONS, Reason
from bnf_align.records import DataReport

ROOT = Path(__file__).parents[1]


def made() -> list[tuple[str, set[str], str]]:
    """(code, names of its parameters, where) of every `Reason(...)` in the sources."""
    found = []
    for path in sorted((ROOT / "src").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Reason":
                texts = [one.value for one in ast.walk(node.args[0]) if isinstance(one, ast.Constant)]
                names = {str(keyword.arg) for keyword in node.keywords}
                found += [(code, names, f"{path.name}:{node.lineno}") for code in texts if isinstance(code, str)]
    return found


def test_no_code_is_used_that_the_table_lacks_and_each_gets_the_parameters_that_its_sentence_names():
    assert len(made()) > 60
    for code, names, where in made():
        assert code in REASONS, where
        assert {name for _, name, _, _ in Formatter().parse(REASONS[code]) if name} <= names, where


def test_no_code_stands_in_the_table_that_nobody_uses_and_no_two_have_one_sentence():
    assert {code for code, _, _ in made()} | {*MENDED} == REASONS.keys()
    assert IN_EXPORT in REASONS
    assert len({*REASONS.values()}) == len(REASONS)


def test_the_documentation_lists_every_code_with_its_sentence():
    text = (ROOT / "docs" / "data-formats.md").read_text()
    section = text[text.index("## What is said of rows") : text.index("Kept with a warning")]
    listed = re.findall(r"^\| `(\w+)` \| (.*?) \|", section, re.M)
    assert listed == list(REASONS.items())


def test_a_reason_is_its_sentence_and_keeps_its_code_and_parameters_on_the_way_to_another_process():
    reason = Reason("prompt_too_long", max_length=16)
    assert reason == "prompts longer than max_length=16"
    other = pickle.loads(pickle.dumps(reason))
    assert (other, other.code, other.parameters) == (reason, "prompt_too_long", {"max_length": 16})
    assert {reason: 1} == {other: 1} != {Reason("prompt_too_long", max_length=17): 1}


def test_an_unknown_code_and_a_missing_parameter_are_errors():
    with pytest.raises(KeyError, match="too_long"):
        Reason("too_long")
    with pytest.raises(KeyError, match="max_length"):
        Reason("prompt_too_long")


def test_lines_json_run_json_the_page_and_the_left_out_rows_say_the_same_code_and_sentence(tmp_path):
    good = {"prompt": "What is 1+1?", "completion": "2", "label": True}
    rows = [good, {**good, "completion": "3", "label": False}, {**good, "completion": ""}, {**good, "prompt": None}]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = examine(path, fix=tmp_path / "clean.jsonl")
    said = [("empty_answer", "an empty answer", 2), ("missing_column", "no `prompt`", 3)]

    _, report = preference_rows(rows, source="the rows")
    record = json.loads(json.dumps(report.as_dict()))  # as it stands in run.json
    assert record["dropped"] == {text: 1 for _, text, _ in said}
    assert {text: one["code"] for text, one in record["reasons"].items()} == {text: code for code, text, _ in said}
    assert record["reasons"]["no `prompt`"]["parameters"] == {"columns": "`prompt`"}

    found = json.loads(json.dumps(result.as_dict()))
    assert found["reasons"] == record["reasons"]
    assert found["dropped_rows"] == {text: [row] for _, text, row in said}
    told = [finding for finding in found["findings"] if finding["level"] == "left out"]
    assert [(one["name"], one["text"], *one["rows"]) for one in told] == said

    left_out = [json.loads(line) for line in (tmp_path / "clean.left_out.jsonl").read_text().splitlines()]
    assert [(one["code"], one["reason"], one["row"]) for one in left_out] == said

    html, lines = page(result), result.lines()
    for code, text, row in said:
        assert f"left out ({code})" in html
        assert text in html
        assert f"  left out 1 row ({row}): {text}" in lines


def test_every_reason_of_an_error_is_said_with_its_rows():
    report = DataReport("x")
    assert report.left_out() == ""
    report.drop(Reason("no_rating"), 4)
    report.drop(Reason("tie"), 7)
    assert report.left_out() == "no rating: 1 row (4); a tie between the two answers: 1 row (7)"
