"""Before the first optimizer step the policy is the reference, or training stops: each way they can part."""

import pytest
import torch
from peft import LoraConfig, get_peft_model

from bnf_align import BadInput
from bnf_align.reference import compute
from bnf_align.reference.step0 import StepZero, tolerance_of
from runs import make_trainer, pairs, singles
from tiny_nets import perturbed, tiny_gemma2, tiny_llama

LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


def adapted(alpha: int, dropout: float = 0.0):
    torch.manual_seed(0)
    model = get_peft_model(tiny_llama(258), LoraConfig(**LORA, lora_alpha=alpha, lora_dropout=dropout))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter += 0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize("loss_type", ["bnf", "kto", "dpo"])
@pytest.mark.parametrize("budget", [10**6, 60])
def test_a_policy_that_is_not_the_reference_stops_before_its_weights_move(tmp_path, loss_type, budget):
    trainer = make_trainer(tmp_path, pairs(6), loss_type=loss_type, max_tokens_per_micro_batch=budget)
    perturbed(trainer.model, 0.05)
    before = {name: weight.clone() for name, weight in trainer.model.state_dict().items()}
    with pytest.raises(
        BadInput, match=r"Before step 1 the policy is not the reference.*differ in evaluation mode too"
    ):
        trainer.train()
    assert all(torch.equal(weight, before[name]) for name, weight in trainer.model.state_dict().items())


def test_the_message_states_what_was_measured(tmp_path):
    trainer = make_trainer(tmp_path, singles(6))
    reference = trainer.train_dataset.responses.ref_logps
    scored = len(reference)
    trainer.train_dataset.responses.ref_logps = reference + 0.25  # every log-ratio is -0.25
    with pytest.raises(BadInput) as raised:
        trainer.train()
    assert f"{scored} scored tokens of process 0" in str(raised.value)
    assert "mean |log-ratio| is 0.25 nats (rounding explains 0.001)" in str(raised.value)
    assert "namespace " + trainer.prepared.reference.namespace in str(raised.value)


def test_dropout_that_the_switch_does_not_find_is_named(tmp_path):
    model = tiny_llama(258)
    attention = model.model.layers[0].mlp.forward
    trainer = make_trainer(tmp_path, singles(6), model=model)
    model.model.layers[0].mlp.forward = lambda hidden: torch.nn.functional.dropout(
        attention(hidden), 0.3, training=model.training
    )
    with pytest.raises(BadInput, match="something is random in training mode, such as a dropout"):
        trainer.train()


def test_dropout_that_was_asked_for_is_no_reason_to_stop_but_a_wrong_reference_is(tmp_path):
    def trainer():
        model = tiny_llama(258, attention_dropout=0.3)
        return make_trainer(tmp_path, singles(6), model=model, disable_dropout=False)

    trainer().train()
    wrong = trainer()
    perturbed(wrong.model, 0.05)
    with pytest.raises(BadInput, match="differ in evaluation mode too"):
        wrong.train()


def test_the_check_can_be_switched_off_by_name(tmp_path):
    trainer = make_trainer(tmp_path, singles(6), check_step_0=False)
    perturbed(trainer.model, 0.05)
    trainer.train()
    assert trainer.state.global_step == 1


def test_values_of_another_model_in_the_cache_are_noticed(tmp_path, monkeypatch):
    """A namespace that forgets something is what the check is the net for."""
    monkeypatch.setattr(compute, "namespace_of", lambda model, **_: {"everything": "the same"})
    make_trainer(tmp_path, singles(6), model=adapted(8))
    trainer = make_trainer(tmp_path, singles(6), model=adapted(64))
    assert trainer.prepared.reference.computed_tokens == 0
    with pytest.raises(BadInput, match=r"from the cache, 0 computed now"):
        trainer.train()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bf16": True, "use_cpu": True},
        {"packing": True},
        {"packing": True, "bf16": True, "use_cpu": True},
        {"head": "logits"},
        {"gradient_checkpointing": True},
        {"max_tokens_per_micro_batch": 40},
        {"max_tokens_per_micro_batch": 40, "bf16": True, "use_cpu": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["llama", "gemma2", "bfloat16 weights", "fresh adapter", "continued adapter"])
def test_rounding_alone_stops_no_run(tmp_path, options, kind):
    fresh = {"peft_config": LoraConfig(**LORA, lora_dropout=0.1)} if kind == "fresh adapter" else {}
    model = {
        "gemma2": lambda: tiny_gemma2(258),
        "bfloat16 weights": lambda: tiny_llama(258).bfloat16(),
        "continued adapter": lambda: adapted(8),
    }.get(kind, lambda: tiny_llama(258))()
    trainer = make_trainer(tmp_path, [*pairs(6), *singles(6)], model=model, **fresh, **options)
    trainer.train()
    assert trainer.state.global_step == 1


def test_rounding_of_one_side_alone_is_caught(tmp_path):
    """A float32 reference under a bfloat16 policy: 0.08 nats here, a hundred times that of rounding both sides."""
    trainer = make_trainer(tmp_path, singles(24), model=tiny_llama(258, initializer_range=0.6))
    exact = trainer.train_dataset.responses.ref_logps
    rounded = make_trainer(
        tmp_path, singles(24), model=tiny_llama(258, initializer_range=0.6), bf16=True, use_cpu=True
    )
    rounded.train_dataset.responses.ref_logps = exact
    with pytest.raises(BadInput, match="policy is not the reference"):
        rounded.train()


def test_sums_of_step_zero_hold_within_the_tolerance_and_never_where_something_is_nan():
    assert StepZero(10, 10 * 0.9e-3, 10, 10).holds(1e-3)
    assert not StepZero(10, 10 * 1.1e-3, 10, 10).holds(1e-3)
    assert StepZero(10, 0, 10, 10 * (1 - 1.9e-3)).holds(1e-3)
    assert not StepZero(10, 0, 10, 10 * (1 - 2.1e-3)).holds(1e-3)
    assert not StepZero(10, float("nan"), 10, 10).holds(1e-3)
    assert not StepZero(10, 0, 10, float("nan")).holds(1e-3)
    assert StepZero(0, 0, 0, 0).holds(1e-3)  # a process without a share of the step


def test_the_tolerance_follows_from_the_dtype():
    assert tolerance_of(torch.float32) == tolerance_of(torch.float64) == 1e-3
    assert tolerance_of(torch.bfloat16) == 4 * 2**-8
