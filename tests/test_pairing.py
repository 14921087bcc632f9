"""Pairs stay pairs, what a loss cannot use is counted, and KTO's mismatched completions equal TRL's."""

import datasets
import pytest

from bnf_align.data.pairing import for_pairs, for_ups, mismatched, units
from bnf_align.data.rows import preference_rows
from bnf_align.data.tokenize import FEATURES, tokenize_rows
from bnf_align.records import BadInput
from tiny_models import chatml_tokenizer, plain_tokenizer
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
    kept = for_ups(responses, report)
    assert kept["label"][:] == [True, True]
    assert kept["input_ids"][:] == [responses["input_ids"][0], responses["input_ids"][2]]
    assert report.dropped == {"a down, and sft imitates ups alone": [2]}
    assert (report.pairs, report.ups, report.downs) == (0, 2, 0)
    assert "of 1 pairs only the chosen answers are used, and count as ups" in report.notes


def test_sft_without_an_up_is_an_error():
    responses, report = tokenised([SINGLES[1], SINGLES[3]])
    with pytest.raises(BadInput, match=r"2 downs and no up: --loss_type sft has nothing to imitate"):
        for_ups(responses, report)


def test_mismatched_rows_join_each_prompt_with_the_answer_before():
    responses, _ = tokenised([{"prompt": f"p{i}", "completion": f"a{i}", "label": i > 0} for i in range(3)])
    others, tokenizer = mismatched(responses, None), plain_tokenizer()
    assert [tokenizer.decode(ids) for ids in others["input_ids"]] == ["p0a2<eos>", "p1a0<eos>", "p2a1<eos>"]
    assert others["completion_mask"][:] == [[False, False, True, True, True]] * 3
    for name in ("label", "row", "pair_id"):
        assert others[name][:] == responses[name][:]
    assert others["end"][:] == [4] * 3
    assert others.features == FEATURES


def test_neither_side_of_a_pair_is_mismatched_with_an_answer_to_its_own_prompt():
    responses, _ = tokenised(PAIRS + [{"prompt": "q2", "completion": c, "label": True} for c in ("one", "two")])
    texts = [plain_tokenizer().decode(ids) for ids in mismatched(responses, None)["input_ids"]]
    assert texts[:4] == ["q0two<eos>", "q0two<eos>", "q1bad!<eos>", "q1bad!<eos>"]
    assert texts[4:] == ["q2bad!<eos>", "q2bad!<eos>"]


def test_where_there_is_one_prompt_alone_completions_rotate_by_one():
    responses, _ = tokenised([{"prompt": "q", "completion": c, "label": True} for c in ("one", "two")])
    assert [plain_tokenizer().decode(ids) for ids in mismatched(responses, None)["input_ids"]] == [
        "qtwo<eos>",
        "qone<eos>",
    ]


def test_mismatched_rows_keep_to_max_length_and_always_score_a_token():
    responses, _ = tokenised(SINGLES, max_length=20)
    others = mismatched(responses, 20)
    assert [len(ids) for ids in others["input_ids"]] == [20, 6, 20, 8, 20]
    assert [end >= 0 for end in others["end"]] == [False, True, False, True, False]
    eos = plain_tokenizer().eos_token_id
    assert all(ids[end] == eos for ids, end in zip(others["input_ids"], others["end"], strict=True) if end >= 0)
    tight, _ = tokenised(SINGLES, max_length=16)
    assert all(any(mask) for mask in mismatched(tight, 16)["completion_mask"])
    assert mismatched(tight, 16)["end"][4] == -1  # its donor was cut before it was rotated


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
    others = mismatched(responses, None)
    assert sum(others["completion_mask"][1]) == sum(responses["completion_mask"][0])
    assert sum(others["completion_mask"][0]) == sum(responses["completion_mask"][1])


@pytest.mark.golden
@pytest.mark.parametrize("max_length", [None, 20])
def test_mismatched_completions_equal_those_of_trl_kto_with_the_whole_file_as_batch(max_length, tmp_path):
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
    others = mismatched(responses, max_length)
    for prefix, ours in (("", responses), ("KL_", others)):
        for i, (ids, mask) in enumerate(zip(ours["input_ids"], ours["completion_mask"], strict=True)):
            real = batch[f"{prefix}attention_mask"][i].bool()
            assert ids == batch[f"{prefix}input_ids"][i][real].tolist()
            assert mask == batch[f"{prefix}completion_mask"][i][real].bool().tolist()
    assert others["label"][:] == batch["label"].tolist()
