"""Packing: responses one after another in a row give the numbers of rows of their own, and never see each other."""

import logging
import os
from itertools import pairwise

import datasets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from torch import Tensor
from transformers import (
    AttentionInterface,
    BloomConfig,
    BloomForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    modeling_flash_attention_utils,
)
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from bnf_align import BadInput, PreferenceConfig
from bnf_align.data.micro_batches import OVERHEAD, Item, items_of, plan_step
from bnf_align.data.responses import Responses, packed
from bnf_align.head import HeadCall, ask, attach, inputs_of
from bnf_align.logps import completion_logps, token_entropy
from bnf_align.plan.plan import Hardware, make_plan
from bnf_align.plan.workload import assumed, of_steps
from bnf_align.training.packing import check_packing
from rounding import ROUNDING
from runs import first_gradient, make_trainer, pairs, perturb, relative_difference, singles
from tiny_nets import SIZES, tiny_gemma2, tiny_llama, tiny_mistral

LORA = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")

BUDGET = 90
"""Two to six responses of `runs` in a micro-batch."""


def mistral(vocab_size: int = 258, **config):
    return tiny_mistral(vocab_size, sliding_window=5, **config)


def gemma2(vocab_size: int = 258, **config):
    return tiny_gemma2(vocab_size, sliding_window=5, **config)


def flash_llama(vocab_size: int = 258, **config):
    return with_attention(tiny_llama(vocab_size, **config), "flash_attention_2")


def flash_gemma2(vocab_size: int = 258, **config):
    return with_attention(gemma2(vocab_size, **config), "flash_attention_2")


def with_attention(model, name: str):
    model.config._attn_implementation = name
    return model


MODELS = [tiny_llama, mistral, gemma2, flash_llama, flash_gemma2]


@pytest.fixture(autouse=True)
def _flash_kernels_on_a_cpu(monkeypatch):
    """The two functions of flash-attn that transformers calls, in plain PyTorch; the code around them is its own.

    What that makes of padding and of positions (`cu_seqlens`, window, soft cap) is then what an accelerator gets.
    """

    def one(q, k, v, scale, causal, window, softcap):
        k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
        scores = torch.einsum("qhd,khd->hqk", q, k) * scale
        scores = softcap * torch.tanh(scores / softcap) if softcap else scores
        behind = torch.arange(len(q))[:, None] - torch.arange(len(q))
        seen = (behind >= 0) & ((behind <= window[0]) | (window[0] < 0))
        assert causal
        return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)

    def flash_attn_varlen_func(
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        softmax_scale=None,
        causal=False,
        window_size=(-1, -1),
        softcap=0.0,
    ):
        assert int(max_seqlen_q) == int(cu_seqlens_q.diff().max())
        options = (softmax_scale, causal, window_size, softcap)
        return torch.cat([one(q[a:b], k[a:b], v[a:b], *options) for a, b in pairwise(cu_seqlens_q.tolist())])

    def flash_attn_func(q, k, v, softmax_scale=None, causal=False, window_size=(-1, -1), softcap=0.0):
        options = (softmax_scale, causal, window_size, softcap)
        return torch.stack([one(*row, *options) for row in zip(q, k, v, strict=True)])

    flash = modeling_flash_attention_utils
    functions = (flash_attn_func, flash_attn_varlen_func, None, flash._pad_input, flash._unpad_input)
    monkeypatch.setattr(flash, "_lazy_imports", lambda *_, **__: functions)
    monkeypatch.setattr(flash, "_loaded_implementation", None)


# ------------------------------------------------------------------------------------------------- what a step is


