"""Shifts of log-likelihoods and logits, their Gini coefficient, the figures, and the verb `analyze`."""

import json
import math
import re
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from bnf_align.analysis import (
    MEASURES,
    SCHEMA,
    Method,
    TokenScores,
    derivative_curve,
    figure_1,
    figure_2,
    figure_3,
    figure_4,
    gini,
    measure,
    most_changed,
    of_pairs,
    read_answers,
    read_rows,
    shifts,
    weight_shares,
)
from bnf_align.analysis.measure import token_scores
from bnf_align.analysis.summary import edges, shares
from bnf_align.analysis.table import write_table
from bnf_align.cli.main import main
from bnf_align.head import HeadCall, ask, attach
from bnf_align.losses import nll_pll_token_weights
from test_eval_steps import killed
from tiny_models import chatml_tokenizer, plain_tokenizer
from tiny_nets import perturbed, tiny_llama

VOCABULARY = 300


def chat(text: str, role: str = "user") -> list[dict]:
    return [{"role": role, "content": text}]


def pair_rows(count: int = 6) -> list[dict]:
    """Conversational pairs whose answers have 3 to 40 tokens."""
    return [
        {
            "prompt": chat(f"question {i}"),
            "chosen": chat("good " * (1 + i % 4), "assistant"),
            "rejected": chat("bad one! " * (1 + i % 3), "assistant"),
        }
        for i in range(count)
    ]


