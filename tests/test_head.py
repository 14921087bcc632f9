"""The fused head against the model's own logits and against Eq. 4: values, gradients, matmuls and memory."""

import copy
import inspect
import time
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from batches import random_batch
from bnf_align.data.responses import packed
from bnf_align.head import Head, HeadCall, attach, chunked_lm_head, fused_logps, fused_loss
from bnf_align.losses import LOSSES, CompletionLogps, Tokens, bnf_weights
from bnf_align.records import BadInput
from fsdp_on_cpu import end_here
from reference.eq4 import eq4_loss
from rounding import roundings
from runs import make_trainer, relative_difference, singles
from tiny_nets import SIZES, perturbed, tiny_gemma2, tiny_llama, tiny_mistral

VOCABULARY = 60
TOLERANCE = roundings(2 * (VOCABULARY + SIZES["hidden_size"]))
"""1.1e-5: ways through a head sum over vocabulary and hidden size in other orders, forward and backward."""
LABEL = torch.tensor([True, False, True, False])


@pytest.fixture(autouse=True)
def _four_rows_in_a_chunk(monkeypatch):
    """So that every test goes through several chunks, the last one not full."""
    monkeypatch.setattr(chunked_lm_head, "CPU_CHUNK_BYTES", 4 * 4 * VOCABULARY)


def token_batch() -> dict[str, torch.Tensor]:
    """Four rows: two chosen, then their rejected ones, with 18 scored tokens and a made-up reference."""
    generator = torch.Generator().manual_seed(1)
    prompt, length = torch.tensor([[1], [3], [2], [4]]), torch.tensor([[9], [5], [8], [6]])
    inside = torch.arange(9) < length
    return {
        "input_ids": torch.randint(VOCABULARY, (4, 9), generator=generator) * inside,
        "attention_mask": inside.long(),
        "completion_mask": inside & (torch.arange(9) >= prompt),
        "ref_logps": -4 + 3 * torch.rand(4, 9, generator=generator),
        "label": LABEL,
    }


def objective(name: str, completions: CompletionLogps) -> torch.Tensor:
    """Loss `name` of LOSSES as the scalar that a trainer would ask for."""
    spec = LOSSES[name]
    if spec.pairwise:
        return spec.function(*completions.halves()).sum() / 2
    return spec.function(completions, LABEL, *[torch.tensor(0.3)] * (spec.mismatched or spec.running_reward)).sum() / 4


def call_for(name: str, batch: dict[str, torch.Tensor], **extra) -> HeadCall:
    """As the trainer calls it."""
    if LOSSES[name].separable:
        return HeadCall(batch, token_weights=partial(quarter_weights, name), **extra)
    return HeadCall(batch, partial(objective, name), **extra)


def quarter_weights(name: str, tokens: Tokens) -> torch.Tensor:
    """Token weights of the mean over four responses."""
    spec = LOSSES[name]
    return spec.token_weights(tokens, **spec.hyperparameters) / 4


def answer(model: nn.Module, call: HeadCall, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], head_call=call)


