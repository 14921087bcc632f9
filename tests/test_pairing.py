"""Pairs stay pairs, what a loss cannot use is counted, and the rows of KTO's KL term equal TRL's."""

import copy

import datasets
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bnf_align import PreferenceConfig, PreferenceTrainer
from bnf_align.data.pairing import for_one_label, for_pairs, kl_donors, kl_rows, own_kl_rows, units
from bnf_align.data.prepare import checked_rows, tokenized
from bnf_align.data.rows import preference_rows
from bnf_align.data.tokenize import FEATURES, tokenize_rows
from bnf_align.records import BadInput
from tiny_models import byte_tokenizer, chatml_tokenizer, plain_tokenizer
from tiny_nets import tiny_llama

# Long prompts with short answers and the reverse: each fits into 20 tokens, but rotated every second one does not.
LENGTHS = [(15, 2), (3, 13), (14, 3), (4, 14), (12, 5)]
SINGLES = [{"prompt": f"{p:>{p}}", "completion": f"{a:>{a}}", "label": p > 9} for p, a in LENGTHS]
PAIRS = [{"prompt": f"q{i}", "chosen": "good", "rejected": "bad!"} for i in range(2)]


def tokenised(raw, max_length=None):
    rows, report = preference_rows(raw, source="data")
    return tokenize_rows(rows, plain_tokenizer(), report, max_length=max_length), report


def test_units_are_pairs_and_singles_in_order():
    responses, _ = tokenised([PAIRS[0], SINGLES[0], PAIRS[1], SINGLES[1]])
    assert units(responses) == [[0, 1], [2], [3, 4], [5]]


def test_a_pairwise_loss_gets_whole_pairs_and_the_singles_are_counted():
    responses, report = tokenised([PAIRS[0], SINGLES[0], PAIRS[1], SINGLES[1]])
    kept = for_pairs(responses, report)
    assert kept["row"][:] == [0, 0, 2, 2]
    assert kept["label"][:] == [True, False, True, False]
    assert units(kept) == [[0, 1], [2, 3]]
    assert report.dropped == {"a single response, and this loss compares pairs": [1, 3]}
    assert (report.pairs, report.ups, report.downs) == (2, 0, 0)
    assert kept["input_ids"][2] == responses["input_ids"][3]


def test_without_a_pair_a_pairwise_loss_is_an_error_that_names_losses_for_singles():
    responses, report = tokenised(SINGLES)
    with pytest.raises(BadInput, match=r"5 single responses and no pair.*--loss_type bnf, kto, nll_pll or sft"):
        for_pairs(responses, report)


def test_sft_gets_the_preferred_responses_alone():
    responses, report = tokenised([PAIRS[0], SINGLES[0], SINGLES[1]])
    kept = for_one_label(responses, report, up=True)
    assert kept["label"][:] == [True, True]
    assert kept["input_ids"][:] == [responses["input_ids"][0], responses["input_ids"][2]]
    assert report.dropped == {"no up, and this loss trains on ups alone": [2]}
    assert (report.pairs, report.ups, report.downs) == (0, 2, 0)
    assert "of 1 pair only the chosen answers are used, and count as ups" in report.notes


def test_npo_gets_the_dispreferred_responses_alone():
    responses, report = tokenised([PAIRS[0], SINGLES[0], SINGLES[1]])
    kept = for_one_label(responses, report, up=False)
    assert kept["label"][:] == [False, False]
    assert kept["input_ids"][:] == [responses["input_ids"][1], responses["input_ids"][3]]
    assert report.dropped == {"no down, and this loss trains on downs alone": [1]}
    assert (report.pairs, report.ups, report.downs) == (0, 0, 2)
    assert "of 1 pair only the rejected answers are used, and count as downs" in report.notes


@pytest.mark.parametrize(
    ("up", "message"),
    [
        (True, "2 downs and no up, but this loss trains on ups alone. Train on downs alone with --loss_type npo"),
        (False, "2 ups and no down, but this loss trains on downs alone. Train on ups alone with --loss_type sft"),
    ],
)
def test_a_loss_of_one_label_without_a_response_of_it_is_an_error_that_names_the_other(up, message):
    responses, report = tokenised([row for row in SINGLES if row["label"] is not up][:2])
    with pytest.raises(BadInput, match=message):
        for_one_label(responses, report, up)


def texts_of(responses):
    return [plain_tokenizer().decode(ids) for ids in responses["input_ids"]]


