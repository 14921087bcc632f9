"""The reference pass: right values, computed once per content, and never stale."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from bnf_align.fingerprint import weights_hash
from rounding import ROUNDING
from runs import make_trainer, pairs, singles
from tiny_models import chatml_tokenizer, plain_tokenizer
from tiny_nets import perturbed, tiny_llama

LORA = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def tokens(trainer) -> tuple[int, int]:
    """(computed, cached) reference tokens."""
    report = trainer.prepared.reference
    return report.computed_tokens, report.cached_tokens


def test_every_value_is_the_log_probability_of_its_own_token_under_the_starting_weights(tmp_path):
    trainer = make_trainer(tmp_path, [*pairs(4), *singles(5)], max_tokens_per_micro_batch=70)
    responses = trainer.train_dataset.responses
    for row in range(len(responses)):
        ids = torch.tensor(responses.tokens(row).astype(np.int64))
        with torch.no_grad():
            logps = tiny_llama(258)(input_ids=ids[None]).logits[0].log_softmax(-1)
        scored = np.flatnonzero(responses.mask(row))
        expected = [float(logps[i - 1, ids[i]]) for i in scored]
        assert responses.reference(row) == pytest.approx(expected, rel=ROUNDING, abs=ROUNDING)


def test_a_second_run_computes_nothing_and_trains_the_same(tmp_path):
    first = make_trainer(tmp_path, singles(12), max_steps=3, batch_size=4)
    second = make_trainer(tmp_path, singles(12), max_steps=3, batch_size=4)
    computed, cached = tokens(first)
    assert computed > 0
    assert tokens(second) == (0, computed + cached)
    first.train(), second.train()
    for a, b in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 0.5},
        {"output_dir": "elsewhere"},
        {"batch_size": 3},
        {"seed": 7},
        {"num_train_epochs": 9},
        {"max_tokens_per_micro_batch": 50},
        {"loss_type": "kto"},
        {"disable_dropout": False},
        {"max_length": 100},
    ],
)
def test_what_does_not_change_the_reference_computes_nothing(tmp_path, change):
    make_trainer(tmp_path, singles(8), loss_type="kto")
    if "output_dir" in change:
        change = {"output_dir": str(tmp_path / "elsewhere")}
    if "loss_type" in change:
        change = {"loss_type": "bnf"}
        assert tokens(make_trainer(tmp_path, singles(8), **change))[0] == 0
    else:
        assert tokens(make_trainer(tmp_path, singles(8), loss_type="kto", **change))[0] == 0


def test_appended_rows_are_the_only_ones_computed(tmp_path):
    make_trainer(tmp_path, singles(8))
    grown = make_trainer(tmp_path, [*singles(8), {"prompt": "new ", "completion": "abc", "label": True}])
    assert tokens(grown)[0] == len("abc") + 1  # and the end token


def test_a_repeated_response_is_computed_once_and_counts_as_cached(tmp_path):
    row = {"prompt": "again ", "completion": "abcde", "label": True}
    assert tokens(make_trainer(tmp_path, [row, row, row])) == (6, 12)


def test_training_and_evaluation_rows_together_are_all_scored_tokens(tmp_path):
    rows, held = singles(8), pairs(3)
    computed, cached = tokens(make_trainer(tmp_path, rows, eval_rows=held))
    texts = [row["completion"] for row in rows] + [row[side] for row in held for side in ("chosen", "rejected")]
    assert computed + cached == sum(len(text) + 1 for text in texts)


def miss(tmp_path, trainer) -> bool:
    computed, cached = tokens(trainer)
    return computed > 0 and cached == 0


def test_other_weights_are_a_miss(tmp_path):
    make_trainer(tmp_path, singles(6))
    changed = tiny_llama(258)
    with torch.no_grad():
        changed.model.norm.weight[3] += 1e-3
    assert miss(tmp_path, make_trainer(tmp_path, singles(6), model=changed))


def test_another_dtype_is_a_miss(tmp_path):
    make_trainer(tmp_path, singles(6))
    assert miss(tmp_path, make_trainer(tmp_path, singles(6), model=tiny_llama(258).bfloat16()))


def test_autocast_is_a_miss(tmp_path):
    make_trainer(tmp_path, singles(6))
    assert miss(tmp_path, make_trainer(tmp_path, singles(6), bf16=True, use_cpu=True))


def test_another_head_is_a_miss(tmp_path):
    make_trainer(tmp_path, singles(6))
    assert miss(tmp_path, make_trainer(tmp_path, singles(6), head="logits"))


def test_another_attention_is_a_miss(tmp_path):
    make_trainer(tmp_path, singles(6))
    assert miss(tmp_path, make_trainer(tmp_path, singles(6), model=tiny_llama(258, attn_implementation="eager")))


def test_a_config_that_changes_the_forward_pass_is_a_miss(tmp_path):
    make_trainer(tmp_path, singles(6))
    assert miss(tmp_path, make_trainer(tmp_path, singles(6), model=tiny_llama(258, rms_norm_eps=1e-3)))


def test_a_length_that_cuts_tokens_misses_for_the_cut_rows_alone(tmp_path):
    rows = [{"prompt": "p", "completion": "a" * n, "label": True} for n in (4, 30)]
    make_trainer(tmp_path, rows)
    assert tokens(make_trainer(tmp_path, rows, max_length=11)) == (10, 5)


def chat(text: str) -> list[dict]:
    return [
        {
            "prompt": [{"role": "user", "content": "hello"}],
            "completion": [{"role": "assistant", "content": text}],
            "label": True,
        }
    ]


def test_another_template_or_tokenizer_is_a_miss(tmp_path, monkeypatch):
    import runs

    tokenizer = chatml_tokenizer()
    model = tiny_llama(len(tokenizer))
    monkeypatch.setattr(runs, "plain_tokenizer", lambda: tokenizer)
    make_trainer(tmp_path, chat("hi"), model=model)
    assert tokens(make_trainer(tmp_path, chat("hi"), model=model))[0] == 0

    tokenizer.chat_template = tokenizer.chat_template.replace("assistant\\n", "assistant \\n")
    changed = chatml_tokenizer()
    changed.chat_template = changed.chat_template.replace("<|im_end|>", "<|endoftext|>")
    monkeypatch.setattr(runs, "plain_tokenizer", lambda: changed)
    assert miss(tmp_path, make_trainer(tmp_path, chat("hi"), model=model))


# ------------------------------------------------------------------------------------------------------- LoRA


def test_the_reference_of_a_fresh_adapter_is_the_base_and_is_shared_with_full_training(tmp_path):
    full = make_trainer(tmp_path, singles(6))
    fresh = make_trainer(tmp_path, singles(6), peft_config=LORA)
    assert tokens(fresh)[0] == 0
    assert fresh.prepared.reference.namespace == full.prepared.reference.namespace


def continued(seed: int) -> PeftModel:
    torch.manual_seed(0)
    model = get_peft_model(tiny_llama(258), LORA)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    return model


def test_the_reference_of_a_continued_adapter_is_its_own_starting_weights(tmp_path):
    make_trainer(tmp_path, singles(6))
    adapted = make_trainer(tmp_path, singles(6), model=continued(1))
    assert miss(tmp_path, adapted)
    assert miss(tmp_path, make_trainer(tmp_path, singles(6), model=continued(2)))
    adapted.train()
    assert adapted.state.log_history[0]["bnf/weight"] == pytest.approx(1, abs=ROUNDING)
    assert tokens(make_trainer(tmp_path, singles(6), model=continued(1)))[0] == 0


# ----------------------------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize("seconds", [0.0, 3600.0], ids=["every micro-batch is written at once", "only what is left"])
def test_a_pass_that_was_broken_off_goes_on_where_it_stopped(tmp_path, monkeypatch, seconds):
    from bnf_align.reference.cache import namespaces
    from bnf_align.training import reference

    monkeypatch.setattr(reference, "SECONDS_PER_SHARD", seconds)
    forward, calls = reference._ReferencePass._forward, []

    def killed(self, rows):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(rows)
        return forward(self, rows)

    monkeypatch.setattr(reference._ReferencePass, "_forward", killed)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, singles(12), max_tokens_per_micro_batch=80)
    monkeypatch.setattr(reference._ReferencePass, "_forward", forward)
    kept = namespaces(tmp_path / "cache")[0].tokens
    resumed = make_trainer(tmp_path, singles(12), max_tokens_per_micro_batch=80)
    computed = tokens(resumed)[0]
    assert kept > 0
    assert computed > 0
    assert computed + kept == sum(
        {row["prompt"] + row["completion"]: len(row["completion"]) + 1 for row in singles(12)}.values()
    )


def test_a_reference_that_only_the_main_process_could_compute_is_asked_for_beforehand(tmp_path, monkeypatch):
    from bnf_align import BadInput

    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    with pytest.raises(BadInput, match=r"8 responses have no reference yet.*bnf-align reference build"):
        make_trainer(tmp_path, singles(8))


def test_a_failed_pass_leaves_the_model_in_training_mode(tmp_path, monkeypatch):
    from bnf_align.training import reference

    model = tiny_llama(258).train()
    monkeypatch.setattr(reference._ReferencePass, "_forward", lambda self, rows: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_trainer(tmp_path, singles(4), model=model)
    assert model.training


def test_the_weights_hash_sees_every_weight_and_no_name_of_a_folder():
    base = weights_hash(tiny_llama(258))
    assert weights_hash(tiny_llama(258)) == base
    assert weights_hash(tiny_llama(258, seed=1)) != base
    assert weights_hash(perturbed(tiny_llama(258), 1e-4)) != base
    assert weights_hash(tiny_llama(258).bfloat16()) != base


def test_plain_tokenizer_has_the_vocabulary_of_the_tiny_model():
    assert len(plain_tokenizer()) == 258