def gradient(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def step(model: nn.Module, implementation: str, loss: str = "bnf"):
    """Loss, call and gradient of one micro-batch through a copy of `model`."""
    model, batch = copy.deepcopy(model), token_batch()
    attach(model, implementation)
    # The oracle is autograd over the loss's own function.
    call = call_for(loss, batch) if implementation == "fused" else HeadCall(batch, partial(objective, loss))
    value = answer(model, call, batch)
    value.backward()
    return value.detach(), call, gradient(model)


def scaled(model_class, config_class, **config) -> nn.Module:
    torch.manual_seed(0)
    return model_class(config_class(vocab_size=VOCABULARY, **{**SIZES, **config})).eval()


def with_lora(model: nn.Module, targets=("q_proj", "v_proj"), **config) -> PeftModel:
    torch.manual_seed(3)
    return get_peft_model(model, LoraConfig(target_modules=list(targets), init_lora_weights=False, **config))


def with_frozen_head(model: nn.Module) -> nn.Module:
    model.get_output_embeddings().requires_grad_(False)
    return model


def with_random_bias(model: nn.Module) -> nn.Module:
    nn.init.normal_(model.get_output_embeddings().bias)
    return model


CAPPED = {"final_logit_softcapping": 2.0}
MODELS = {
    "llama": lambda: tiny_llama(VOCABULARY),
    "llama, tied": lambda: tiny_llama(VOCABULARY, tie_word_embeddings=True),
    "mistral": lambda: tiny_mistral(VOCABULARY, sliding_window=4),
    "gemma 2, tied": lambda: tiny_gemma2(VOCABULARY, **CAPPED),
    "gemma 2, untied": lambda: tiny_gemma2(VOCABULARY, tie_word_embeddings=False, **CAPPED),
    "cohere, scaled": lambda: scaled(
        CohereForCausalLM, CohereConfig, logit_scale=0.3, pad_token_id=0, bos_token_id=1, eos_token_id=2
    ),
    "granite, divided": lambda: scaled(GraniteForCausalLM, GraniteConfig, logits_scaling=3.0),
    "phi, bias": lambda: with_random_bias(scaled(PhiForCausalLM, PhiConfig)),
    "frozen head": lambda: with_frozen_head(tiny_llama(VOCABULARY)),
    "llama, lora": lambda: with_lora(tiny_llama(VOCABULARY)),
    "mistral, lora": lambda: with_lora(tiny_mistral(VOCABULARY)),
    "gemma 2, lora": lambda: with_lora(tiny_gemma2(VOCABULARY, **CAPPED)),
    "lora, whole head": lambda: with_lora(tiny_llama(VOCABULARY), modules_to_save=["lm_head"]),
}


# ------------------------------------------------------------------------------------------------ against the logits


@pytest.mark.golden
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("loss", ["bnf", "dpo"])
def test_loss_log_probabilities_and_gradient_are_those_of_the_models_own_logits(name, loss):
    model = MODELS[name]()
    value, call, grad = step(model, "fused", loss)
    expected_value, expected, expected_grad = step(model, "logits", loss)
    torch.testing.assert_close(value, expected_value, rtol=TOLERANCE, atol=TOLERANCE)
    torch.testing.assert_close(call.completions.logps, expected.completions.logps, rtol=TOLERANCE, atol=TOLERANCE)
    assert relative_difference(grad, expected_grad) < TOLERANCE


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_has_the_gradient_of_the_logits(loss):
    model = tiny_llama(VOCABULARY)
    assert relative_difference(step(model, "fused", loss)[2], step(model, "logits", loss)[2]) < TOLERANCE


@pytest.mark.parametrize("loss", [name for name, spec in LOSSES.items() if spec.separable])
@pytest.mark.parametrize("way", ["logits", "entropy", "own logits"])
def test_a_separable_loss_is_the_same_where_its_gradient_is_not_formed_on_the_way(loss, way):
    """Through the model's own logits, and where evaluation asks for more than the loss."""
    model, batch = tiny_llama(VOCABULARY), token_batch()
    expected_value, _, expected = step(model, "logits", loss)
    attach(model, "logits" if way == "logits" else "fused")
    call = call_for(loss, batch, entropy=way == "entropy", logits=way == "own logits")
    value = answer(model, call, batch)
    assert (hasattr(call, "entropy"), hasattr(call, "logits")) == (way == "entropy", way == "own logits")
    value.backward()
    torch.testing.assert_close(value.detach(), expected_value, rtol=TOLERANCE, atol=TOLERANCE)
    assert relative_difference(gradient(model), expected) < TOLERANCE


def test_the_weights_are_asked_for_chunk_by_chunk_without_a_graph_and_with_each_tokens_own_row():
    model, batch, asked = tiny_llama(VOCABULARY), token_batch(), []
    attach(model)

    def weights(tokens):
        assert not torch.is_grad_enabled()
        assert not tokens.logps.requires_grad
        asked.append(tokens)
        return -torch.ones_like(tokens.logps)

    call = HeadCall(batch, token_weights=weights)
    value = answer(model, call, batch)
    assert [len(tokens.logps) for tokens in asked] == [4, 4, 4, 4, 2]
    mask = batch["completion_mask"]
    rows = mask.nonzero()[:, 0]
    whole = Tokens(*(torch.cat(values) for values in zip(*asked, strict=True)))
    assert torch.equal(whole.logps, call.completions.logps[mask])
    assert torch.equal(whole.ref_logps, batch["ref_logps"][mask])
    assert torch.equal(whole.label, LABEL[rows])
    assert torch.equal(whole.length, mask.sum(-1)[rows])
    torch.testing.assert_close(value.detach(), -whole.logps.sum(), rtol=TOLERANCE, atol=0)


class NoValueIsAskedFor(TorchDispatchMode):
    """Refuses what a host would wait for on an accelerator: values, and shapes that depend on them."""

    WAITING = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})
    UNTAGGED = frozenset({"aten::masked_scatter_backward"})  # a masked_select

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        indices = [index for index in args[1] if index is not None] if func._schema.name == "aten::index" else None
        by_numbers = indices is not None and all(index.dtype == torch.long for index in indices)
        waits = bool(self.WAITING & set(func.tags)) or func._schema.name in self.UNTAGGED
        assert by_numbers or not waits, func
        return func(*args, **(kwargs or {}))