def test_kl_rows_join_each_prompt_with_the_answer_before_where_all_prompts_differ():
    responses, _ = tokenised([{"prompt": f"p{i}", "completion": f"a{i}", "label": i > 0} for i in range(3)])
    others = kl_rows(responses, None)
    assert texts_of(others) == ["p0a2<eos>", "p1a0<eos>", "p2a1<eos>"]
    assert others["completion_mask"][:] == [[False, False, True, True, True]] * 3
    for name in ("label", "row", "pair_id", "prompt_id"):
        assert others[name][:] == responses[name][:]
    assert others["end"][:] == [4] * 3
    assert others.features == FEATURES


def test_of_pairs_chosen_and_rejected_answers_are_donors_once_each_and_meet_prompts_of_their_own_kind():
    responses, _ = tokenised([{"prompt": f"q{i}", "chosen": f"good{i}", "rejected": f"bad{i}"} for i in range(3)])
    assert texts_of(kl_rows(responses, None)) == [
        f"q{i}{side}{(i - 1) % 3}<eos>" for i in range(3) for side in ("good", "bad")
    ]


def test_answers_to_one_prompt_are_known_wherever_they_stand():
    raw = [
        *PAIRS,
        {"prompt": "q2", "completion": "one", "label": True},
        {"prompt": "q0", "completion": "x", "label": False},
    ]
    responses, _ = tokenised(raw)
    assert responses["prompt_id"][:] == [0, 0, 1, 1, 2, 0]
    assert texts_of(kl_rows(responses, None)) == [
        "q0good<eos>", "q0bad!<eos>", "q1good<eos>", "q1bad!<eos>", "q2x<eos>", "q0one<eos>",
    ]  # fmt: skip


def test_the_two_of_a_pair_have_one_prompt_though_its_tokens_merge_with_one_of_the_answers():
    tokenizer = byte_tokenizer(["<eos>"], merges=(("a", "b"),), eos_token="<eos>")
    rows, report = preference_rows([{"prompt": "xa", "chosen": "bc", "rejected": "zz"}, PAIRS[0]], source="data")
    responses = tokenize_rows(rows, tokenizer, report, max_length=None)
    assert responses["prompt_id"][:] == [0, 0, 1, 1]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_every_answer_is_donor_once_and_as_few_as_can_be_meet_their_own_prompt(prompts):
    donors = kl_donors(prompts)
    assert sorted(donors) == list(range(len(prompts)))
    own = sum(prompts[donor] == prompt for donor, prompt in zip(donors, prompts, strict=True))
    # Of m answers to one prompt, n - m can be given to others, and as many taken from them.
    assert own == max(0, 2 * max(map(prompts.count, prompts)) - len(prompts))
    assert len(prompts) == 1 or all(donor != at for at, donor in enumerate(donors))


def test_where_all_prompts_differ_the_donors_rotate_by_one():
    assert kl_donors(range(5)).tolist() == [4, 0, 1, 2, 3]


def test_the_same_rows_have_the_same_kl_rows_and_so_the_same_place_in_the_cache():
    raw = [*SINGLES, *PAIRS]
    assert kl_rows(tokenised(raw)[0], None).to_dict() == kl_rows(tokenised(raw)[0], None).to_dict()


def test_completions_that_meet_their_own_prompt_because_there_are_too_few_others_are_counted_and_said():
    raw = [{"prompt": "q" if i < 4 else "r", "completion": f"a{i}", "label": i > 0} for i in range(5)]
    responses, _ = tokenised(raw)
    assert texts_of(kl_rows(responses, None)) == ["qa4<eos>", "qa0<eos>", "qa1<eos>", "qa2<eos>", "ra3<eos>"]
    found = own_kl_rows(responses)
    assert found.rows == [1, 2, 3]
    assert found.text.startswith(
        "3 of 5 prompts get another of their own completions where KTO's z0 wants those of other prompts, because one "
        "prompt has 4 of all responses: 3 rows (1, 2, 3)."
    )
    assert own_kl_rows(tokenised(PAIRS)[0]) is None
    rows, report = checked_rows("train", raw, PreferenceConfig(output_dir="", loss_type="kto", use_cpu=True))
    tokenized(rows, report, plain_tokenizer(), PreferenceConfig(output_dir="", loss_type="kto", use_cpu=True))
    assert report.warnings == [found.text]


