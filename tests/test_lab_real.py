"""The quickstart on a chat model: rules that a program checks, thumbs from them, and what is measured."""

import csv
import html
import importlib
import json
import sys
from pathlib import Path

import pytest
import yaml

from bnf_align import BadInput
from bnf_align.cli.main import main
from bnf_align.compare import read
from bnf_align.compare.evaluations import Rule
from bnf_align.construct.scorers.verifier import Verifier
from bnf_align.engines.local import LocalEngine
from bnf_align.lab import real
from bnf_align.lab.real import (
    RULES,
    TOPICS,
    Sizes,
    answers,
    follows,
    prompts,
    real_quickstart,
    table,
    thumbs,
    topics_of,
)
from bnf_align.models import load
from tiny_models import chatml_tokenizer
from tiny_nets import tiny_llama

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
real_lab = importlib.import_module("real_lab")

TINY = Sizes(topics=2, held_out=1, samples=8, max_new_tokens=200, batch_size=8, learning_rate=1e-3)


@pytest.mark.parametrize(
    ("rule", "answer", "right"),
    [
        ("lowercase", "tea is made of leaves that grow on hills.", True),
        ("lowercase", "Tea is made of leaves that grow on hills.", False),
        ("lowercase", "tea is made of leaves.", False),  # too few words
        ("twelve words", "Tea is made of leaves.", True),
        ("twelve words", "Tea is nice.", False),
        ("twelve words", "one two three four five six seven eight nine ten eleven twelve thirteen", False),
        ("no commas", "Tea is made of leaves that grow on hills.", True),
        ("no commas", "Tea is made of leaves, and they grow on hills.", False),
        ("ending", "Tea is made of leaves that grow on hills. That is all.", True),
        ("ending", "That is all.", False),
        ("ending", "Tea is made of leaves that grow on hills. That is all. Or not.", False),
        ("because", "People drink tea because it is warm and good.", True),
        ("because", "People drink tea, becauses are rare and it is warm.", False),
        ("question", "Tea is made of leaves; have you ever seen them?", True),
        ("question", "Have you seen tea? It is made of leaves from hills.", False),
    ],
)
def test_a_rule_holds_where_it_should_and_asks_for_an_answer_too(rule, answer, right):
    assert follows({"rule": rule}, answer) is right
    assert follows({"rule": rule}, f" {answer}\n") is right


def test_a_candidate_that_was_cut_follows_no_rule():
    answer = "tea is made of leaves that grow on hills"
    row = {"rule": "lowercase", "candidates": [{"text": answer, "finish_reason": "length"}]}
    assert follows(row, answer) is False
    row["candidates"][0]["finish_reason"] = "stop"
    assert follows(row, answer) is True


def test_topics_are_trained_on_or_held_out_and_follow_the_seed():
    seen, held_out = topics_of(0, Sizes())
    assert (len(set(seen)), len(set(held_out))) == (40, 16)
    assert not set(seen) & set(held_out)
    assert topics_of(0, Sizes()) == (seen, held_out)
    assert topics_of(1, Sizes()) != (seen, held_out)
    with pytest.raises(BadInput, match="100 \\+ 16 topics are wanted"):
        topics_of(0, Sizes(topics=100))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tokenizer = chatml_tokenizer()
    tokenizer.save_pretrained(folder)
    # Almost uniform, so that half of the answers end by themselves.
    tiny_llama(len(tokenizer), initializer_range=0.01).save_pretrained(folder)
    return folder


@pytest.fixture
def easy(monkeypatch):
    """Rules that the words of a random model can follow."""
    monkeypatch.setitem(RULES, "lowercase", real.Rule("Say little.", lambda text: len(text) % 2 == 0, 0))
    for name in list(RULES)[1:]:
        monkeypatch.delitem(RULES, name)


def test_thumbs_are_the_models_own_answers_judged_by_their_rule_and_downs_are_bounded(model, tmp_path, easy):
    loaded = load(str(model))
    engine = LocalEngine(loaded.model, loaded.tokenizer, name="tiny")
    rows = thumbs(engine, ["tea", "rain"], tmp_path, 0, Sizes(samples=8, max_new_tokens=200, downs=0.5))
    scored = [json.loads(line) for line in (tmp_path / "scored.jsonl").read_text().splitlines()]
    said = {
        (row["prompt"][0]["content"], one["text"]): follows(row, one["text"])
        for row in scored
        for one in row["candidates"]
    }
    ups = sum(row["label"] for row in rows)
    assert ups > 0
    assert len(rows) - ups <= round(0.5 * ups)
    for row in rows:
        text = row["completion"] if isinstance(row["completion"], str) else row["completion"][0]["content"]
        assert said[row["prompt"][0]["content"], text] is row["label"]


