"""CHES, the similarity of a pair's hidden states, is the paper's: a literal computation of its definition agrees."""

import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model

from bnf_align.cli.doctor import main
from bnf_align.data.doctor import examine
from bnf_align.data.doctor.ches import Ches
from bnf_align.data.tokenize import encode_row
from bnf_align.records import BadInput
from rows import assistant, pair, user
from tiny_models import chatml_tokenizer, plain_tokenizer
from tiny_nets import SIZES, tiny_gemma2, tiny_llama

PAIRS = [
    ("p", "yes", "no"),
    ("prompt", "a long answer of many bytes", "a long answer of many bits"),
    ("q" * 9, "ab", "something else altogether"),
    ("r", "hello there", "hello, you"),
    ("s", "x", "a much longer answer than the other one"),
]

BOUND = 64 * float(np.finfo(np.float32).eps) * SIZES["hidden_size"]
"""Of a difference of squared norms in float32: the last norm leaves states of size one, so a norm is the width."""


def rows():
    return [pair(n, prompt=p, chosen=c, rejected=r) for n, (p, c, r) in enumerate(PAIRS)]


def literal(model, prompt: list[int], chosen: list[int], rejected: list[int]) -> tuple[float, float]:
    """Definition 2 of arXiv 2410.08847: h of (x, y_<k) for every k, one forward pass each, in float64."""

    def states(answer):
        ids = [torch.tensor([prompt + answer[:k]]) for k in range(len(answer))]
        with torch.no_grad():
            return [model.double()(one, output_hidden_states=True).hidden_states[-1][0, -1] for one in ids]

    ups, downs = states(chosen), states(rejected)
    up, down = sum(ups), sum(downs)
    score = up @ down - up.norm() ** 2
    normalised = (up / len(ups)) @ (down / len(downs)) - (up / len(ups)).norm() ** 2
    return float(score), float(normalised)


@pytest.mark.parametrize("build", [tiny_llama, tiny_gemma2])
@pytest.mark.parametrize("max_tokens", [8192, 100, 1])
def test_scores_are_those_of_the_definition_however_pairs_are_batched(build, max_tokens):
    tokenizer = plain_tokenizer()
    ches = Ches(build(), max_tokens=max_tokens)
    expected = []
    for row in rows():
        unit = encode_row({**row, "row": 0}, tokenizer, False, True)
        ches.add(0, *unit)
        ids = [answer.ids.tolist() for answer in unit]
        start = int(unit[0].mask.argmax())
        expected.append(literal(build(), ids[0][:start], ids[0][start:], ids[1][start:]))
    highest = ches.findings()[0].figures["highest"]
    assert highest[0]["normalised"] == pytest.approx(max(score[1] for score in expected), abs=BOUND)
    got = list(zip(ches._scores, ches._normalised, strict=True))
    lengths = [max(len(answer) + 1 for answer in answers) for _, *answers in PAIRS]
    for (score, normalised), (their_score, theirs), length in zip(got, expected, lengths, strict=True):
        assert normalised == pytest.approx(theirs, abs=BOUND)
        assert score == pytest.approx(their_score, abs=BOUND * length**2)


def test_what_the_template_writes_around_answers_and_what_is_cut_has_no_part_in_it():
    tokenizer, model = chatml_tokenizer(), tiny_llama()
    row = {"row": 0, "prompt": [user("q")], "chosen": [assistant("hello")], "rejected": [assistant("goodbye")]}
    unit = encode_row(row, tokenizer, False, True)
    start = int(unit[0].mask.argmax())
    for length in (None, start + 3):
        ches = Ches(model.float(), max_length=length)
        ches.add(0, *unit)
        figures = ches.findings()[0].figures["highest"][0]
        ends = [answer.ids[: int(np.flatnonzero(answer.mask)[-1]) + 1][:length].tolist() for answer in unit]
        score, normalised = literal(tiny_llama(), ends[0][:start], ends[0][start:], ends[1][start:])
        assert figures["normalised"] == pytest.approx(normalised, abs=BOUND)
        assert figures["score"] == pytest.approx(score, abs=BOUND * 8**2)


def test_an_adapter_is_part_of_the_model():
    base, adapted = tiny_llama(), get_peft_model(tiny_llama(), LoraConfig(target_modules=["q_proj"]))
    unit = encode_row({**rows()[3], "row": 0}, plain_tokenizer(), False, True)

    def score(model):
        ches = Ches(model.eval())
        ches.add(0, *unit)
        return ches.findings()[0].figures["max"]

    assert score(adapted) == score(base)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight += 1
    assert score(adapted) != score(base)


def test_the_highest_pairs_are_listed_first_with_counts_and_a_histogram(write):
    many = [pair(n, prompt=f"p{n}", chosen=f"answer {n}", rejected=f"reply {n * n}") for n in range(40)]
    result = examine(write(many), tokenizer=plain_tokenizer(), model=tiny_llama())
    found = next(finding for finding in result.findings if finding.name == "ches")
    assert found.level == "note"
    assert len(found.rows) == 2
    scores = [one["normalised"] for one in found.figures["highest"]]
    assert scores == sorted(scores, reverse=True)
    assert [one["row"] for one in found.figures["highest"]] == found.rows
    assert found.figures["max"] == scores[0]
    assert sum(found.figures["histogram"]["counts"]) == found.figures["pairs"] == 40
    assert len(found.figures["histogram"]["edges"]) == len(found.figures["histogram"]["counts"]) + 1
    assert [example["row"] for example in found.examples] == found.rows
    json.dumps(result.as_dict())


def test_without_pairs_there_is_nothing_to_say(write):
    singles = [{"prompt": "p", "completion": "a", "label": True}, {"prompt": "p", "completion": "b", "label": False}]
    result = examine(write(singles), tokenizer=plain_tokenizer(), model=tiny_llama())
    assert [finding.name for finding in result.findings] == []


def test_the_command_loads_the_model_and_needs_its_name(write, tmp_path, capsys):
    tiny_llama().save_pretrained(tmp_path / "base")
    plain_tokenizer().save_pretrained(tmp_path / "base")
    path = write(rows())
    main([str(path), "--model_name_or_path", str(tmp_path / "base"), "--ches", "--json"])
    found = {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert found["ches"]["figures"]["pairs"] == len(PAIRS)
    with pytest.raises(BadInput, match="--ches compares hidden states: name the model with --model_name_or_path"):
        main([str(path), "--ches"])