@pytest.mark.golden
@pytest.mark.parametrize("loss_type", ["bnf", "dpo", "kto"])
@pytest.mark.parametrize(("model", "head"), [*((model, "fused") for model in MODELS), (tiny_llama, "logits")])
def test_a_packed_step_has_the_gradient_and_the_metrics_of_the_padded_one(tmp_path, model, loss_type, head):
    rows = pairs(7) if loss_type == "dpo" else pairs(3) + singles(8)
    found = []
    for packing in (False, True):
        options = {"packing": packing, "head": head, "max_tokens_per_micro_batch": BUDGET, "eval_rows": rows[:-2]}
        trainer = perturb(make_trainer(tmp_path, rows, model=model(258), loss_type=loss_type, **options))
        found.append((first_gradient(trainer), trainer.state.log_history[0], trainer.evaluate()))
    (gradient, *expected), (actual, *metrics) = found
    assert relative_difference(actual, gradient) < ROUNDING
    for one, other in zip(metrics, expected, strict=True):
        for name in other:
            if not name.endswith(("runtime", "per_second", "preparation_time")):
                assert one[name] == pytest.approx(other[name], rel=ROUNDING, abs=ROUNDING), name


@pytest.mark.golden
@pytest.mark.parametrize(
    "options", [{"peft_config": LORA}, {"gradient_checkpointing": True}], ids=["LoRA", "checkpointing"]
)
def test_adapters_and_checkpointing_change_nothing_of_that(tmp_path, options):
    # The adapter does not start as nothing, so its base is no reference: step 0 would stop, rightly.
    options = {**options, "max_tokens_per_micro_batch": BUDGET, "check_step_0": False}
    gradients = [
        first_gradient(make_trainer(tmp_path, singles(9), packing=packing, **options)) for packing in (False, True)
    ]
    assert relative_difference(gradients[1], gradients[0]) < ROUNDING


def test_a_packed_step_computes_no_padding_and_counts_its_tokens(tmp_path):
    """The end token is also what pads: a count of the tokens that are not padding's would leave it out."""
    options = {"packing": True, "include_num_input_tokens_seen": "non_padding", "max_tokens_per_micro_batch": BUDGET}
    trainer = make_trainer(tmp_path, singles(12), **options)
    trainer.processing_class.pad_token = trainer.processing_class.eos_token
    lengths = trainer.train_dataset.responses.lengths
    step = trainer.train_dataset.__getitems__(range(len(lengths)))
    sizes = [batch["input_ids"].numel() for batch in step.micro_batches]
    assert sum(sizes) == lengths.sum()
    assert max(sizes) <= BUDGET
    assert all(len(batch["input_ids"]) == 1 for batch in step.micro_batches)
    trainer.train()
    assert trainer.tokens_seen == trainer.state.num_input_tokens_seen == lengths.sum()
    weights = trainer.model.num_parameters(exclude_embeddings=True)
    assert trainer.floating_point_ops(step) == 6 * lengths.sum() * weights


@pytest.mark.golden
def test_a_packed_run_resumes_to_bitwise_the_same_weights(tmp_path):
    options = {"packing": True, "batch_size": 4, "max_steps": 5, "save_strategy": "steps", "save_steps": 2}

    def trainer():
        return make_trainer(tmp_path, singles(14), optim="adamw_torch", max_tokens_per_micro_batch=BUDGET, **options)

    whole, resumed = trainer(), trainer()
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)


# ------------------------------------------------------------------------------------------------- the reference


@pytest.mark.golden
def test_packed_references_are_the_padded_ones_under_a_name_of_their_own(tmp_path):
    """In bfloat16 a padded reference under a packed policy gave a mean weight of 0.9991 before anything had moved."""
    rows = [*pairs(4), *singles(6)]
    padded = make_trainer(tmp_path, rows, max_tokens_per_micro_batch=BUDGET)
    first, second = (make_trainer(tmp_path, rows, packing=True, max_tokens_per_micro_batch=n) for n in (BUDGET, 300))
    report = first.prepared.reference
    assert report.computed_tokens == padded.prepared.reference.computed_tokens > 0
    assert report.namespace != padded.prepared.reference.namespace
    assert second.prepared.reference.computed_tokens == 0
    assert second.prepared.reference.namespace == report.namespace
    expected = padded.train_dataset.responses
    for row in range(len(expected)):
        assert first.train_dataset.responses.reference(row) == pytest.approx(expected.reference(row), abs=ROUNDING)