def test_the_watch_for_values_sees_what_waits():
    mask = torch.tensor([True, False])
    for wait in (mask.any().item, mask.nonzero, lambda: mask[mask], lambda: bool(mask.any())):
        with NoValueIsAskedFor(), pytest.raises(AssertionError):
            wait()
    with NoValueIsAskedFor():
        assert mask[torch.tensor([1, 0])].shape == (2,)


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("loss", LOSSES)
def test_once_the_call_is_made_no_value_is_asked_of_the_device(loss, packing):
    """Forward and backward; the batch that the call is made from is still on the CPU."""
    batch = packed(token_batch()) if packing else token_batch()
    hidden = torch.randn(*batch["input_ids"].shape, 8, requires_grad=True)
    head = Head(torch.randn(VOCABULARY, 8, requires_grad=True))
    for extra in ({}, {"entropy": True}):
        call = call_for(loss, batch, device=torch.device("cpu"), **extra)
        with NoValueIsAskedFor():
            call.through_head(hidden, head).backward()
            call.through_logits(hidden @ head.weight.t()).backward()


@pytest.mark.parametrize("loss", ["bnf", "kto"])
def test_the_trainer_makes_its_calls_from_the_batch_before_it_moves(tmp_path, monkeypatch, loss):
    """What has moved lacks here what is scored, so whoever looked for it there would fail."""
    trainer = make_trainer(tmp_path, singles(4), loss_type=loss)
    (batch,) = trainer.train_dataset.__getitems__(range(4)).micro_batches
    point = torch.tensor(0.1) if loss == "kto" else None
    expected, moved = trainer.compute_loss(trainer.model, batch, point), trainer._prepare_inputs
    monkeypatch.setattr(
        trainer, "_prepare_inputs", lambda batch: {k: v for k, v in moved(batch).items() if k != "completion_mask"}
    )
    assert torch.equal(trainer.compute_loss(trainer.model, batch, point), expected)
    trainer.train()  # KTO's z0 too


def test_a_call_takes_a_loss_or_token_weights():
    with pytest.raises(ValueError, match="not both"):
        HeadCall(token_batch(), partial(objective, "bnf"), token_weights=partial(quarter_weights, "bnf"))


@pytest.mark.parametrize("loss", LOSSES)
def test_separable_are_the_losses_whose_slope_at_a_token_ignores_what_other_tokens_have(loss):
    batch = token_batch()
    mask = batch["completion_mask"]
    logps = (-8 * torch.rand(mask.shape, generator=torch.Generator().manual_seed(2))).requires_grad_()  # or TOPR is 1

    def slopes(values):
        return torch.autograd.grad(objective(loss, CompletionLogps(values, mask, batch["ref_logps"])), values)[0]

    alone = torch.zeros_like(logps)
    for b, t in mask.nonzero().tolist():
        only = torch.zeros_like(logps).index_put((torch.tensor(b), torch.tensor(t)), logps[b, t].detach())
        alone[b, t] = slopes(only.requires_grad_())[b, t]
    assert torch.equal(alone, slopes(logps)) == LOSSES[loss].separable


def test_log_probability_and_entropy_of_a_token_are_those_of_the_position_before_it():
    model, batch = tiny_llama(VOCABULARY), token_batch()
    log_probs = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.log_softmax(-1).detach()
    for implementation in ("fused", "logits"):
        attach(model, implementation)
        call = HeadCall(batch, entropy=True)
        logps = answer(model, call, batch)
        assert logps.requires_grad
        assert not call.completions.logps.requires_grad
        assert torch.equal(call.completions.logps, logps.detach())
        expected, entropy = torch.zeros(4, 9), torch.zeros(4, 9)
        for b, t in batch["completion_mask"].nonzero().tolist():
            before = log_probs[b, t - 1]
            expected[b, t], entropy[b, t] = before[batch["input_ids"][b, t]], -(before.exp() * before).sum()
        torch.testing.assert_close(logps.detach(), expected)
        torch.testing.assert_close(call.entropy, entropy)