def write(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def read(path) -> list[dict]:
    return list(read_rows(path))


def lines(path) -> int:
    return len(path.read_text().splitlines())


def answers_of(rows, **options):
    return read_answers(rows, chatml_tokenizer(), source="rows", **options)


def policy(seed: int = 7, scale: float = 0.1):
    return perturbed(tiny_llama(VOCABULARY), scale, seed)


def by_full_logits(model, ids, mask) -> tuple[list[float], list[float]]:
    """Log-likelihood and logit of each scored token of one response, without padding, the shift done by hand."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    scored = [i for i, hit in enumerate(mask) if hit]
    logps = [(logits[i - 1, ids[i]] - logits[i - 1].logsumexp(0)).item() for i in scored]
    return logps, [logits[i - 1, ids[i]].item() for i in scored]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A reference, three models that moved away from it, and rows."""
    folder = tmp_path_factory.mktemp("analysis")
    for name, scale in {"reference": 0.0, "bnf": 0.05, "dpo": 0.1, "simpo": 0.3}.items():
        policy(len(name), scale).save_pretrained(folder / name)
        chatml_tokenizer().save_pretrained(folder / name)
    write(folder / "rows.jsonl", pair_rows(12))
    return folder


def flags(folder, out, *more, models=("BNF=bnf", "DPO=dpo"), data="rows.jsonl") -> list[str]:
    named = [f"{name}={folder / path}" for name, path in (model.split("=") for model in models)]
    fixed = ["--reference", str(folder / "reference"), "--data", str(folder / data), "--out", str(out)]
    return ["analyze", "--model", *named, *fixed, *more]


@pytest.fixture(scope="module")
def analysed(folder):
    """What one run wrote."""
    assert main(flags(folder, folder / "out", models=("BNF=bnf", "DPO=dpo", "SimPO=simpo"))) == 0
    return folder / "out"


# ----------------------------------------------------------------------------------------- one model, its tokens


@pytest.mark.parametrize("head", ["fused", "logits"])
def test_scores_of_padded_batches_equal_the_full_logits_of_each_response_alone(head):
    answers, model = answers_of(pair_rows()), policy().double()
    attach(model, head)
    responses = answers.responses
    scored = token_scores(model, answers, range(len(responses)))
    assert len(set(responses.lengths.tolist())) > 3  # so there is padding
    for row, scores in enumerate(scored):
        logps, logits = by_full_logits(model, responses.tokens(row).tolist(), responses.mask(row))
        np.testing.assert_allclose(scores.logps, logps, rtol=1e-9)
        np.testing.assert_allclose(scores.logits, logits, rtol=1e-9)


def test_a_logit_raised_for_the_whole_vocabulary_shifts_logits_and_no_likelihood():
    """What the paper calls a uniform increase; it also tells a logit from a log-probability."""
    batch = answers_of(pair_rows(2)).responses.collate([0, 1], 0)
    logits = torch.randn(*batch["input_ids"].shape, VOCABULARY, dtype=torch.float64)
    found = []
    for raised in (0.0, 2.5):
        call = HeadCall(batch, logits=True)
        call.through_logits(logits + raised)
        found.append(TokenScores(*(v[call.mask].numpy() for v in (call.completions.logps, call.logits))))
    measures = shifts(found[1], found[0])
    assert measures["log_likelihood_shift"] == pytest.approx(0, abs=1e-9)
    assert measures["logit_shift_per_token"] == pytest.approx(2.5)
    assert measures["gini"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("head", ["fused", "logits"])
def test_the_own_logits_come_back_beside_a_loss_and_its_gradient(head):
    batch = answers_of(pair_rows(2)).responses.collate([0, 1], 0)
    model = tiny_llama(VOCABULARY)
    attach(model, head)
    gradients = []
    for logits in (False, True):
        call = HeadCall(batch, token_weights=partial(nll_pll_token_weights, per_token=True), logits=logits)
        ask(model, batch, call).backward()
        gradients.append(model.lm_head.weight.grad.clone())
        model.zero_grad()
        assert hasattr(call, "logits") == logits
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)
    expected = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.roll(1, dims=1)
    own = expected.gather(-1, batch["input_ids"][..., None])[..., 0]
    torch.testing.assert_close(call.logits, torch.where(batch["completion_mask"], own, 0.0).detach())


# ------------------------------------------------------------------------------------------------- the measures


def test_the_measures_of_a_response_equal_a_case_worked_by_hand():
    moved = TokenScores(np.array([-1.0, -3.0, -0.5]), np.array([4.0, 1.0, 2.0]))
    reference = TokenScores(np.array([-2.0, -2.5, -0.5]), np.array([1.0, 2.0, 2.0]))
    # Log-likelihoods moved by +1, -1/2 and 0, logits by 3, -1 and 0: sorted 0, 1, 3, the Gini is (-2*0 + 2*3) / (3*4).
    assert shifts(moved, reference) == pytest.approx(
        {
            "log_likelihood_shift": 0.5,
            "logit_shift": 4.0,
            "log_likelihood_shift_per_token": 1 / 6,
            "logit_shift_per_token": 4 / 3,
            "gini": 0.5,
        }
    )


def test_exchanging_model_and_reference_turns_the_sign_of_the_likelihood_alone():
    generator = np.random.default_rng(0)
    one, other = (TokenScores(*generator.normal(size=(2, 9))) for _ in range(2))
    there, back = shifts(one, other), shifts(other, one)
    assert there["log_likelihood_shift"] == -back["log_likelihood_shift"] != 0
    assert {name: there[name] for name in ("logit_shift", "logit_shift_per_token", "gini")} == {
        name: back[name] for name in ("logit_shift", "logit_shift_per_token", "gini")
    }


def test_gini_of_known_distributions():
    middle = (np.arange(20_000) + 0.5) / 20_000  # quantiles of the uniform distribution from 0 to 1
    assert gini(np.full(7, 3.2)) == pytest.approx(0, abs=1e-12)
    assert gini(np.array([0, 0, 5.0, 0])) == pytest.approx(1 - 1 / 4)
    assert gini(np.arange(1.0, 11)) == pytest.approx(9 / 30)  # of 1, ..., n it is (n - 1) / (3 n)
    assert gini(middle) == pytest.approx(1 / 3, abs=1e-4)
    assert gini(-np.log(middle)) == pytest.approx(1 / 2, abs=1e-3)  # exponential
    assert gini(middle ** (-1 / 3)) == pytest.approx(1 / 5, abs=1e-2)  # Pareto of shape a: 1 / (2 a - 1)


def test_gini_is_half_the_mean_difference_over_the_mean_whatever_order_scale_or_number_of_copies():
    values = np.random.default_rng(1).exponential(size=23)
    direct = np.abs(values[:, None] - values).mean() / (2 * values.mean())
    for same in (values, values[::-1], 40 * values, np.tile(values, 3)):
        assert gini(same) == pytest.approx(direct)


def test_gini_has_no_value_where_nothing_moved_and_refuses_what_is_below_0():
    assert gini(np.zeros(5)) is None
    for bad in ([1.0, -1e-9], [1.0, math.nan], [math.inf]):
        with pytest.raises(ValueError, match="at least 0"):
            gini(np.array(bad))


def test_the_bins_cut_their_own_method_into_tenths_and_a_calmer_one_lies_in_the_middle():
    wide = np.random.default_rng(2).normal(size=5_000)
    cut = edges(wide)
    np.testing.assert_allclose(shares([wide[:7], wide[7:]], cut), np.full(10, 0.1))
    calm = shares([wide / 3], cut)
    assert calm.sum() == pytest.approx(1)
    assert calm[[0, 9]].max() < 0.01 < 0.2 < calm[[4, 5]].min()
    up = shares([wide + 5], cut)  # a sign turned round would put them into the first bin
    assert up[9] == pytest.approx((wide + 5 > cut[-1]).mean())
    assert shares([cut[[0, 8]]], cut).tolist() == [0.5, *[0] * 7, 0.5, 0]  # on an edge: the lower bin


# ------------------------------------------------------------------------------------------------------ Figure 1


def test_the_curves_are_those_of_nll_and_of_eq_9_for_either_label():
    likelihoods = np.linspace(0.01, 0.99, 99)
    for preferred in (False, True):
        nll = derivative_curve("nll_pll", likelihoods, preferred=preferred)
        np.testing.assert_allclose(nll, 1 - likelihoods, atol=1e-12)
        for r in (0.2, 0.5, 0.8):
            eq_9 = np.where(likelihoods < r, likelihoods * (1 - r) / r, 1 - likelihoods)
            curve = derivative_curve("bnf", likelihoods, r, preferred=preferred)
            np.testing.assert_allclose(curve, eq_9, atol=1e-12)


def test_figure_1_draws_these_curves_and_each_bnf_curve_peaks_at_its_reference():
    (axes,) = figure_1((0.2, 0.7)).axes
    nll, *bnf = axes.lines
    np.testing.assert_allclose(nll.get_ydata(), 1 - nll.get_xdata(), atol=1e-12)
    for line, r in zip(bnf, (0.2, 0.7), strict=True):
        x, y = line.get_data()
        assert x[y.argmax()] == r
        np.testing.assert_allclose(y, np.minimum(x * (1 - r) / r, 1 - x), atol=1e-12)


# ---------------------------------------------------------------------------------------------------------- rows


def test_the_rows_of_a_method_equal_direct_computation_under_both_models(folder, analysed):
    answers = answers_of(pair_rows(12))
    rows = read(analysed / "methods" / "BNF.parquet")
    assert [row["id"] for row in rows] == [f"{row}/{side}" for row, side in answers.names]
    assert [row["id"] for row in rows][:3] == ["0/chosen", "0/rejected", "1/chosen"]
    model, reference = policy(3, 0.05), tiny_llama(VOCABULARY)
    for number, row in enumerate(rows):
        ids, mask = answers.responses.tokens(number).tolist(), answers.responses.mask(number)
        (logps, logits), (ref_logps, ref_logits) = (by_full_logits(one, ids, mask) for one in (model, reference))
        names = ("logps", "logits", "ref_logps", "ref_logits")
        for name, expected in zip(names, (logps, logits, ref_logps, ref_logits), strict=True):
            np.testing.assert_allclose(row[name], expected, atol=2e-5)
        odds, ref_odds = (np.exp(one) / (1 - np.exp(one)) for one in (np.array(logps), np.array(ref_logps)))
        np.testing.assert_allclose(row["weights"], np.minimum(1, odds / ref_odds), atol=1e-4)
        assert row["token_ids"] == [token for token, hit in zip(ids, mask, strict=True) if hit]
        said = pair_rows(12)[row["item"]]
        assert "".join(row["pieces"]) == said[row["side"]][0]["content"] + "<|im_end|>"
        assert f"question {row['item']}" in row["prompt"]
        assert row["label"] is (row["side"] == "chosen")
        assert row["tokens"] == sum(mask)
        assert row["log_likelihood_shift"] == pytest.approx(sum(logps) - sum(ref_logps), abs=1e-3)
        moved = [abs(z - r) for z, r in zip(logits, ref_logits, strict=True)]
        assert row["logit_shift"] == pytest.approx(sum(moved), abs=1e-3)
        assert row["logit_shift_per_token"] == pytest.approx(sum(moved) / len(moved), abs=1e-4)
    spread = {name: np.mean([row["logit_shift"] for row in rows]) for name, rows in methods(analysed).items()}
    assert 0 < spread["BNF"] < spread["DPO"] < spread["SimPO"]


def files(out) -> dict:
    return {name: out / "methods" / f"{name}.parquet" for name in ("BNF", "DPO", "SimPO")}


def methods(out) -> dict[str, list[dict]]:
    return {name: read(file) for name, file in files(out).items()}


def test_a_reference_equal_to_the_model_gives_zero_shifts_and_no_gini(folder, tmp_path):
    assert main(flags(folder, tmp_path, models=("same=reference",))) == 0
    rows = read(tmp_path / "methods" / "same.parquet")
    assert len(rows) == 24
    for row in rows:
        assert row["logps"] == row["ref_logps"]
        assert row["logits"] == row["ref_logits"]
        assert [row[name] for name in MEASURES] == [0, 0, 0, 0, None]
    assert json.loads((tmp_path / "summary.json").read_text())["methods"]["same"]["gini"] == {"count": 0}


def test_a_response_that_stands_twice_in_a_file_has_two_rows(tmp_path):
    answers = answers_of([*pair_rows(2), *pair_rows(2)])
    method = Method("m", policy, answers)
    path = measure([method], lambda: tiny_llama(VOCABULARY), tmp_path)["m"]
    rows = read(path)
    assert [row["item"] for row in rows] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert [row["logit_shift"] for row in rows[:4]] == pytest.approx([row["logit_shift"] for row in rows[4:]])
    assert lines(tmp_path / "reference.jsonl") == 4  # but the reference reads it once


def test_the_rows_of_an_adapter_are_those_of_the_adapted_model(folder, tmp_path):
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    base = type(tiny_llama()).from_pretrained(folder / "reference")
    get_peft_model(base, config).save_pretrained(tmp_path / "adapter")  # without a tokenizer: the base's is taken
    arguments = flags(folder, tmp_path / "out")
    arguments[2:4] = [f"LoRA={tmp_path / 'adapter'}"]
    assert main(arguments) == 0
    base = type(tiny_llama()).from_pretrained(folder / "reference")
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    row, answers = read(tmp_path / "out" / "methods" / "LoRA.parquet")[0], answers_of(pair_rows(1))
    logps, _ = by_full_logits(adapted, answers.responses.tokens(0).tolist(), answers.responses.mask(0))
    np.testing.assert_allclose(row["logps"], logps, atol=2e-5)
    assert row["logit_shift"] > 1


def test_adapters_are_switched_on_one_base_and_give_what_each_gives_alone(folder, tmp_path, monkeypatch):
    base_class = type(tiny_llama())
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        get_peft_model(base_class.from_pretrained(folder / "reference"), config).save_pretrained(tmp_path / name)

    def run(out, *names):
        arguments = flags(folder, tmp_path / out)
        arguments[2:4] = [f"{name}={tmp_path / name}" for name in names]
        assert main(arguments) == 0
        return {name: read(tmp_path / out / "methods" / f"{name}.parquet") for name in names}

    alone = run("first", "one") | run("second", "two")
    loads = []
    load = base_class.from_pretrained.__func__
    monkeypatch.setattr(
        base_class, "from_pretrained", classmethod(lambda *a, **k: (loads.append(1), load(*a, **k))[1])
    )
    assert run("both", "one", "two") == alone
    assert len(loads) == 1
    assert alone["one"] != alone["two"]


# ------------------------------------------------------------------------------------ pairs, weights and tokens


def write_rows(path, rows: list[dict]):
    """A file as `measure` writes it, of hand-written likelihoods: `p` and `ref_p` of each token."""
    found = []
    for number, row in enumerate(rows):
        logps, ref_logps = np.log(row["p"]), np.log(row["ref_p"])
        scores = TokenScores(logps, logps), TokenScores(ref_logps, ref_logps)
        found.append(
            {
                **{"id": f"{number}", "item": row["item"], "side": row["side"], "label": row["side"] == "chosen"},
                **{"prompt": "", "token_ids": row["tokens"], "pieces": [f"<{token}>" for token in row["tokens"]]},
                **{"tokens": len(logps), "logps": logps, "ref_logps": ref_logps, "logits": logps},
                **{"ref_logits": ref_logps, "weights": row.get("w", logps * 0 + 1), **shifts(*scores)},
            }
        )
    return write_table(path, found)


def test_a_pair_that_differs_in_one_token_of_likelihood_0_8_and_0_05_has_the_gap_of_figure_2(tmp_path):
    same = {"p": [0.9, 0.8, 0.7], "ref_p": [0.9, 0.4, 0.7]}
    file = write_rows(
        tmp_path / "m.parquet",
        [
            {"item": 3, "side": "chosen", "tokens": [1, 2, 3], **same},
            {"item": 3, "side": "rejected", "tokens": [1, 9, 3], "p": [0.9, 0.05, 0.7], "ref_p": [0.9, 0.2, 0.7]},
            {"item": 4, "side": "up", "tokens": [1], "p": [0.5], "ref_p": [0.5]},
        ],
    )
    (pair,) = of_pairs(file)
    assert pair.item == 3
    assert pair.overlap == pytest.approx(2 / 3)
    assert pair.gap == pytest.approx(math.log(0.8 / 0.05), abs=1e-6)
    assert round(pair.gap / math.log(10), 1) == 1.2  # as printed in the paper
    assert pair.ref_gap == pytest.approx(math.log(2), abs=1e-6)
    moved = math.log(0.8 / 0.05) - math.log(2)
    assert pair.contrast == pytest.approx(1 / (1 + math.exp(0.1 * moved)))
    assert of_pairs(file, beta=1.0)[0].contrast == pytest.approx(1 / (1 + math.exp(moved)))


def test_weights_are_counted_by_side_in_tenths_and_a_weight_of_1_in_the_last(tmp_path):
    even = {"item": 0, "p": [0.5] * 4, "ref_p": [0.5] * 4, "tokens": [1, 2, 3, 4]}
    rows = [{**even, "side": "chosen", "w": [0.0, 0.05, 0.95, 1.0]}, {**even, "side": "rejected", "w": [0.55] * 4}]
    found = weight_shares(write_rows(tmp_path / "m.parquet", [*rows, rows[0]]))
    assert found == {"chosen": [0.5, *[0.0] * 8, 0.5], "rejected": [*[0.0] * 5, 1.0, *[0.0] * 4]}


def test_the_tokens_that_moved_most_come_with_their_context_the_largest_first(tmp_path):
    rows = [
        {"item": 0, "side": "up", "tokens": [1, 2, 3], "p": [0.2, 0.9, 0.5], "ref_p": [0.1, 0.1, 0.5]},
        {"item": 1, "side": "up", "tokens": [4, 5], "p": [0.1, 0.6], "ref_p": [0.8, 0.2]},
    ]
    found = most_changed(write_rows(tmp_path / "m.parquet", rows), most=2)
    assert [(one["id"], one["place"]) for one in found["risen"]] == [("0", 1), ("1", 1)]  # 9 and 3 times; 2 is third
    assert [(one["id"], one["place"]) for one in found["fallen"]] == [("1", 0)]  # what did not move is not named
    assert found["risen"][0] | {"shift": 0, "p": 0, "ref_p": 0} == {
        **{"piece": "<2>", "before": "<1>", "after": "<3>", "id": "0", "place": 1},
        **{"shift": 0, "p": 0, "ref_p": 0},
    }
    first = found["risen"][0]
    assert (first["p"], first["ref_p"]) == (pytest.approx(0.9), pytest.approx(0.1))
    assert first["shift"] == pytest.approx(math.log(9), abs=1e-6)


def test_figure_2_draws_the_pairs_by_their_overlap(analysed):
    pairs = {name: of_pairs(file) for name, file in files(analysed).items()}
    gaps, contrasts = (axes for axes in figure_2(pairs).axes if axes.get_title(loc="left"))
    drawn = [points.get_offsets() for points in gaps.collections]
    np.testing.assert_allclose(drawn[0], [[pair.overlap, pair.ref_gap] for pair in pairs["BNF"]])
    for points, other, found in zip(drawn[1:], contrasts.collections, pairs.values(), strict=True):
        np.testing.assert_allclose(points, [[pair.overlap, pair.gap] for pair in found])
        np.testing.assert_allclose(other.get_offsets(), [[pair.overlap, pair.contrast] for pair in found])


def test_the_page_names_every_column_of_the_rows():
    page = (Path(__file__).parents[1] / "docs" / "analysis.md").read_text()
    table = page[page.index("## The rows") : page.index("## What is measured")]
    named = re.findall(
        r"`(\w+)`", "\n".join(line.split("|")[1] for line in table.splitlines() if line.startswith("| `"))
    )
    assert named == SCHEMA.names


# ----------------------------------------------------------------------------------------------- what is read


def wild_bench_answers() -> list[dict]:
    conversation = [*chat("first"), *chat("reply", "assistant"), *chat("second")]
    return [
        {"id": f"w{i}", "conversation_input": conversation, "output": "fine " * (i + 1), "finish_reason": reason}
        for i, reason in enumerate(("stop", "length"))
    ]


def test_own_answers_to_wild_bench_are_read_and_an_end_that_was_not_said_is_not_scored():
    answers = answers_of(wild_bench_answers())
    assert answers.names == [(0, "answer"), (1, "answer")]
    end = chatml_tokenizer().convert_tokens_to_ids("<|im_end|>")
    stopped, cut = (answers.responses.tokens(row)[answers.responses.mask(row)].tolist() for row in (0, 1))
    assert bytes(cut).decode("latin-1") == bytes(stopped[:5] * 2).decode("latin-1")  # byte tokens: ten of them
    assert end in stopped
    assert end not in cut
    prompt = answers.responses.tokens(0)[: answers.responses.mask(0).argmax()].tolist()
    assert "second" in chatml_tokenizer().decode(prompt)
    assert "reply" in chatml_tokenizer().decode(prompt)


def test_the_same_answer_with_and_without_its_end_is_scored_for_each(tmp_path):
    said, unsaid = wild_bench_answers()
    answers = answers_of([said, {**unsaid, "output": said["output"]}])
    assert answers.responses.tokens(0).tolist() == answers.responses.tokens(1).tolist()
    path = measure([Method("m", policy, answers)], lambda: tiny_llama(VOCABULARY), tmp_path)["m"]
    whole, cut = read(path)
    assert cut["tokens"] < whole["tokens"]
    for name in ("logps", "ref_logps", "logits", "ref_logits"):
        np.testing.assert_allclose(cut[name], whole[name][: cut["tokens"]], atol=1e-5)


def test_rows_of_prompt_and_completion_need_no_label_here_and_mapped_columns_are_found():
    rows = [{"question": f"q {i}", "text": "answer"} for i in range(3)]
    answers = read_answers(
        rows, plain_tokenizer(), source="rows", column_map={"prompt": "question", "completion": "text"}
    )
    assert answers.names == [(i, "answer") for i in range(3)]
    labelled = [{"prompt": "q", "completion": f"a{i}", "label": i % 2 == 0} for i in range(2)]
    assert read_answers(labelled, plain_tokenizer(), source="rows").names == [(0, "up"), (1, "down")]


def test_each_method_may_have_answers_of_its_own(folder, tmp_path, capsys):
    own = wild_bench_answers()
    for name, rows in (("BNF", own[:1]), ("DPO", own)):
        write(tmp_path / f"{name}.jsonl", rows)
    arguments = flags(folder, tmp_path / "out")
    place = arguments.index("--data")
    arguments[place + 1 : place + 2] = [f"{name}={tmp_path / name}.jsonl" for name in ("DPO", "BNF")]
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert {name: found["responses"] for name, found in result["methods"].items()} == {"BNF": 1, "DPO": 2}
    assert lines(tmp_path / "out" / "reference.jsonl") == 2
    assert main([*arguments[: place + 2], "--out", str(tmp_path / "other")]) == 2
    assert "missing: BNF" in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------- the figures


def levels_at(axes, place) -> list[float]:
    """Heights of the horizontal lines of the box at `place`."""
    lines = [line.get_xydata() for line in axes.lines if len(line.get_xydata()) == 2]
    return [y for (left, y), (right, other) in lines if y == other and left + right == pytest.approx(2 * place)]


def test_the_data_of_figure_3_equal_the_rows(analysed):
    rows = methods(analysed)
    panels = figure_3(files(analysed)).axes
    assert [axes.get_title(loc="left") for axes in panels] == [f"({letter})" for letter in "abcdef"]
    for axes, name in zip([*panels[:2], *panels[3:]], MEASURES, strict=True):
        for place, of_method in enumerate(rows.values(), start=1):
            values = [row[name] for row in of_method]
            low, high = np.percentile(values, [5, 95])
            ends = min(v for v in values if v >= low), max(v for v in values if v <= high)
            for expected in (*ends, np.median(values)):  # the caps of the whiskers, and the bar
                assert min(abs(level - expected) for level in levels_at(axes, place)) < 1e-9
    for points, of_method in zip(panels[2].collections, rows.values(), strict=True):
        expected = [[row["log_likelihood_shift"], row["logit_shift"]] for row in of_method]
        np.testing.assert_allclose(points.get_offsets(), expected)


def test_the_data_of_figure_4_equal_the_rows(analysed):
    rows = methods(analysed)
    (axes,) = figure_4(files(analysed), "DPO").axes
    moved = {
        name: [a - b for row in of_method for a, b in zip(row["logps"], row["ref_logps"], strict=True)]
        for name, of_method in rows.items()
    }
    cut = [-math.inf, *np.percentile(moved["DPO"], range(10, 100, 10)), math.inf]
    heights = np.array([bar.get_height() for bar in axes.patches]).reshape(3, 10)
    for name, found in zip(rows, heights, strict=True):
        counts = [sum(low < value <= high for value in moved[name]) for low, high in pairwise(cut)]
        np.testing.assert_allclose(found, 100 * np.array(counts) / len(moved[name]))
    summed = json.loads((analysed / "summary.json").read_text())["bins"]
    assert summed["of"] == "DPO"
    np.testing.assert_allclose(100 * np.array(list(summed["shares"].values())), heights)


def test_the_summary_equals_the_rows_and_every_figure_is_there_in_two_kinds(analysed):
    found = json.loads((analysed / "summary.json").read_text())
    for name, of_method in methods(analysed).items():
        for one in MEASURES:
            values = [row[one] for row in of_method]
            numbers = found["methods"][name][one]
            assert (numbers["count"], numbers["p50"]) == (24, pytest.approx(np.median(values)))
            assert numbers["mean"] == pytest.approx(np.mean(values))
    for name in ("figure1", "figure2", "figure3", "figure4", "weights"):
        assert (analysed / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (analysed / f"{name}.svg").read_text()
    assert len(found["figures"]) == 10


# ------------------------------------------------------------------------------------------------------ the verb


@pytest.mark.slow
def test_a_killed_run_ends_with_the_files_of_an_uninterrupted_one(folder, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    small = ["--batch-tokens", "60"]
    assert main(flags(folder, whole, *small)) == 0
    killed(flags(folder, broken, *small), broken / "reference.jsonl.partial", 3)
    killed(flags(folder, broken, *small), broken / "methods" / "DPO.jsonl.partial", 3)
    assert not (broken / "summary.json").exists()
    assert main(flags(folder, broken, "--batch_tokens", "60")) == 0  # the other spelling
    for name in ("reference.jsonl", "methods/BNF.parquet", "methods/DPO.parquet", "figure3.svg", "figure4.svg"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    assert not list(broken.rglob("*.partial"))


@pytest.mark.slow
def test_other_responses_are_computed_besides_and_other_weights_may_not_continue_a_file(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(flags(folder, out)) == 0
    before = (out / "methods" / "BNF.jsonl").read_text().splitlines()
    write(folder / "more.jsonl", [*pair_rows(12), {**pair_rows(1)[0], "prompt": chat("another")}])
    assert main(flags(folder, out, data="more.jsonl")) == 0
    assert len(read(out / "methods" / "BNF.parquet")) == 26
    after = (out / "methods" / "BNF.jsonl").read_text().splitlines()
    assert len(after) == len(before) + 2
    assert set(before) < set(after)  # finished rows are kept
    assert main(flags(folder, out, models=("BNF=dpo",))) == 2
    assert "begun with other settings (weights" in capsys.readouterr().err


def test_head_and_limit_reach_the_rows(folder, tmp_path):
    assert main(flags(folder, tmp_path, "--head", "logits", "--limit", "2", models=("BNF=bnf",))) == 0
    assert [row["item"] for row in read(tmp_path / "methods" / "BNF.parquet")] == [0, 0, 1, 1]
    assert json.loads((tmp_path / "reference.jsonl.card.json").read_text())["head"] == "logits-1"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--bins_of", "KTO"], "there is no such method. Known: BNF, DPO"),
        (["--model", "BNF=bnf", "BNF=dpo"], "two methods called 'BNF'"),
        (["--model", "a/b=bnf"], "can be the name of a file"),
        (["--model", "BNF=nowhere"], "The tokenizer of nowhere cannot be loaded"),
        (["--data", "BNF=rows.jsonl", "rows.jsonl"], "missing: DPO"),
        (["--data", "rows.jsonl", "rows.jsonl"], "one file for all methods"),
    ],
)
def test_a_wrong_flag_is_told_before_a_model_is_loaded(folder, tmp_path, capsys, monkeypatch, change, message):
    monkeypatch.chdir(folder)
    assert main([*flags(folder, tmp_path / "out"), *change]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_shift_needs_all_three_and_figure_1_none_of_them(tmp_path, capsys):
    assert main(["analyze", "--model", "x", "--out", str(tmp_path)]) == 2
    assert "--reference and --data" in capsys.readouterr().err
    assert main(["analyze", "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure1.png", "figure1.svg"]


def test_a_model_with_another_vocabulary_is_refused(folder, tmp_path, capsys):
    tiny_llama(VOCABULARY).save_pretrained(tmp_path / "other")
    tokenizer = plain_tokenizer()  # its specials stand where ChatML has others
    tokenizer.chat_template = "{{ messages[0].content }}<eos>{{ messages[1].content if messages[1:] else '' }}<eos>"
    tokenizer.save_pretrained(tmp_path / "other")
    arguments = flags(folder, tmp_path / "out")
    arguments[2:4] = [f"other={tmp_path / 'other'}"]
    assert main(arguments) == 2
    assert "different vocabularies" in capsys.readouterr().err