def test_the_reference_pass_runs_packed_rows_within_the_budget(tmp_path):
    model, seen = tiny_llama(258), []

    def note(module, args, kwargs):
        if "position_ids" in kwargs:
            seen.append(tuple(kwargs["input_ids"].shape))

    model.register_forward_pre_hook(note, with_kwargs=True)
    trainer = make_trainer(tmp_path, singles(12), model=model, packing=True, max_tokens_per_micro_batch=BUDGET)
    _, *passes = seen  # the first is the trial
    assert all(rows == 1 and columns <= BUDGET for rows, columns in passes)
    assert sum(columns for _, columns in passes) == trainer.train_dataset.responses.lengths.sum()


# PyTorch's kernel for bfloat16 asks the processor for AMX, even where ATEN_CPU_CAPABILITY denies it, and fails.
LOWERED = pytest.mark.skipif("ATEN_CPU_CAPABILITY" in os.environ, reason="sdpa in bfloat16 needs the whole processor")


@pytest.mark.parametrize("attention", ["eager", pytest.param("sdpa", marks=LOWERED)])
def test_before_anything_has_moved_the_mean_weight_is_1_in_bfloat16_too(tmp_path, attention):
    """Both passes round alike, to 8 bits; 1e-3 is what the odd unlike rounding leaves of a mean over all tokens."""
    options = {"packing": True, "bf16": True, "use_cpu": True, "max_tokens_per_micro_batch": BUDGET}
    model = tiny_llama(258, attn_implementation=attention)
    trainer = make_trainer(tmp_path, singles(24), model=model, **options)
    trainer.train()
    assert trainer.state.log_history[0]["bnf/weight"] == pytest.approx(1, abs=1e-3)


# ---------------------------------------------------------------------------------------------------- the borders


def responses(lengths, seed: int = 0, prompt: int = 1) -> dict[str, Tensor]:
    """A padded batch of random tokens; everything behind the first `prompt` tokens of a row is scored."""
    generator = torch.Generator().manual_seed(seed)
    columns = torch.arange(max(lengths))
    inside = columns < torch.tensor(lengths)[:, None]
    return {
        "input_ids": torch.randint(3, 40, inside.shape, generator=generator) * inside,
        "attention_mask": inside.long(),
        "completion_mask": inside & (columns >= prompt),
    }


def test_packing_moves_tokens_into_one_row_and_leaves_what_is_said_of_responses_where_it_was():
    rows = datasets.Dataset.from_dict(
        {
            "input_ids": [[5, 6, 7], [8, 9], [1, 2, 3, 4]],
            "completion_mask": [[False, True, True], [False, True], [False, False, True, True]],
            "ref_logps": [[-1.0, -2.0], [-3.0], [-4.0, -5.0]],
            "label": [True, False, True],
            "end": [2, -1, 3],
            "row": [0, 1, 2],
        }
    )
    padded = Responses(rows).collate([0, 1, 2], pad_token_id=0)
    batch = packed(padded)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 9, 1, 2, 3, 4]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 2, 3]]
    assert batch["attention_mask"].tolist() == [[1] * 9]
    assert batch["starts"].tolist() == [0, 3, 5]
    for name in ("completion_mask", "ref_logps", "label", "end"):
        assert torch.equal(batch[name], padded[name])


@pytest.mark.parametrize("head", ["fused", "logits", "none"])
def test_each_token_is_scored_by_the_one_before_it_in_its_own_response(head):
    """The first scored token stands right behind a border: one too far to the left is another response's."""
    model, padded = tiny_llama(40), responses([2, 7, 3, 9, 2])
    batch = packed(padded)
    if head == "none":
        logps = completion_logps(model, batch).logps
    else:
        attach(model, head)
        logps = ask(model, batch, HeadCall(batch))
    for row, length in enumerate([2, 7, 3, 9, 2]):
        ids = padded["input_ids"][row, :length]
        expected = model(input_ids=ids[None]).logits[0].log_softmax(-1)[range(length - 1), ids[1:]]
        torch.testing.assert_close(logps[row, 1:length], expected, rtol=ROUNDING, atol=ROUNDING)
        assert logps[row, 0] == 0
        assert (logps[row, length:] == 0).all()


def test_the_entropy_of_packed_responses_is_that_of_the_padded_ones():
    model, padded = tiny_llama(40), responses([4, 6, 3])
    torch.testing.assert_close(
        token_entropy(model, packed(padded)), token_entropy(model, padded), rtol=ROUNDING, atol=ROUNDING
    )