def test_a_scored_first_token_is_refused():
    batch = token_batch()
    batch["completion_mask"][2, 0] = True
    with pytest.raises(ValueError, match="Position 0 is scored"):
        HeadCall(batch)


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("name", ["llama, tied", "gemma 2, lora"])
def test_checkpointed_layers_have_the_same_gradient(name, reentrant):
    model = MODELS[name]()
    expected = step(model, "logits")[2]
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    model.enable_input_require_grads()
    assert relative_difference(step(model.train(), "fused")[2], expected) < TOLERANCE


@pytest.mark.parametrize("reentrant", [True, False])
def test_a_checkpoint_around_the_model_has_the_same_gradient_and_runs_the_model_twice(reentrant):
    model, batch, runs = tiny_llama(VOCABULARY), token_batch(), []
    expected = step(model, "logits")[2]
    attach(model)
    model.model.register_forward_pre_hook(lambda *_: runs.append(1))

    def whole(embeddings):
        call = call_for("bnf", batch)
        return model(inputs_embeds=embeddings, attention_mask=batch["attention_mask"], head_call=call)

    checkpoint(whole, model.get_input_embeddings()(batch["input_ids"]), use_reentrant=reentrant).backward()
    assert relative_difference(gradient(model), expected) < TOLERANCE
    assert len(runs) == 2


def test_a_factor_of_the_loss_is_a_factor_of_the_gradient():
    model, batch = tiny_llama(VOCABULARY), token_batch()
    expected = step(model, "fused")[2]
    attach(model)
    (answer(model, call_for("bnf", batch), batch) / 7).backward()
    assert relative_difference(gradient(model), {name: value / 7 for name, value in expected.items()}) < TOLERANCE


@pytest.mark.parametrize("name", ["llama, tied", "phi, bias", "gemma 2, lora"])
@pytest.mark.parametrize("loss", ["bnf", "dpo"])
def test_without_scored_tokens_the_loss_and_all_gradients_are_there_and_zero(name, loss):
    batch = token_batch()
    batch["completion_mask"][:] = False
    model = MODELS[name]()
    attach(model)
    value = answer(model, call_for(loss, batch), batch)
    assert value == 0 or loss == "dpo"
    value.backward()
    assert all((p.grad == 0).all() for p in model.parameters() if p.requires_grad)


# ------------------------------------------------------------------------------------- against autograd in float64


def problem(count: int = 11, width: int = 8, dtype=torch.float32, scale: float = 1.0):
    """Hidden states, weight, bias, targets, slopes; with gradients asked for."""
    generator = torch.Generator().manual_seed(0)
    normal = partial(torch.randn, generator=generator)
    tensors = [scale * normal(count, width), normal(VOCABULARY, width), normal(VOCABULARY)]
    targets = torch.randint(VOCABULARY, (count,), generator=generator)
    return *(t.to(dtype).requires_grad_() for t in tensors), targets, normal(count)


@pytest.mark.parametrize("rows", [1, 4, 100])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("form", [{}, {"softcap": 2.0}, {"scale": 0.3}, {"softcap": 1.5, "scale": -2.0}], ids=str)
def test_scores_and_gradients_are_those_of_float64(form, with_bias, rows):
    hidden, weight, bias, targets, slopes = problem()
    inputs = (hidden, weight, bias) if with_bias else (hidden, weight)
    head, options = Head(weight, bias if with_bias else None, **form), {"chunk_bytes": rows * 4 * VOCABULARY}

    exact = [t.detach().double().requires_grad_() for t in inputs]
    logits = form.get("scale", 1.0) * (exact[0] @ exact[1].t() + (exact[2] if with_bias else 0))
    if "softcap" in form:
        logits = form["softcap"] * torch.tanh(logits / form["softcap"])
    log_probs = logits.log_softmax(-1)
    logps = log_probs.gather(1, targets[:, None])[:, 0]
    expected = torch.autograd.grad((slopes * logps).sum(), exact)

    scores = fused_logps(hidden, head, targets, entropy=True, **options)
    loss, loss_logps = fused_loss(hidden, head, targets, lambda part, _: slopes[part], **options)
    close = partial(torch.testing.assert_close, rtol=TOLERANCE, atol=TOLERANCE, check_dtype=False)
    close(scores.logps, logps)
    close(loss_logps, logps)
    close(loss, (slopes * logps).sum())
    close(scores.logits, logits.gather(1, targets[:, None])[:, 0])
    close(scores.entropy, -(log_probs.exp() * log_probs).sum(-1))
    for value in ((slopes * scores.logps).sum(), loss):
        for one, other in zip(torch.autograd.grad(value, inputs), expected, strict=True):
            assert (one - other).norm() < TOLERANCE * other.norm()


