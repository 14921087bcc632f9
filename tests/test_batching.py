"""How a step is chosen and collated: nothing is lost, and nothing depends on memory or ranks."""

from itertools import chain

import datasets
import numpy as np
import pytest
import torch

from bnf_align.data.batching import StepDataset, StepLoader, StepSampler
from bnf_align.data.responses import Responses
from bnf_align.records import BadInput


def test_every_unit_is_in_exactly_one_step_of_an_epoch_and_epochs_differ():
    sampler = StepSampler(23, 5, seed=0)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert [len(step) for step in first] == [5, 5, 5, 5, 3]
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(23))
    assert first != second


def test_the_same_seed_gives_the_same_steps_and_another_seed_others():
    assert list(StepSampler(23, 5, seed=3)) == list(StepSampler(23, 5, seed=3))
    assert list(StepSampler(23, 5, seed=3)) != list(StepSampler(23, 5, seed=4))


def test_without_a_seed_units_come_in_file_order_and_drop_last_leaves_the_rest_out():
    assert list(StepSampler(5, 2, seed=None)) == [[0, 1], [2, 3], [4]]
    assert list(StepSampler(5, 2, seed=None, drop_last=True)) == [[0, 1], [2, 3]]


def test_a_seed_or_a_step_that_is_none_is_refused():
    with pytest.raises(BadInput, match=r"--data_seed -1: a seed is a whole number from 0 on"):
        StepSampler(5, 2, seed=-1)
    with pytest.raises(BadInput, match=r"batch_size 0: an optimizer step holds at least one"):
        StepSampler(5, 0, seed=1)


def responses(rows: int = 6, with_reference: bool = True) -> datasets.Dataset:
    """Response i: i + 2 prompt tokens, i + 1 scored ones; reference -1, -2, ... per scored token."""
    columns = {
        "input_ids": [list(range(100 * i, 100 * i + 2 * i + 3)) for i in range(rows)],
        "completion_mask": [[False] * (i + 2) + [True] * (i + 1) for i in range(rows)],
        "label": [i % 2 == 0 for i in range(rows)],
        "pair_id": [i // 2 for i in range(rows)],
        "row": list(range(rows)),
        "end": [2 * i + 2 if i != 1 else -1 for i in range(rows)],
    }
    if with_reference:
        columns["ref_logps"] = [[-float(k + 1) for k in range(i + 1)] for i in range(rows)]
    return datasets.Dataset.from_dict(columns)


def test_collate_pads_on_the_right_and_puts_the_reference_under_its_own_tokens():
    batch = Responses(responses()).collate([0, 2], pad_token_id=9)
    assert batch["input_ids"].tolist() == [[0, 1, 2, 9, 9, 9, 9], [200, 201, 202, 203, 204, 205, 206]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0, 0], [1] * 7]
    assert batch["completion_mask"].tolist() == [[False, False, True] + [False] * 4, [False] * 4 + [True] * 3]
    assert batch["ref_logps"].tolist() == [[0, 0, -1, 0, 0, 0, 0], [0, 0, 0, 0, -1, -2, -3]]
    assert batch["label"].tolist() == [True, True]


def test_labels_and_cut_completions_reach_the_batch_unchanged():
    batch = Responses(responses()).collate([1, 0, 3], pad_token_id=9)
    assert batch["label"].tolist() == [False, True, False]
    assert batch["end"].tolist() == [-1, 2, 8]


def test_selected_rows_keep_their_own_tokens():
    selected = Responses(responses().select([4, 1]))
    assert selected.tokens(1).tolist() == [100, 101, 102, 103, 104]
    assert selected.reference(0).tolist() == [-1, -2, -3, -4, -5]


def test_a_reference_of_other_tokens_is_refused_with_the_row():
    rows = responses().remove_columns("ref_logps").add_column("ref_logps", [[-1.0]] * 6)
    with pytest.raises(ValueError, match="Response 1 has 1 reference values for 2 scored tokens"):
        Responses(rows)


def steps(keep_pairs: bool, **options) -> StepDataset:
    units = [[0, 1], [2, 3], [4, 5]]
    options = {"max_tokens": 1000, "pad_token_id": 9, "kl_rows": None, **options}
    return StepDataset(Responses(responses()), units, keep_pairs=keep_pairs, **options)


def test_a_pairwise_step_has_the_chosen_rows_first_in_the_order_of_their_rejected_ones():
    step = steps(keep_pairs=True).__getitems__([2, 0])
    (batch,) = step.micro_batches
    assert step.size == 2
    assert batch["input_ids"][:, 0].tolist() == [400, 0, 500, 100]


def test_a_pointwise_step_counts_responses():
    step = steps(keep_pairs=False).__getitems__([2, 0])
    assert step.size == 4
    assert sum(len(batch["label"]) for batch in step.micro_batches) == 4


@pytest.mark.parametrize("keep_pairs", [False, True])
def test_ranks_share_a_step_without_overlap_and_an_idle_rank_scores_nothing(keep_pairs):
    ranks = [steps(keep_pairs, rank=rank, world=3).__getitems__([1]) for rank in range(3)]
    batches = [batch for step in ranks for batch in step.micro_batches]
    first_tokens = [
        b["input_ids"][i, 0].item() for b in batches for i in range(len(b["label"])) if b["completion_mask"][i].any()
    ]
    assert sorted(first_tokens) == [200, 300]
    assert len({len(step.micro_batches) for step in ranks}) == 1
    idle = [batch for batch in batches if not batch["completion_mask"].any()]
    assert idle
    assert all(len(batch["label"]) == (2 if keep_pairs else 1) for batch in idle)


def test_kl_rows_are_those_of_the_step():
    other = Responses(responses(with_reference=False))
    step = steps(keep_pairs=False, kl_rows=other).__getitems__([1])
    assert sorted(b["input_ids"][i, 0].item() for b in step.kl_rows for i in range(len(b["label"]))) == [200, 300]


def test_the_loader_gives_one_step_an_item_and_workers_change_nothing():
    sampler = StepSampler(3, 2, seed=0)
    alone = list(StepLoader(steps(False), sampler))
    shared = list(StepLoader(steps(False), sampler, num_workers=1))
    assert [step.size for step in alone] == [4, 2]
    for one, other in zip(alone, shared, strict=True):
        for a, b in zip(one.micro_batches, other.micro_batches, strict=True):
            assert all(torch.equal(a[name], b[name]) for name in a)
    assert np.array_equal(alone[0].micro_batches[0]["label"], shared[0].micro_batches[0]["label"])
