"""The tiny world: its verifiers, its model, what is sampled, how it is measured, and the whole quickstart in small."""

import copy
import html
import json
from random import Random

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from bnf_align.lab.measure import compare, estimate
from bnf_align.lab.model import MAX_TOKENS, build_model, build_tokenizer
from bnf_align.lab.quickstart import Settings, quickstart, table
from bnf_align.lab.sample import answers_with_thumbs, complete, mean_logps, outcomes
from bnf_align.lab.table import conclude
from bnf_align.lab.world import MATH, SORT, WORDS, demonstrations, draw_prompts, math_chain

ANN = "Ann has 7 apples gets 5 loses 3 gets 8 ?"


# ------------------------------------------------------------------------------------------------------- the world


def test_the_chain_of_a_prompt_is_worked_step_by_step():
    assert math_chain(ANN) == " 7 + 5 = 12 ; 12 - 3 = 9 ; 9 + 8 = 17 ; 17 apples"


def test_a_slip_goes_on_through_the_steps_after_it():
    assert math_chain(ANN, (0, 2, 0)) == " 7 + 5 = 12 ; 12 - 3 = 11 ; 11 + 8 = 19 ; 19 apples"


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        (" 7 + 5 = 12 ; 12 - 3 = 9 ; 9 + 8 = 17 ; 17 apples", True),
        (" 17 apples", True),  # only the answer is read
        (" 7 + 5 = 12 ; 12 - 3 = 9 ; 9 + 8 = 17 ; 18 apples", False),
        (" 7 + 5 = 12 ; 12 - 3 = 9 ; 9 + 8 = 17 ; 17 books", False),
        (" 7 + 5 = 12 ; 12 - 3 = 9 ; 9 + 8 = 17", False),
        (" 17 apples ;", False),
        (" ", False),
    ],
)
def test_math_is_right_when_the_right_number_of_the_right_things_comes_last(completion, right):
    assert MATH.is_right(ANN, completion) is right


@pytest.mark.parametrize(
    ("completion", "right"),
    [(" a b k m q z", True), (" a b k m z q", False), (" a b k m q", False), (" a b k m q z z", False), (" ", False)],
)
def test_sort_is_right_when_the_letters_are_all_there_and_in_order(completion, right):
    assert SORT.is_right("sort k b z a q m ?", completion) is right


def test_every_prompt_stays_in_the_world_and_its_correct_demonstration_is_right():
    for skill in (MATH, SORT):
        for prompt in draw_prompts(skill, 500, "any"):
            text = prompt + skill.demonstrate(prompt, Random(0))
            assert set(text.split()) <= set(WORDS)
            assert len(text.split()) + 1 <= MAX_TOKENS
            assert skill.is_right(prompt, math_chain(prompt) if skill is MATH else skill.demonstrate(prompt, Random()))
    totals = [int(word) for prompt in draw_prompts(MATH, 500, "any") for word in math_chain(prompt).split()[4::6]]
    assert min(totals) == 0
    assert max(totals) == 20


def test_a_quarter_of_the_steps_of_a_demonstration_slip_by_one_to_three():
    slips = []
    for row in demonstrations(2000, "any", math_share=1.0):
        steps = [step.split() for step in row["completion"].split(" ; ")[:-1]]
        slips += [int(c) - int(a) - int(sign + b) for a, sign, b, _, c in steps]
    assert set(slips) == {0, 1, 2, 3}
    assert sum(slip > 0 for slip in slips) / len(slips) == pytest.approx(0.25, abs=0.02)


def test_demonstrations_are_thumbs_up_of_both_skills_in_the_given_shares():
    rows = demonstrations(2000, "any", math_share=0.7)
    assert all(row["label"] is True for row in rows)
    assert sum("apples" in row["prompt"] or "has" in row["prompt"] for row in rows) / 2000 == pytest.approx(
        0.7, abs=0.03
    )


def test_prompts_are_different_repeatable_and_never_among_those_to_avoid():
    few = draw_prompts(MATH, 300, "a")
    assert len(set(few)) == 300
    assert few == draw_prompts(MATH, 300, "a")
    assert few != draw_prompts(MATH, 300, "b")
    assert not set(few) & set(draw_prompts(MATH, 300, "a", avoid=set(few)))
    assert not set(few) & {row["prompt"] for row in demonstrations(300, "a", avoid=set(few))}


# ------------------------------------------------------------------------------------------------------- the model


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def model(tokenizer):
    """Untrained, with logits large enough that some tokens are much likelier than others."""
    model = build_model(tokenizer, seed=0)
    with torch.no_grad():
        model.model.norm.weight.mul_(4.0)
    return model


def test_decoding_gives_the_text_back_and_every_word_is_one_known_token(tokenizer):
    for text in (ANN + math_chain(ANN), "sort k b z a q m ? a b k m q z", " ".join(WORDS)):
        ids = tokenizer(text).input_ids
        assert len(ids) == len(text.split())
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text