def test_the_first_token_of_a_packed_response_cannot_be_scored():
    batch = packed(responses([4, 5], prompt=0))
    with pytest.raises(ValueError, match="Position 0 is scored"):
        HeadCall(batch)


def neighbours(model, **changed) -> float:
    """By how much a response's log-probabilities change with those that stand before and behind it in the row."""
    attach(model, check=False)
    own, found = responses([9], seed=1), []
    for seed in (2, 3):
        padded = responses([9, 9, 9], seed)
        padded["input_ids"][1] = own["input_ids"][0]
        batch = packed(padded)
        call = HeadCall(batch)
        model(**inputs_of(batch) | changed, head_call=call)
        found.append(call.completions.logps[1])
    return float((found[0] - found[1]).abs().max())


@pytest.mark.parametrize("model", MODELS)
def test_a_response_does_not_change_with_its_neighbours(model):
    assert neighbours(model(40)) < ROUNDING


@pytest.mark.parametrize("model", [tiny_llama, mistral, gemma2])
def test_with_a_mask_that_knows_padding_alone_it_would(model):
    """A control: the test above must be able to fail. Positions alone keep nothing apart."""
    assert neighbours(model(40), attention_mask=torch.ones(1, 27, dtype=torch.long)) > 0.1


# ------------------------------------------------------------------------------------------- what is let in and out


@pytest.mark.parametrize("model", [*MODELS, lambda size: tiny_llama(size, attn_implementation="eager")])
def test_models_that_keep_responses_apart_are_let_in(model):
    trained = model(40).train()
    attention = trained.config._attn_implementation
    attach(trained)
    check_packing(trained)
    assert trained.training
    assert trained.config._attn_implementation == attention


def test_a_model_with_flash_attention_is_tried_where_its_kernels_do_not_run(monkeypatch):
    """Before training its weights are on the CPU; the kernels are not even asked for."""
    monkeypatch.setattr(modeling_flash_attention_utils, "_lazy_imports", None)
    model = flash_llama(40)
    attach(model)
    check_packing(model)
    with pytest.raises(TypeError, match="NoneType"):
        model(torch.arange(4)[None])


def tiny_bloom():
    return BloomForCausalLM(BloomConfig(vocab_size=40, hidden_size=32, n_layer=2, n_head=4, initializer_range=0.3))


def tiny_mamba():
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8, "initializer_range": 0.3}
    return MambaForCausalLM(MambaConfig(vocab_size=40, **sizes))


def tiny_gpt_oss():
    sizes = {**SIZES, "num_local_experts": 2, "num_experts_per_tok": 1, "head_dim": 8}
    return GptOssForCausalLM(GptOssConfig(vocab_size=40, **sizes))


def blind_llama():
    """Under an attention that transformers makes no masks for."""
    AttentionInterface.register("blind", sdpa_attention_forward)
    return with_attention(tiny_llama(40), "blind")


def deaf_flash_llama():
    """The second layer is not told the positions."""
    model = flash_llama(40)

    def forget(module, args, kwargs):
        return args, kwargs | {"position_ids": None}

    model.model.layers[1].register_forward_pre_hook(forget, with_kwargs=True)
    return model


@pytest.mark.parametrize("model", [tiny_bloom, tiny_mamba, tiny_gpt_oss, blind_llama, deaf_flash_llama])
def test_models_that_let_responses_see_each_other_are_refused(model):
    torch.manual_seed(0)
    leaking = model()
    attach(leaking, "logits")
    with pytest.raises(BadInput, match=f"--packing: in {type(leaking).__name__} .* see each other") as refusal:
        check_packing(leaking)
    assert str(refusal.value).endswith("Leave --packing out.")


def test_the_refusal_comes_before_anything_is_computed(tmp_path):
    with pytest.raises(BadInput, match="see each other"):
        make_trainer(tmp_path, singles(4), model=with_attention(tiny_llama(258), blind_name()), packing=True)
    assert not (tmp_path / "cache").exists()
    make_trainer(tmp_path, singles(4), model=with_attention(tiny_llama(258), blind_name()))


