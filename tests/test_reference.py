"""The reference pass: right values, computed once per content, and never stale."""

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from bnf_align import BadInput
from bnf_align.fingerprint import namespace_of, weights_hash
from rounding import ROUNDING
from runs import make_trainer, pairs, singles
from tiny_models import chatml_tokenizer, plain_tokenizer
from tiny_nets import perturbed, tiny_llama

LORA_SETTINGS = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
LORA = LoraConfig(**LORA_SETTINGS)


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


@pytest.mark.parametrize("theta", [1e3, 5e5])
def test_other_rotary_positions_are_a_miss(tmp_path, theta):
    """RoPE is in no weight: its base and its scaling are settings alone."""
    make_trainer(tmp_path, singles(6))
    rope = {"rope_type": "default", "rope_theta": theta}
    assert miss(tmp_path, make_trainer(tmp_path, singles(6), model=tiny_llama(258, rope_parameters=rope)))
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    assert miss(tmp_path, make_trainer(tmp_path, singles(6), model=tiny_llama(258, rope_parameters=scaled)))


def adapted(weights_seed: int = 1, **config) -> PeftModel:
    """An adapter whose weights depend on the seed alone, whatever its configuration."""
    torch.manual_seed(0)
    model = get_peft_model(tiny_llama(258), LoraConfig(**{**LORA_SETTINGS, **config}))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter += torch.randn(parameter.shape, generator=torch.Generator().manual_seed(weights_seed))
    return model


@pytest.mark.parametrize(
    "change", [{"lora_alpha": 64}, {"use_rslora": True}, {"alpha_pattern": {"q_proj": 32}}], ids=str
)
def test_the_same_adapter_weights_under_another_configuration_are_a_miss(tmp_path, change):
    make_trainer(tmp_path, singles(6), model=adapted())
    other = make_trainer(tmp_path, singles(6), model=adapted(**change))
    assert miss(tmp_path, other)
    other.train()  # step 0 holds


def test_another_active_adapter_is_a_miss(tmp_path):
    def two(active: str) -> PeftModel:
        model = adapted()
        torch.manual_seed(3)
        model.add_adapter("second", LoraConfig(**LORA_SETTINGS, init_lora_weights=False))
        model.set_adapter(active)
        return model

    make_trainer(tmp_path, singles(6), model=two("default"))
    assert miss(tmp_path, make_trainer(tmp_path, singles(6), model=two("second")))
    assert tokens(make_trainer(tmp_path, singles(6), model=two("second")))[0] == 0


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_another_version_of_what_computes_is_a_miss(tmp_path, monkeypatch, package):
    from bnf_align import fingerprint

    make_trainer(tmp_path, singles(6))
    installed = fingerprint.version
    monkeypatch.setattr(fingerprint, "version", lambda name: "99.0" if name == package else installed(name))
    assert miss(tmp_path, make_trainer(tmp_path, singles(6)))


@pytest.mark.parametrize(
    "change",
    [
        {"device": "cuda"},
        {"sharded": True},
        {"autocast": None},
        {"packing": True},
        {"head": "logits"},
        {"autocast": torch.float16},
    ],
    ids=str,
)
def test_each_way_to_run_a_forward_pass_has_its_own_namespace(change):
    ways = {"autocast": torch.bfloat16, "head": "fused", "packing": False, "device": "cpu", "sharded": False}
    model = tiny_llama(258)
    assert namespace_of(model, **ways) == namespace_of(tiny_llama(258), **ways)
    assert namespace_of(model, **ways) != namespace_of(model, **{**ways, **change})


def test_the_order_of_target_modules_is_no_setting():
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "up_proj"]
    found = []
    for order in (names, names[::-1]):
        torch.manual_seed(0)
        model = get_peft_model(tiny_llama(258), LoraConfig(**{**LORA_SETTINGS, "target_modules": order}))
        found.append(namespace_of(model, autocast=None, head="fused")["adapters"])
    assert found[0] == found[1]


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


def test_the_reference_of_a_continued_adapter_is_its_own_starting_weights(tmp_path):
    make_trainer(tmp_path, singles(6))
    first = make_trainer(tmp_path, singles(6), model=adapted(1))
    assert miss(tmp_path, first)
    assert miss(tmp_path, make_trainer(tmp_path, singles(6), model=adapted(2)))
    first.train()
    assert first.state.log_history[0]["bnf/weight"] == pytest.approx(1, abs=ROUNDING)
    assert tokens(make_trainer(tmp_path, singles(6), model=adapted(1)))[0] == 0


# ----------------------------------------------------------------------------------------------- interruptions


