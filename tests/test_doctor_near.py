"""Near-duplicate prompts: MinHash estimates what sets of three-word runs have in common."""

import random

import numpy as np
import pytest

from bnf_align.data.doctor import examination, examine
from bnf_align.data.doctor.leaks import PLACES, first_near, signature
from rows import assistant, pair, single, user

GENERATOR = random.Random(0)
WORDS = ["".join(GENERATOR.choices("abcdefghijklmnop", k=6)) for _ in range(4000)]


def words(count: int) -> list[str]:
    return GENERATOR.choices(WORDS, k=count)


def jaccard(one: list[str], other: list[str]) -> float:
    runs = [set(zip(text, text[1:], text[2:], strict=False)) for text in (one, other)]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def similarity(one: str, other: str) -> float:
    return float((signature(one) == signature(other)).mean())


def found(result) -> dict[str, list[int]]:
    return {finding.name: list(finding.rows) for finding in result.findings}


def test_equal_places_estimate_the_jaccard_similarity_without_bias():
    """Over 200 texts the mean error has a standard deviation of sqrt(J (1 - J) / (128 * 200)) < 0.0032."""
    for changed in (1, 5, 20):
        errors = []
        for _ in range(200):
            text = words(60)
            other = [*text[:-changed], *words(changed)]
            errors.append(similarity(" ".join(text), " ".join(other)) - jaccard(text, other))
        assert abs(np.mean(errors)) < 4 * 0.0032
        assert np.std(errors) < 0.06


def test_case_spaces_and_order_of_runs_are_nothing_and_another_kind_is_everything():
    text = " ".join(words(30))
    assert similarity(text, f"  {text.upper()}\n") == 1
    assert (signature(text) == signature(text, kind=1)).mean() < 0.05
    assert similarity("two words", "two words") == 1
    assert similarity("two words", "two other") < 0.05
    assert similarity("", "word") < 0.05


def test_scripts_without_spaces_are_compared_by_their_characters():
    text = "今天天气很好我们一起去公园散步然后在湖边的咖啡馆喝一杯热茶再慢慢走回家看一部老电影"
    assert similarity(text, text[:-1] + "剧") > 0.8
    assert similarity(text, text[::-1]) < 0.1


def test_half_a_character_has_a_signature_too():
    assert signature("\ud83d a b c").shape == (PLACES,)


def test_the_first_near_one_is_found():
    base = [" ".join(words(50)) for _ in range(40)]
    table = np.stack([signature(text) for text in (*base, base[7] + " indeed", base[3], base[3] + " so")])
    expected = [*range(40), 7, 3, 3]
    assert first_near(table, None, 0.7).tolist() == expected
    assert first_near(table[40:], table[:5], 0.7).tolist() == [5, 3, 3]


TEXTS = [words(40) for _ in range(30)]


def changed(number: int) -> str:
    """Another last word: 37 of 39 runs in common."""
    return " ".join([*TEXTS[number][:-1], "otherwise"])


def prompts():
    return [pair(n, prompt=" ".join(text)) for n, text in enumerate(TEXTS)]


def test_prompts_nearly_in_the_test_rows_are_found_beside_those_that_are_in_them(write):
    test = [single(0, prompt=" ".join(TEXTS[4])), single(1, prompt=changed(9)), single(2, prompt=changed(12))]
    test.append(single(3, prompt=" ".join(words(40))))
    result = examine(write(prompts()), test=write(test, "test.jsonl"))
    assert found(result) == {"leak": [4], "near_leak": [9, 12]}
    near = next(finding for finding in result.findings if finding.name == "near_leak")
    assert near.figures == {"prompts": 2, "similarity": 0.7}
    assert near.level == "warning"
    assert "2 more prompts are nearly one of" in near.text


def test_fix_leaves_them_out(write, tmp_path):
    test = write([single(0, prompt=changed(9))], "test.jsonl")
    examine(write(prompts()), test=test, fix=tmp_path / "clean.jsonl")
    assert found(examine(tmp_path / "clean.jsonl", test=test)) == {}
    assert '"the prompt is nearly one of the test rows"' in (tmp_path / "clean.left_out.jsonl").read_text()


def test_near_repeats_within_a_file_are_a_note_and_the_same_prompt_again_is_none(write):
    rows = [*prompts(), pair(40, prompt=changed(5)), pair(41, prompt=changed(5)), pair(42, prompt=" ".join(TEXTS[6]))]
    result = examine(write(rows))
    assert found(result) == {"near_repeats": [30, 31]}
    near = result.findings[0]
    assert (near.level, near.figures["prompts"]) == ("note", 1)
    assert near.figures["share"] == pytest.approx(1 / 31, abs=1e-4)
    assert result.status == 0


def test_a_row_that_is_left_out_is_near_nothing(write):
    rows = [*prompts(), single(40, None, prompt=changed(5)), single(41, False, prompt="other words")]
    assert found(examine(write([*rows, single(42)]))) == {"no_label": [30]}


def test_a_long_instruction_in_all_prompts_makes_them_no_nearer_where_it_is_a_system_message(write):
    system = {"role": "system", "content": " ".join(words(200))}
    rows = [
        {"prompt": [system, user(" ".join(words(12)))], "completion": [assistant(f"a{n}")], "label": n % 2 == 0}
        for n in range(8)
    ]
    assert found(examine(write(rows))) == {}
    rows[3]["prompt"][1] = user(rows[2]["prompt"][1]["content"] + " please")
    assert found(examine(write(rows))) == {"near_repeats": [3]}
    rows[3]["prompt"] = [{"role": "system", "content": "In rhymes."}, rows[3]["prompt"][1]]
    assert found(examine(write(rows))) == {}


def test_a_large_source_is_looked_at_when_it_is_asked_for_and_else_says_what_was_not(write, monkeypatch):
    monkeypatch.setattr(examination, "LOOKED_AT", 30)
    path = write([*prompts(), pair(40, prompt=changed(5))])
    result = examine(path)
    assert found(result) == {}
    assert "near-duplicate prompts (--near_duplicates)" in result.unseen
    assert result.as_dict()["not_looked_at"] == ["near-duplicate prompts (--near_duplicates)"]
    asked = examine(path, near_duplicates=True)
    assert found(asked) == {"near_repeats": [30]}
    assert "near" not in asked.unseen
    test = write([single(0, prompt=" ".join(TEXTS[4]))], "test.jsonl")
    assert found(examine(path, test=test)) == {"leak": [4]}