def blind_name() -> str:
    return blind_llama().config._attn_implementation


@pytest.mark.parametrize(("model", "said"), [(tiny_llama, True), (gemma2, True), (flash_llama, False)])
def test_masked_attention_is_said_to_cost_the_square_of_the_budget(tmp_path, caplog, model, said):
    with caplog.at_level(logging.WARNING):
        make_trainer(tmp_path, singles(4), model=model(258), packing=True)
    assert ("square of --max_tokens_per_micro_batch" in caplog.text) is said


# ---------------------------------------------------------------------------------------------------------- the plan

lengths = st.lists(st.integers(2, 60), min_size=1, max_size=40)


def units(lengths) -> list[Item]:
    return items_of([(row,) for row in range(len(lengths))], np.array(lengths), packing=True)


def tokens(cut: list[Item]) -> int:
    return sum(item.length for item in cut)


def plan(lengths, budget: int, world: int) -> list[list[list[Item]]]:
    return plan_step(units(lengths), budget, world, packing=True)


def lognormal(seed: int) -> np.ndarray:
    return np.clip(np.random.default_rng(seed).lognormal(5.9, 0.8, 256), 8, 4096).astype(int)


def test_an_item_has_the_tokens_of_all_its_rows_where_they_are_packed_and_of_the_longest_where_padded():
    found = {packing: items_of([(0, 2), (1,)], np.array([3, 4, 9]), packing) for packing in (True, False)}
    assert found == {True: [Item((0, 2), 12), Item((1,), 4)], False: [Item((0, 2), 9), Item((1,), 4)]}


@settings(deadline=None)
@given(lengths, st.integers(10, 200), st.integers(1, 4))
def test_a_packed_plan_holds_every_item_once_and_gives_ranks_equally_many_micro_batches(lengths, budget, world):
    found = plan(lengths, budget, world)
    assert len({len(rank) for rank in found}) == 1
    assert sorted(item.rows[0] for rank in found for cut in rank for item in cut) == list(range(len(lengths)))


@settings(deadline=None)
@given(lengths, st.integers(10, 200), st.integers(1, 4))
def test_a_packed_micro_batch_stays_within_the_budget_unless_one_item_alone_exceeds_it(lengths, budget, world):
    for rank in plan(lengths, budget, world):
        assert all(len(cut) <= 1 or tokens(cut) <= budget for cut in rank)


@settings(deadline=None)
@given(lengths, st.integers(10, 200), st.integers(1, 4))
def test_a_packed_micro_batch_is_empty_only_where_each_item_stands_alone(lengths, budget, world):
    cuts = [cut for rank in plan(lengths, budget, world) for cut in rank]
    assert all(cuts) or all(len(cut) <= 1 for cut in cuts)
    assert sum(not cut for cut in cuts) < world


@settings(deadline=None)
@given(lengths, st.integers(10, 200), st.integers(1, 4))
def test_the_costliest_packed_micro_batches_come_first(lengths, budget, world):
    rounds = [[tokens(cut) for cut in cuts] for cuts in zip(*plan(lengths, budget, world), strict=True)]
    assert all(min(earlier) >= max(later) for earlier, later in pairwise(rounds))


@settings(deadline=None)
@given(st.lists(st.integers(2, 60), min_size=1, max_size=20, unique=True), st.randoms(), st.integers(1, 4))
def test_the_packed_plan_depends_on_the_items_and_not_on_their_order(lengths, random, world):
    items = units(lengths)
    shuffled = random.sample(items, len(items))
    assert plan_step(items, 120, world, packing=True) == plan_step(shuffled, 120, world, packing=True)