def test_the_gradient_of_bnf_in_float32_is_that_of_the_literal_eq_4_in_float64():
    """Section 3: one slope per token stands for the cross-entropy against a target over the whole vocabulary."""
    batch = random_batch()
    generator = torch.Generator().manual_seed(5)
    weight = torch.randn(13, 13, generator=generator, dtype=torch.float64)
    hidden = torch.linalg.solve(weight, batch.logits.detach().flatten(0, 1).t()).t().float().double()
    weight = weight.float().double().requires_grad_()
    hidden.requires_grad_()
    logits = (hidden @ weight.t()).view_as(batch.logits)
    exact = eq4_loss(logits, batch.ref_logits, batch.tokens, batch.mask, batch.label)
    expected = torch.autograd.grad(exact.sum(), [hidden, weight])

    scored = batch.mask.flatten()
    ref_logps = batch.completions().reference().flatten()[scored].float()
    coefficient = torch.where(batch.label, -1.0, 1.0) / batch.mask.sum(-1)  # -label(y) / |y|
    coefficient = coefficient[:, None].expand(batch.mask.shape).flatten()[scored]
    h, w = (t.detach().float().requires_grad_() for t in (hidden, weight))
    loss, _ = fused_loss(
        h[scored],
        Head(w),
        batch.tokens.flatten()[scored],
        lambda part, logps: coefficient[part] * bnf_weights(logps, ref_logps[part]),
        chunk_bytes=4 * 13 * 4,
    )
    for one, other in zip(torch.autograd.grad(loss, [h, w]), expected, strict=True):
        assert (one - other).norm() < TOLERANCE * other.norm()


def test_a_token_whose_probability_rounds_to_one_has_a_finite_gradient():
    """Where Appendix B divides 0 by 0."""
    hidden = torch.eye(3).requires_grad_()
    weight = (200 * torch.eye(3)).requires_grad_()
    ref_logps = torch.zeros(3)
    loss, logps = fused_loss(
        hidden, Head(weight), torch.arange(3), lambda part, logps: -bnf_weights(logps, ref_logps[part])
    )
    loss.backward()
    assert torch.equal(logps, torch.zeros(3))
    assert (hidden.grad == 0).all()
    assert (weight.grad == 0).all()


# ----------------------------------------------------------------------------------------------- matmuls and memory


class Watch(TorchDispatchMode):
    """Counts multiplications of matmuls, in-place ones too, and remembers the largest tensor that appeared."""

    def __init__(self):
        super().__init__()
        self.multiplications = self.largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        operands = {"mm": args[:2], "bmm": args[:2], "addmm": args[1:3], "addmm_": args[1:3]}
        name = func._schema.name.removeprefix("aten::")
        if name in operands:
            left, right = operands[name]
            self.multiplications += left.numel() * right.shape[-1]
        for value in result if isinstance(result, tuple | list) else [result]:
            if isinstance(value, torch.Tensor):
                self.largest = max(self.largest, value.numel())
        return result


def bnf_slopes(part, logps):
    return -bnf_weights(logps, torch.full_like(logps, -3.0))


def sft_slopes(part, logps):
    return torch.full_like(logps, -1.0)


@pytest.mark.parametrize(
    ("run", "matmuls", "frozen"),
    [
        (lambda h, w, y: fused_loss(h, Head(w), y, bnf_slopes)[0].backward(), 3, 2),
        (lambda h, w, y: fused_loss(h, Head(w), y, sft_slopes)[0].backward(), 3, 2),
        (lambda h, w, y: fused_logps(h, Head(w), y).logps.sum().backward(), 4, 3),
        (torch.no_grad()(lambda h, w, y: fused_loss(h, Head(w), y, bnf_slopes)), 1, 1),
        (torch.no_grad()(lambda h, w, y: fused_logps(h, Head(w), y, entropy=True)), 1, 1),
        (torch.inference_mode()(lambda h, w, y: fused_logps(h, Head(w), y)), 1, 1),
    ],
    ids=["bnf", "sft", "log-probabilities", "bnf, no gradients", "log-probabilities, no gradients", "inference"],
)
def test_number_of_matmuls(run, matmuls, frozen):
    hidden, weight, _, targets, _ = problem()
    for count in (matmuls, frozen):
        with Watch() as watch:
            run(hidden, weight, targets)
        assert watch.multiplications == count * hidden.numel() * VOCABULARY
        weight.requires_grad_(False)