@pytest.mark.parametrize("seconds", [0.0, 3600.0], ids=["every micro-batch is written at once", "only what is left"])
def test_a_pass_that_was_broken_off_goes_on_where_it_stopped(tmp_path, monkeypatch, seconds):
    from bnf_align.reference import compute
    from bnf_align.reference.cache import namespaces

    monkeypatch.setattr(compute, "SECONDS_PER_SHARD", seconds)
    forward, calls = compute.Forward.__call__, []

    def killed(self, model, responses, rows):
        if len(calls) == 2:
            raise KeyboardInterrupt
        calls.append(rows)
        return forward(self, model, responses, rows)

    monkeypatch.setattr(compute.Forward, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path, singles(12), max_tokens_per_micro_batch=80)
    monkeypatch.setattr(compute.Forward, "__call__", forward)
    kept = namespaces(tmp_path / "cache")[0].tokens
    resumed = make_trainer(tmp_path, singles(12), max_tokens_per_micro_batch=80)
    computed = tokens(resumed)[0]
    assert kept > 0
    assert computed > 0
    assert computed + kept == sum(
        {row["prompt"] + row["completion"]: len(row["completion"]) + 1 for row in singles(12)}.values()
    )


def test_a_reference_that_only_the_main_process_could_compute_is_asked_for_beforehand(tmp_path, monkeypatch):

    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    with pytest.raises(BadInput, match=r"8 responses have no reference yet.*bnf-align reference build"):
        make_trainer(tmp_path, singles(8))


def test_a_failed_pass_leaves_the_model_in_training_mode(tmp_path, monkeypatch):
    from bnf_align.reference import compute

    model = tiny_llama(258).train()
    monkeypatch.setattr(compute.Forward, "__call__", lambda self, model, responses, rows: 1 / 0)
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


# ------------------------------------------------------------------------------------------------ the disk


def no_writing(monkeypatch):
    """A disk that answers every write as a read-only one does; root may write where permissions say otherwise."""
    from bnf_align.reference import cache

    def refuse(self, values):
        if values:
            raise BadInput("rows.arrow cannot be written: Read-only file system.")

    monkeypatch.setattr(cache.ReferenceCache, "write", refuse)


def test_a_cache_that_cannot_be_written_costs_the_values_and_not_the_run(tmp_path, monkeypatch, caplog):
    no_writing(monkeypatch)
    trainer = make_trainer(tmp_path, singles(6))
    trainer.train()
    assert trainer.state.log_history[0]["bnf/weight"] == pytest.approx(1, abs=1e-5)
    assert "cannot be written: Read-only file system. 6 rows used in this run, not kept" in caplog.text
    assert tokens(make_trainer(tmp_path, singles(6)))[0] > 0


def test_a_cache_that_may_only_be_read_is_read(tmp_path, monkeypatch):
    import os

    make_trainer(tmp_path, singles(6))
    no_writing(monkeypatch)

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(os, "utime", refuse)
    assert tokens(make_trainer(tmp_path, singles(6)))[0] == 0


@pytest.mark.parametrize("left", [None, "", "{", "[]"], ids=["missing", "empty", "cut short", "a list"])
def test_a_namespace_whose_manifest_is_lost_is_listed_read_and_made_whole(tmp_path, left):
    from bnf_align.reference.cache import namespaces

    make_trainer(tmp_path, singles(6))
    (info,) = namespaces(tmp_path / "cache")
    manifest = info.folder / "manifest.json"
    manifest.unlink() if left is None else manifest.write_text(left)
    (again,) = namespaces(tmp_path / "cache")
    assert (again.rows, again.tokens, again.manifest) == (info.rows, info.tokens, {})
    assert tokens(make_trainer(tmp_path, singles(6)))[0] == 0
    make_trainer(tmp_path, singles(7))
    assert namespaces(tmp_path / "cache")[0].manifest == info.manifest


def test_stored_values_that_are_not_finite_are_computed_again(tmp_path, caplog):
    from bnf_align.reference.cache import ReferenceCache, namespaces, row_key

    trainer = make_trainer(tmp_path, singles(6))
    responses = trainer.train_dataset.responses
    good = responses.reference(2).copy()
    (info,) = namespaces(tmp_path / "cache")
    for shard in info.folder.glob("*.arrow"):
        shard.unlink()
    broken = {
        row_key(responses.tokens(i), responses.mask(i)): responses.reference(i) * (np.nan if i == 2 else 1)
        for i in range(6)
    }
    ReferenceCache(tmp_path / "cache", {k: v for k, v in info.manifest.items() if k != "about"}).write(broken)
    again = make_trainer(tmp_path, singles(6))
    assert again.train_dataset.responses.reference(2) == pytest.approx(good, abs=1e-5)
    assert "1 stored rows are NaN or infinite and computed again" in caplog.text