@pytest.mark.slow
def test_the_numbers_are_those_of_the_models_it_leaves(model, tmp_path, easy):
    result = real_quickstart(str(model), tmp_path, 0, TINY)
    asked = prompts(topics_of(0, TINY)[1])
    assert result["prompts"] == len(asked) == 1
    for method, folder in (("base", model), ("bnf", tmp_path / "bnf"), ("sft", tmp_path / "sft")):
        loaded = load(str(folder))
        found = answers(LocalEngine(loaded.model, loaded.tokenizer, name="again"), asked, 0, TINY)
        measured = result["methods"][method]
        assert result["tokens"][method] == pytest.approx(sum(one.tokens[0] for one in found) / len(found))
        ended = [one.finish_reasons[0] != "length" for one in found]
        right = [end and follows(row, one.texts[0]) for end, row, one in zip(ended, asked, found, strict=True)]
        assert measured["follows the rule"]["after"]["mean"] == pytest.approx(sum(right) / len(right))
        assert measured["ends by itself"]["after"]["mean"] == pytest.approx(sum(ended) / len(ended))
    assert result["measures"]["follows the rule"]["change"] == result["methods"]["bnf"]["follows the rule"]["change"]
    page = (tmp_path / "report.html").read_text()
    assert result["conclusion"] in html.unescape(page)
    samples = [json.loads(line) for line in (tmp_path / "bnf" / "samples.jsonl").read_text().splitlines()]
    text = table(result, samples)
    assert all(method in text for method in ("base", "bnf", "sft"))
    assert samples[0]["prompt"][0]["content"] in text


def test_the_real_lab_asks_about_every_topic_that_there_is():
    seen, held_out = topics_of(0, real_lab.SIZES)
    assert len({*seen, *held_out}) == len(TOPICS)


def test_the_real_lab_is_a_comparison_with_equal_grids_and_rows_for_what_is_missing(
    model, tmp_path, easy, monkeypatch
):
    monkeypatch.delenv("BNF_ALIGN_DATA", raising=False)
    monkeypatch.setattr(real, "TOPICS", [f"topic {number}" for number in range(164)])
    sizes = Sizes(topics=160, held_out=4, samples=6, max_new_tokens=100)
    plan = read(real_lab.config(str(model), tmp_path, ["bnf", "dpo", "sft"], sizes))
    assert {name: len(method.grid) for name, method in plan.methods.items()} == dict.fromkeys(("bnf", "dpo", "sft"), 2)
    assert list(yaml.safe_load(real_lab.in_order({"methods": dict.fromkeys(real_lab.METHODS)}))["methods"]) == [
        *real_lab.METHODS
    ]
    asked = {name: (tmp_path / f"{name}.jsonl").read_text() for name in ("validation", "test")}
    assert [len(text.splitlines()) for text in asked.values()] == [1, 3]
    pairs = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert all(row["prompt"][0]["content"] not in "".join(asked.values()) for row in pairs)
    real_lab.write_results(tmp_path / "comparison" / "compare.json", tmp_path / "results.csv")
    rows = list(csv.DictReader((tmp_path / "results.csv").open()))
    assert {row["method"] for row in rows} == {"base", *real_lab.METHODS}
    assert {row["mean"] for row in rows} == {"not measured"}


def test_in_a_comparison_an_answer_that_was_cut_follows_no_rule():
    answer = "all of these words are of a small size here"
    rows = [
        {"id": end, "rule": "lowercase", "output": answer, "finish_reason": end, "tokens": 9}
        for end in ("stop", "length")
    ]
    found = Rule(Verifier(real.VERIFIER)).score(rows)
    assert {item["id"]: item["correct"] for item in found.items} == {"stop": 1, "length": 0}


def test_a_model_without_a_chat_template_is_refused(model, tmp_path, capsys):
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "plain")
    tiny_llama(len(tokenizer)).save_pretrained(tmp_path / "plain")
    assert main(["quickstart", "--real", str(tmp_path / "plain"), "--output_dir", str(tmp_path / "out")]) == 2
    assert "has no chat template" in capsys.readouterr().err