def test_the_model_has_the_size_and_the_start_that_its_seed_gives(tokenizer):
    first, same, other = (build_model(tokenizer, seed) for seed in (0, 0, 1))
    assert sum(weight.numel() for weight in first.parameters()) == 651_136
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_model_and_tokenizer_come_back_from_a_folder(tokenizer, model, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, loaded = AutoTokenizer.from_pretrained(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = again(ANN, return_tensors="pt").input_ids
    assert ids.tolist()[0] == tokenizer(ANN).input_ids
    assert again.decode(ids[0]) == ANN
    assert (again.eos_token_id, again.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert torch.equal(model(input_ids=ids).logits, loaded(input_ids=ids).logits)


# -------------------------------------------------------------------------------------------------------- sampling


def test_greedy_answers_do_not_depend_on_the_batch_and_its_padding(model, tokenizer):
    prompts = [*draw_prompts(MATH, 5, "a"), *draw_prompts(SORT, 5, "a")]
    alone = complete(model, tokenizer, prompts, temperature=0, batch_size=1)
    assert complete(model, tokenizer, prompts, temperature=0, batch_size=7) == alone
    assert len({texts[0] for texts in alone}) > 1


def test_samples_follow_the_seed_and_leave_the_global_random_state_alone(model, tokenizer):
    prompts = draw_prompts(MATH, 4, "a")
    state = torch.get_rng_state()
    first = complete(model, tokenizer, prompts, samples=3, seed=1)
    assert [len(texts) for texts in first] == [3, 3, 3, 3]
    assert len({text for texts in first for text in texts}) > 8
    assert complete(model, tokenizer, prompts, samples=3, seed=1) == first
    assert complete(model, tokenizer, prompts, samples=3, seed=2) != first
    assert torch.equal(torch.get_rng_state(), state)


def test_the_first_sampled_token_has_the_frequencies_of_the_tempered_distribution(model, tokenizer):
    """At temperature 1 the difference would be 0.10; the noise of 1,500 samples is half of that."""
    ids = tokenizer(ANN, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = (model(input_ids=ids).logits[0, -1] / 0.8).softmax(-1)
    (texts,) = complete(model, tokenizer, [ANN], temperature=0.8, samples=1500)
    counts = torch.zeros(len(tokenizer))
    for text in texts:
        counts[tokenizer(text).input_ids[:1]] += 1
    difference = (counts / 1500 - expected).abs()[3:].sum() / 2  # special tokens are not in the texts
    assert difference < 0.07


def test_samples_come_from_the_whole_vocabulary(tokenizer):
    """Not from the 50 likeliest tokens, which a model's generation settings may ask for."""
    model = build_model(tokenizer, seed=0)  # almost uniform
    model.generation_config.top_k = 50
    (texts,) = complete(model, tokenizer, [ANN], samples=500)
    assert len({text.split()[0] for text in texts if text.split()}) > 60


def test_outcomes_are_the_share_of_a_prompts_answers_that_are_right():
    answers = [[" 17 apples", " 18 apples"], [" 17 apples", " 17 apples"], [" 1", " 2"]]
    assert outcomes(MATH, [ANN] * 3, answers) == [0.5, 1.0, 0.0]


def test_every_answer_becomes_a_row_with_the_verifiers_thumb(model, tokenizer, tmp_path):
    prompts = draw_prompts(SORT, 3, "a")
    rows = answers_with_thumbs(model, tokenizer, SORT, prompts, 4, 0, tmp_path)
    answers = complete(model, tokenizer, prompts, samples=4, seed=0)
    assert [row["completion"] for row in rows] == [text for texts in answers for text in texts]
    assert [row["prompt"] for row in rows] == [prompt for prompt in prompts for _ in range(4)]
    assert all(row["label"] is SORT.is_right(row["prompt"], row["completion"]) for row in rows)


def test_an_answer_given_again_and_again_is_as_many_rows(model, tokenizer, tmp_path):
    """Right answers repeat, wrong ones vary: one row of each would turn the balance over, and the model collapses."""
    sharp = copy.deepcopy(model)
    sharp.get_output_embeddings().weight = torch.nn.Parameter(100 * model.get_output_embeddings().weight.detach())
    prompts = draw_prompts(SORT, 3, "a")
    rows = answers_with_thumbs(sharp, tokenizer, SORT, prompts, 4, 0, tmp_path)
    answers = [text for texts in complete(sharp, tokenizer, prompts, samples=4, seed=0) for text in texts]
    assert [row["completion"] for row in rows] == answers
    assert len(set(answers)) < 12


def test_mean_logps_are_those_of_the_completion_and_its_end_token_alone(model, tokenizer):
    rows = [{"prompt": ANN, "completion": " 17 apples", "label": True}]
    rows += [{"prompt": "sort b a ?", "completion": " a b a b", "label": False}]
    for row, actual in zip(rows, mean_logps(model, tokenizer, rows), strict=True):
        start = len(row["prompt"].split())
        ids = torch.tensor([[*tokenizer(row["prompt"] + row["completion"]).input_ids, tokenizer.eos_token_id]])
        log_probs = model(input_ids=ids).logits.log_softmax(-1)
        expected = [log_probs[0, i - 1, ids[0, i]].item() for i in range(start, ids.shape[1])]
        assert actual == pytest.approx(sum(expected) / len(expected), abs=1e-5)


# ------------------------------------------------------------------------------------------------------- measuring


def test_the_interval_of_a_half_over_400_prompts_is_the_binomial_one():
    found = estimate([0.0, 1.0] * 200)
    assert found["mean"] == 0.5
    assert found["low"] == pytest.approx(0.5 - 1.96 * 0.025, abs=0.004)
    assert found["high"] == pytest.approx(0.5 + 1.96 * 0.025, abs=0.004)


def test_the_interval_of_two_prompts_that_disagree_holds_everything():
    """A resample is all 0 or all 1 with probability 1/4 each, so both ends lie in the middle 95 %."""
    assert estimate([0.0, 1.0]) == {"mean": 0.5, "low": 0.0, "high": 1.0}


def test_a_change_is_after_minus_before_and_paired_by_prompt():
    before = [float(i) for i in range(100)]
    found = compare(before, [value + 2 for value in before])
    assert found["change"] == {"mean": 2.0, "low": 2.0, "high": 2.0}
    assert found["before"]["high"] - found["before"]["low"] > 10
    assert found["after"]["mean"] - found["before"]["mean"] == 2.0


def test_values_that_cannot_be_paired_are_refused():
    with pytest.raises(ValueError, match="cannot be paired"):
        compare([0.0, 1.0], [1.0])


Interval = tuple[float, float]


def measured(gain: Interval, tax: Interval, greedy: Interval) -> dict[str, dict]:
    """`measures` with these intervals of the changes."""
    intervals = {"math sampled": gain, "sort sampled": tax, "math greedy": greedy, "sort greedy": tax}
    side = {"mean": 0.5, "low": 0.4, "high": 0.6}
    changes = {name: {"mean": (low + high) / 2, "low": low, "high": high} for name, (low, high) in intervals.items()}
    return {name: {"before": side, "after": side, "change": change} for name, change in changes.items()}


@pytest.mark.parametrize(
    ("gain", "tax", "greedy", "prompts", "says", "never"),
    [
        ((0.3, 0.4), (-0.01, 0.01), (-0.1, 0.1), 1000, ["raised", "which excludes"], ["worse"]),
        ((-0.4, -0.3), (-0.01, 0.01), (-0.1, 0.1), 1000, ["lowered", "which excludes"], ["raised"]),
        ((-0.1, 0.4), (-0.03, 0.01), (-0.1, 0.1), 1000, ["chance", "does not exclude"], ["raised", "lowered"]),
        ((0.3, 0.4), (0.0, 0.0), (-0.2, -0.1), 100, ["raised", "does not exclude", "greedy math answers got"], []),
    ],
)
def test_the_conclusion_claims_what_the_intervals_allow_and_no_more(gain, tax, greedy, prompts, says, never):
    sentence = conclude(measured(gain, tax, greedy), prompts)
    assert all(words in sentence for words in says)
    assert not any(words in sentence for words in never)


def test_the_table_shows_shares_in_per_cent_with_the_interval_of_the_change():
    measures = measured((0.3, 0.4), (-0.01, 0.01), (-0.1, 0.1))
    rest = {"seed": 5, "settings": {"steps": 7}, "preferences": {"ups": 1234, "downs": 2}, "seconds": {"base": 9.0}}
    rest |= {"methods": {}, "health": {}}
    lines = table({"measures": measures, "conclusion": "It worked.", **rest}).splitlines()
    (line,) = [line for line in lines if line.startswith("math, sampled at T = 0.8")]
    assert line.split()[-8:] == ["50.0", "%", "50.0", "%", "+35.0", "+30.0", "to", "+40.0"]
    assert "1,234 thumbs up and 2 thumbs down" in lines[1]
    assert "It worked." in lines


# --------------------------------------------------------------------------------------------------- the quickstart

SMALL = Settings(sft_steps=180, sft_batch_size=48, prompts=30, samples=4, steps=6, batch_size=24, eval_prompts=40)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A quickstart in small, and the same once more in the same folder."""
    out = tmp_path_factory.mktemp("quickstart")
    return out, quickstart(out, 3, SMALL), quickstart(out, 3, SMALL)


@pytest.mark.slow
def test_the_quickstart_leaves_its_data_its_model_its_numbers_and_its_picture(runs):
    out, first, _ = runs
    rows = [json.loads(line) for line in (out / "data" / "preferences.jsonl").read_text().splitlines()]
    assert len(rows) == first["preferences"]["rows"] == 120
    assert sum(row["label"] for row in rows) == first["preferences"]["ups"]
    assert all(row["label"] is MATH.is_right(row["prompt"], row["completion"]) for row in rows)
    assert not {row["prompt"] for row in rows} & set(draw_prompts(MATH, 40, "evaluation math 3"))
    assert (out / "quickstart.png").read_bytes().startswith(b"\x89PNG")
    assert first["history"][-1]["step"] == 6
    assert first["conclusion"] in " ".join(table(first).split())


@pytest.mark.slow
def test_the_quickstart_ends_with_a_report_of_what_it_found(runs):
    out, first, _ = runs
    page = html.unescape((out / "report.html").read_text())
    assert first["conclusion"] in page
    assert "could not be read" not in page
    assert "Figures" in page
    samples = [json.loads(line) for line in (out / "model" / "samples.jsonl").read_text().splitlines()]
    prompts = draw_prompts(MATH, 40, "evaluation math 3")
    assert [row["prompt"] for row in samples] == prompts
    for when, side in (("before", "before"), ("after", "after")):
        right = [MATH.is_right(row["prompt"], row[when]) for row in samples]
        assert right == [row[f"{when}_correct"] for row in samples]
        assert sum(right) / 40 == pytest.approx(first["measures"]["math sampled"][side]["mean"])
    assert samples[0]["prompt"] in page
    assert set(json.loads((out / "analysis" / "summary.json").read_text())["methods"]) == {"BNF", "DPO"}


@pytest.mark.slow
def test_the_methods_of_the_quickstart_are_measured_on_the_models_it_leaves(runs):
    out, first, _ = runs
    assert list(first["methods"]) == ["base", "bnf", "sft", "bnf_asymmetric", "dpo", "kto"]
    prompts = draw_prompts(MATH, 40, "evaluation math 3")
    found = {}
    for method, folder in {"base": "base-3", "bnf": "model", "sft": "sft", "dpo": "dpo"}.items():
        model, tokenizer = (auto.from_pretrained(out / folder) for auto in (AutoModelForCausalLM, AutoTokenizer))
        found[method] = np.array(outcomes(MATH, prompts, complete(model, tokenizer, prompts, seed=3)))
        assert first["methods"][method]["math sampled"]["after"]["mean"] == pytest.approx(found[method].mean())
    of_dpo = first["methods"]["dpo"]["math sampled"]
    assert of_dpo["change"]["mean"] == pytest.approx((found["dpo"] - found["base"]).mean())
    assert of_dpo["against_bnf"]["mean"] == pytest.approx((found["dpo"] - found["bnf"]).mean())
    arguments = {method: json.loads((out / method / "run.json").read_text()) for method in ("sft", "dpo", "kto")}
    assert {method: run["loss_type"] for method, run in arguments.items()} == {name: name for name in arguments}
    assert {method: run["arguments"]["batch_size"] for method, run in arguments.items()} == {
        **{"sft": 24, "kto": 24, "dpo": 12}  # answers or pairs of two
    }
    (line,) = [line for line in table(first).splitlines() if line.startswith("dpo")]
    assert f"{100 * of_dpo['against_bnf']['mean']:+.1f} (" in line
    assert line.endswith(first["health"]["dpo"])
    assert "sft" not in first["health"]  # without a reference there is no shift to judge


@pytest.mark.slow
def test_the_numbers_of_the_quickstart_are_those_of_the_models_it_leaves(runs):
    out, first, _ = runs
    prompts = draw_prompts(SORT, 40, "evaluation sort 3")
    for folder, side in (("base-3", "before"), ("model", "after")):
        model, tokenizer = (auto.from_pretrained(out / folder) for auto in (AutoModelForCausalLM, AutoTokenizer))
        found = outcomes(SORT, prompts, complete(model, tokenizer, prompts, temperature=0))
        assert first["measures"]["sort greedy"][side]["mean"] == pytest.approx(sum(found) / 40)
    weights = [AutoModelForCausalLM.from_pretrained(out / name).lm_head.weight for name in ("base-3", "model")]
    assert not torch.equal(*weights)


@pytest.mark.slow
def test_a_second_quickstart_takes_base_and_reference_from_the_first_and_finds_the_same(runs):
    out, first, second = runs
    assert (first["base_reused"], second["base_reused"]) == (False, True)
    assert first["reference"]["computed_tokens"] > 0
    assert second["reference"]["computed_tokens"] == 0
    assert second["measures"] == first["measures"] == json.loads((out / "quickstart.json").read_text())["measures"]