def test_a_step_of_bnf_multiplies_exactly_as_much_as_one_of_sft():
    counts = set()
    for loss in ("bnf", "sft", "nll_pll"):
        with Watch() as watch:
            step(tiny_llama(VOCABULARY), "fused", loss)
        counts.add(watch.multiplications)
    assert len(counts) == 1


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_no_tensor_grows_with_tokens_times_vocabulary(softcap):
    width, chunk = 2, 4 * VOCABULARY
    for count in (20, 200):
        hidden, weight, _, targets, _ = problem(count, width)
        with Watch() as watch:
            head = Head(weight, softcap=softcap)
            fused_loss(hidden, head, targets, bnf_slopes)[0].backward()
            fused_logps(hidden, head, targets, entropy=True).logps.sum().backward()
        assert watch.largest == max(chunk, VOCABULARY * width, count * width)


# ---------------------------------------------------------------------------------------------------- half precision


def test_bfloat16_weights_are_multiplied_exactly_and_no_logit_is_rounded():
    hidden, weight, _, targets, slopes = problem(dtype=torch.bfloat16)
    h, w = (t.detach().float().requires_grad_() for t in (hidden, weight))
    loss, logps = fused_loss(hidden, Head(weight), targets, lambda part, _: slopes[part])
    expected, expected_logps = fused_loss(h, Head(w), targets, lambda part, _: slopes[part])
    assert logps.dtype == loss.dtype == torch.float32
    assert torch.equal(logps, expected_logps)
    assert torch.equal(fused_logps(hidden, Head(weight), targets).logps, expected_logps)
    loss.backward()
    expected.backward()
    for one, other in ((hidden, h), (weight, w)):
        assert one.grad.dtype == torch.bfloat16
        assert torch.equal(one.grad, other.grad.bfloat16())


def test_under_autocast_the_head_is_that_of_operands_rounded_to_bfloat16():
    hidden, weight, bias, targets, _ = problem()
    with torch.autocast("cpu", torch.bfloat16):
        loss, logps = fused_loss(hidden, Head(weight, bias), targets, bnf_slopes)
        again = fused_logps(hidden, Head(weight, bias), targets).logps
    rounded = [t.detach().bfloat16().float().requires_grad_() for t in (hidden, weight, bias)]
    expected, expected_logps = fused_loss(rounded[0], Head(*rounded[1:]), targets, bnf_slopes)
    assert torch.equal(logps, expected_logps)
    assert torch.equal(again, expected_logps)
    loss.backward()
    expected.backward()
    for one, other in zip((hidden, weight, bias), rounded, strict=True):
        assert one.grad.dtype == torch.float32
        assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("name", ["llama", "llama, tied", "gemma 2, tied"])
def test_a_model_in_bfloat16_has_the_logits_gradient_up_to_their_rounding(name):
    model = MODELS[name]().bfloat16()
    value, call, grad = step(model, "fused")
    expected_value, _, expected_grad = step(model, "logits")
    assert call.completions.logps.dtype == value.dtype == torch.float32
    # The model rounds each logit and its gradient to bfloat16, the head neither; the layers round what they pass on.
    bound = roundings(8, torch.bfloat16)
    torch.testing.assert_close(value, expected_value, rtol=bound, atol=bound)
    assert relative_difference(grad, expected_grad) < bound


def test_float16_is_refused_with_its_reason():
    hidden, weight, _, targets, _ = problem()
    with pytest.raises(BadInput, match="float16"):
        fused_logps(hidden.half(), Head(weight.half()), targets)
    with torch.autocast("cpu", torch.float16), pytest.raises(BadInput, match="underflow"):
        fused_loss(hidden, Head(weight), targets, bnf_slopes)


# ------------------------------------------------------------------------------------------------ misuse is refused


def test_a_second_backward_pass_is_refused():
    hidden, weight, _, targets, _ = problem()
    loss, _ = fused_loss(hidden, Head(weight), targets, bnf_slopes)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="second backward pass"):
        loss.backward()


@pytest.mark.parametrize("loss", ["bnf", "dpo"])
def test_a_second_derivative_is_refused(loss):
    model, batch = tiny_llama(VOCABULARY), token_batch()
    attach(model)
    with pytest.raises(RuntimeError, match="no second derivative"):
        answer(model, call_for(loss, batch), batch).backward(create_graph=True)