def test_kto_on_pairs_measures_z0_on_chosen_and_rejected_answers_alike(tmp_path):
    """The value itself: prompt i before the answers of pair i - 1, by the model's own logits."""
    raw = [{"prompt": f"q{i}: ", "chosen": f"good {i}", "rejected": f"no, {i} it is not"} for i in range(6)]
    config = PreferenceConfig(
        output_dir=str(tmp_path), loss_type="kto", batch_size=6, use_cpu=True, report_to="none", disable_tqdm=True,
        ref_cache_dir=str(tmp_path / "cache"),
    )  # fmt: skip
    tokenizer = plain_tokenizer()
    reference, policy = tiny_llama(len(tokenizer)), tiny_llama(len(tokenizer), seed=1)
    trainer = PreferenceTrainer(copy.deepcopy(reference), config, eval_dataset=raw, processing_class=tokenizer)
    trainer.model.load_state_dict(policy.state_dict(), strict=False)
    sums = []
    for i in range(6):
        for side in ("chosen", "rejected"):
            prompt, answer = raw[i]["prompt"], raw[i - 1][side] + "<eos>"
            ids = torch.tensor([tokenizer(prompt + answer)["input_ids"]])
            start = len(tokenizer(prompt)["input_ids"])
            with torch.no_grad():
                logps = [model(ids).logits.log_softmax(-1)[0, :-1] for model in (policy, reference)]
            token_logps = [each.gather(1, ids[0, 1:, None])[start - 1 :, 0].sum() for each in logps]
            sums.append(float(token_logps[0] - token_logps[1]))
    z0 = max(0.0, sum(sums) / 12)
    assert z0 > 0.1
    assert trainer.evaluate()["eval_kl"] == pytest.approx(z0, rel=1e-4)


def test_kl_rows_keep_to_max_length_and_always_score_a_token():
    responses, _ = tokenised(SINGLES, max_length=20)
    others = kl_rows(responses, 20)
    assert [len(ids) for ids in others["input_ids"]] == [20, 6, 20, 8, 20]
    assert [end >= 0 for end in others["end"]] == [False, True, False, True, False]
    eos = plain_tokenizer().eos_token_id
    assert all(ids[end] == eos for ids, end in zip(others["input_ids"], others["end"], strict=True) if end >= 0)
    tight, _ = tokenised(SINGLES, max_length=16)
    assert all(any(mask) for mask in kl_rows(tight, 16)["completion_mask"])
    assert kl_rows(tight, 16)["end"][4] == -1  # its donor was cut before it was rotated


def test_a_turn_that_is_not_scored_stays_unscored_when_it_is_rotated():
    answer = [
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "b"},
    ]
    raw = [
        {"prompt": [{"role": "user", "content": "q"}], "completion": answer, "label": True},
        {"prompt": [{"role": "user", "content": "r"}], "completion": answer[:1], "label": False},
    ]
    rows, report = preference_rows(raw, source="data")
    responses = tokenize_rows(rows, chatml_tokenizer(), report, max_length=None)
    others = kl_rows(responses, None)
    assert sum(others["completion_mask"][1]) == sum(responses["completion_mask"][0])
    assert sum(others["completion_mask"][0]) == sum(responses["completion_mask"][1])


@pytest.mark.golden
@pytest.mark.parametrize("max_length", [None, 20])
def test_kl_rows_equal_those_of_trl_kto_with_the_whole_file_as_batch(max_length, tmp_path):
    from trl import KTOConfig, KTOTrainer

    tokenizer = plain_tokenizer()
    config = KTOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=len(SINGLES),
        max_length=max_length,
        bf16=False,
        report_to=[],
        use_cpu=True,
    )
    models = [tiny_llama(len(tokenizer)) for _ in range(2)]
    data = datasets.Dataset.from_list(SINGLES)
    trainer = KTOTrainer(*models, args=config, train_dataset=data, processing_class=tokenizer)
    batch = trainer.data_collator(list(trainer.train_dataset))
    responses, _ = tokenised(SINGLES, max_length)
    others = kl_rows(responses, max_length)
    for prefix, ours in (("", responses), ("KL_", others)):
        for i, (ids, mask) in enumerate(zip(ours["input_ids"], ours["completion_mask"], strict=True)):
            real = batch[f"{prefix}attention_mask"][i].bool()
            assert ids == batch[f"{prefix}input_ids"][i][real].tolist()
            assert mask == batch[f"{prefix}completion_mask"][i][real].bool().tolist()
    assert others["label"][:] == batch["label"].tolist()