@pytest.mark.parametrize("world", [1, 8])
@pytest.mark.parametrize("budget", [8192, 32768])
def test_packed_steps_need_hardly_more_rounds_than_their_tokens_fill_and_ranks_wait_for_nobody(budget, world):
    for seed in range(3):
        lengths = lognormal(seed)
        found = plan(lengths, budget, world)
        assert len(found[0]) <= -(-lengths.sum() // (budget * world)) + 1
        rounds = [[OVERHEAD + tokens(cut) for cut in cuts] for cuts in zip(*found, strict=True)]
        assert sum(map(max, rounds)) <= 1.02 * sum(map(sum, rounds)) / world


def test_nothing_to_pack_is_a_plan_without_micro_batches():
    assert plan([], 100, 2) == [[], []]


@pytest.mark.parametrize("keep_pairs", [False, True])
def test_a_rank_without_a_share_of_a_packed_step_joins_with_nothing_scored(tmp_path, keep_pairs):
    trainer = make_trainer(tmp_path, pairs(1), loss_type="dpo" if keep_pairs else "bnf", packing=True)
    steps = trainer.train_dataset
    steps.world = 3
    batches = []
    for steps.rank in range(3):
        batches += steps.__getitems__([0]).micro_batches
    assert sum(bool(batch["completion_mask"].any()) for batch in batches) == (1 if keep_pairs else 2)
    for batch in batches:
        assert len(batch["input_ids"]) == 1
        assert len(batch["label"]) == len(batch["starts"]) == (2 if keep_pairs else 1)
        assert bool(trainer.compute_loss(trainer.model, batch).isfinite())


# ---------------------------------------------------------------------------------------------------- what it costs


@pytest.mark.parametrize("loss_type", ["bnf", "dpo"])
def test_the_largest_micro_batch_of_the_plan_is_the_one_that_runs(tmp_path, loss_type):
    options = {"loss_type": loss_type, "packing": True, "max_tokens_per_micro_batch": BUDGET}
    trainer = make_trainer(tmp_path, pairs(10), **options)
    work = of_steps(trainer.train_dataset, trainer.args)
    batches = next(iter(trainer.get_train_dataloader())).micro_batches
    assert (work.rows, work.length) == (1, batches[0]["input_ids"].numel())
    assert work.later_tokens == batches[1]["input_ids"].numel()
    assert work.longest == trainer.train_dataset.responses.lengths.max()


def planned(attention: str, packing: bool, **hardware) -> dict:
    config = PreferenceConfig(output_dir="out", use_cpu=True, packing=packing, batch_size=32, max_length=64)
    config.max_tokens_per_micro_batch = 1024
    model, hardware = tiny_llama(), Hardware(**hardware)
    return make_plan(model.config, config, assumed(100, 32, config), hardware, attention=attention)


def test_packing_plans_the_square_of_the_budget_where_attention_masks_and_nothing_more_where_it_does_not():
    kept = {
        (attention, packing): planned(attention, packing)["memory_bytes"]["activations_without_checkpointing"]
        for attention in ("sdpa", "flash_attention_2")
        for packing in (False, True)
    }
    positions = 2 * 4 * 8 * (1024 - 64)  # sine and cosine of 8 numbers for 1,024 positions instead of 64
    assert kept["flash_attention_2", True] - kept["flash_attention_2", False] == positions
    masks = 2 * 4 * (1024**2 - 16 * 64**2)  # in each of two layers a float32 per two tokens of a row
    assert kept["sdpa", True] - kept["sdpa", False] == pytest.approx(masks + positions, rel=1e-2)
    flops = {name: planned(*name)["flops"]["reference_pass"] for name in kept}
    assert flops["flash_attention_2", True] == flops["flash_attention_2", False] == flops["sdpa", False]
    assert flops["sdpa", True] - flops["sdpa", False] == 2 * 200 * 32 * (2 * 1024 - 32) * 32 * 2


def test_a_suggested_budget_holds_the_longest_response_and_is_smaller_where_attention_masks():
    memory = planned("sdpa", True)["memory_bytes"]["total"]
    found = {name: planned(name, True, memory=4 * memory)["suggestion"] for name in ("sdpa", "flash_attention_2")}
    budgets = {name: suggestion["max_tokens_per_micro_batch"] for name, suggestion in found.items()}
    assert 1024 <= budgets["sdpa"] < budgets["flash_attention_2"]
    model, config = tiny_llama(), PreferenceConfig(output_dir="out", use_cpu=True, packing=True, max_length=10**5)
    work = assumed(10, 40_000, config)
    assert make_plan(model.config, config, work, Hardware(memory=10**8))["suggestion"]["devices"] is None