class QuantisedHead(nn.Linear):
    """A head as 4-bit quantisation leaves it: bytes, two numbers in each."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, bias=False)
        self.weight = nn.Parameter(torch.zeros(inputs * outputs // 2, 1, dtype=torch.uint8), requires_grad=False)


def with_quantised_head() -> nn.Module:
    model = tiny_llama(VOCABULARY)
    model.lm_head = QuantisedHead(32, VOCABULARY)
    return model


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: with_lora(tiny_llama(VOCABULARY), ["q_proj", "lm_head"]), "has an adapter"),
        (lambda: with_lora(tiny_llama(VOCABULARY), trainable_token_indices={"lm_head": [1, 2]}), "has an adapter"),
        (with_quantised_head, "is quantised"),
    ],
    ids=["lora", "trained tokens", "quantised"],
)
def test_a_head_that_is_more_than_a_weight_is_refused(make, reason):
    with pytest.raises(BadInput, match=reason):
        attach(make())


def test_an_adapter_put_on_the_head_later_is_refused_at_the_call_and_the_logits_take_it():
    model, batch = tiny_llama(VOCABULARY), token_batch()
    attach(model)
    model = with_lora(model, ["lm_head"])
    with pytest.raises(BadInput, match="has an adapter"):
        answer(model, call_for("bnf", batch), batch)
    attach(model, "logits")
    answer(model, call_for("bnf", batch), batch).backward()
    assert all(p.grad.norm() > 0 for p in model.parameters() if p.requires_grad)


class TwiceLlama(LlamaForCausalLM):
    """A model that does something to its logits which no config says."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = 2 * output.logits
        return output


def test_a_model_whose_logits_are_not_those_of_its_head_is_refused_unless_it_answers_by_its_logits():
    model, batch = TwiceLlama(tiny_llama(VOCABULARY).config).train(), token_batch()
    with pytest.raises(BadInput, match="TwiceLlama's own logits"):
        attach(model)
    assert model.training
    attach(model, check=False)
    attach(model, "logits")
    logps = answer(model, HeadCall(batch), batch)
    expected = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.log_softmax(-1)
    torch.testing.assert_close(logps[0, 1], expected[0, 0, batch["input_ids"][0, 1]])


class PaddedLlama(LlamaForCausalLM):
    """A model that gives half of its vocabulary no probability, as some do with the rows that pad their embedding."""

    def forward(self, *args, **kwargs):
        output = super().forward(*args, **kwargs)
        output.logits = output.logits.index_fill(-1, torch.arange(30, VOCABULARY), -torch.inf)
        return output


def test_logits_of_minus_infinity_do_not_excuse_a_difference():
    with pytest.raises(BadInput, match=r"PaddedLlama's own logits by up to \d.*--head logits"):
        attach(PaddedLlama(tiny_llama(VOCABULARY).config))


def tiny_llama4() -> nn.Module:
    """transformers gives its body another name than its class says, so it passes for its own body."""
    sizes = {**SIZES, "head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 64}
    return Llama4ForCausalLM(Llama4TextConfig(vocab_size=VOCABULARY, **sizes)).eval()


def test_a_model_that_passes_for_its_own_body_is_refused_and_answers_by_its_logits():
    model, batch = tiny_llama4(), token_batch()
    assert model.base_model is model
    refused = partial(pytest.raises, BadInput, match=r"no body in Llama4ForCausalLM.*'language_model'.*--head logits")
    with refused():
        attach(model)
    attach(model, check=False)
    with refused():
        answer(model, call_for("bnf", batch), batch)
    attach(model, "logits")
    answer(model, call_for("bnf", batch), batch).backward()
    assert model.lm_head.weight.grad.norm() > 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_named_and_no_other_head_is_recommended(value):
    model = tiny_llama(VOCABULARY)
    with torch.no_grad():
        for weight in (model.model.layers[1].mlp.up_proj.weight, model.lm_head.weight):
            weight[3, 5] = value
    with pytest.raises(BadInput) as refused:
        attach(model)
    said, count = str(refused.value), len(list(model.parameters()))
    assert f"2 of its {count} parameters hold NaN or infinite values, model.layers.1.mlp.up_proj.weight first" in said
    assert "--head" not in said


def test_finite_weights_whose_numbers_overflow_are_told_from_spoiled_ones():
    model = tiny_llama(VOCABULARY)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight.fill_(3e38)
    with pytest.raises(BadInput, match=r"not finite. Its weights are: its numbers leave the range of torch.float32"):
        attach(model)


# --------------------------------------------------------------------------------------- the model remains a model


def test_attaching_changes_nothing_but_the_answer_to_a_head_call():
    model, batch = tiny_llama(VOCABULARY), token_batch()
    before, signature = {k: v.clone() for k, v in model.state_dict().items()}, inspect.signature(model.forward)
    generate = partial(model.generate, batch["input_ids"][:1], max_new_tokens=5, do_sample=False, pad_token_id=0)
    logits, text = model(batch["input_ids"]).logits, generate()
    attach(model.train())
    assert model.training
    model.eval()
    assert inspect.signature(model.forward) == signature
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(model(batch["input_ids"]).logits, logits)
    assert torch.equal(generate(), text)


def test_a_deep_copy_answers_with_its_own_weights():
    model, batch = tiny_llama(VOCABULARY), token_batch()
    attach(model)
    logits, logps = model(batch["input_ids"]).logits, answer(model, HeadCall(batch), batch)
    clone = perturbed(copy.deepcopy(model), scale=1.0)
    assert (clone(batch["input_ids"]).logits - logits).abs().max() > 0.1
    assert (answer(clone, HeadCall(batch), batch) - logps).abs().max() > 0.1
    assert torch.equal(answer(model, HeadCall(batch), batch), logps)


def test_without_its_adapter_a_model_answers_as_its_base():
    model, batch = tiny_llama(VOCABULARY), token_batch()
    attach(model)
    expected = answer(model, HeadCall(batch), batch).detach()
    adapted = with_lora(model, modules_to_save=["lm_head"])
    with torch.no_grad():
        adapted.get_base_model().lm_head.weight.mul_(1.5)
    assert (answer(adapted, HeadCall(batch), batch) - expected).abs().max() > 0.1
    with adapted.disable_adapter():
        torch.testing.assert_close(answer(adapted, HeadCall(batch), batch), expected)


def test_weights_that_are_not_there_yet_are_not_compared():
    with torch.device("meta"):
        model = LlamaForCausalLM(tiny_llama(VOCABULARY).config)
    attach(model)


# ------------------------------------------------------------------------------------------------------------ FSDP2

SHARDED = {
    "untied": {},
    "tied": {"tie_word_embeddings": True},
    "head as its own unit": {},
}


def shard(model: nn.Module, name: str, policy: MixedPrecisionPolicy) -> None:
    units = [*model.model.layers, *([model.lm_head] if name == "head as its own unit" else []), model]
    for unit in units:
        fully_shard(unit, mp_policy=policy)


def fsdp_process(rank: int, folder: str) -> None:
    """One of two processes: each has two of four rows; rank 0 saves the gradients."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    whole, results = token_batch(), {}
    rows = torch.tensor([rank, rank + 2])  # a chosen one and its rejected one
    batch = {key: value[rows] for key, value in whole.items()}
    for name, config in SHARDED.items():
        for loss in ("bnf", "dpo"):
            model = tiny_llama(VOCABULARY, **config)
            attach(model)
            shard(model, name, MixedPrecisionPolicy())
            call = call_for(loss, batch)
            (2 * answer(model, call, batch)).backward()  # ranks average
            assert all(isinstance(p, DTensor) and isinstance(p.grad, DTensor) for p in model.parameters())
            results[name, loss] = {key: p.grad.full_tensor() for key, p in model.named_parameters()}
        model = tiny_llama(VOCABULARY, **config)
        attach(model)
        shard(model, name, MixedPrecisionPolicy(param_dtype=torch.bfloat16, output_dtype=torch.bfloat16))
        call = call_for("bnf", batch)
        answer(model, call, batch).backward()
        assert torch.equal(call.completions.reference(), batch["ref_logps"])
        scored = call.completions.logps[batch["completion_mask"]]
        assert scored.dtype == torch.float32
        assert not torch.equal(scored, scored.bfloat16().float())
    if rank == 0:
        torch.save(results, f"{folder}/results.pt")
    end_here()


@pytest.mark.golden
def test_two_fsdp2_processes_have_the_gradient_of_one_and_round_nothing(tmp_path):
    processes = mp.start_processes(fsdp_process, (str(tmp_path),), nprocs=2, join=False, start_method="spawn")
    deadline = time.monotonic() + 600  # what goes wrong under FSDP hangs
    try:
        while not processes.join(timeout=5):  # raises if one fails
            assert time.monotonic() < deadline
    finally:
        for process in processes.processes:
            process.kill()
    for (name, loss), grad in torch.load(tmp_path / "results.pt", weights_only=True).items():
        expected = step(tiny_llama(VOCABULARY, **SHARDED[name]), "logits", loss)[2]
        assert relative_difference(grad, expected) < TOLERANCE, (name, loss)
