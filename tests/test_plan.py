"""The plan of a run: its shapes are those of the real model, its tokens those of the real run."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, MixtralConfig

from bnf_align import PreferenceConfig
from bnf_align.cli.main import main
from bnf_align.data.batching import StepSampler
from bnf_align.head import HeadCall, ask, attach
from bnf_align.plan.fake import FakeModel, _Live
from bnf_align.plan.memory import Setup, optimizer_bytes, trained_bytes
from bnf_align.plan.plan import Hardware, make_plan, plan_of_run, resident_bytes
from bnf_align.plan.workload import assumed, measured
from bnf_align.records import BadInput
from bnf_align.training.record import peak_memory
from runs import make_trainer, pairs, singles
from tiny_models import plain_tokenizer
from tiny_nets import tiny_gemma2, tiny_llama, tiny_mistral

MODELS = [tiny_llama, tiny_mistral, tiny_gemma2]
LORA = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def config(**options) -> PreferenceConfig:
    return PreferenceConfig(**{"output_dir": "out", "use_cpu": True, "batch_size": 4, "max_length": 64, **options})


def plan_for(model, hardware=None, options=None, **keywords) -> dict:
    settings = config(**(options or {}))
    return make_plan(model.config, settings, assumed(100, 32, settings), hardware or Hardware(), **keywords)


def memory_of(**options) -> dict:
    return plan_for(tiny_llama(), options=options)["memory_bytes"]


@pytest.mark.parametrize("build", MODELS)
def test_parameters_are_counted_as_in_the_real_model(build):
    model = build()
    plan = plan_for(model)
    assert plan["parameters"] == plan["trainable_parameters"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("build", MODELS)
def test_an_adapter_trains_as_many_parameters_as_the_real_one(build):
    trained, total = get_peft_model(build(), LORA).get_nb_trainable_parameters()
    plan = plan_for(build(), peft_config=LORA)
    assert (plan["trainable_parameters"], plan["parameters"]) == (trained, total)


def test_planning_leaves_the_random_numbers_and_the_adapter_config_as_they_were():
    model, settings = tiny_llama(), repr(LORA)
    before = torch.get_rng_state()
    plan_for(model, peft_config=LORA)
    assert torch.equal(before, torch.get_rng_state())
    assert repr(LORA) == settings
    assert model.config._attn_implementation == "sdpa"


def fake(model, hardware=None, options=None, **keywords) -> FakeModel:
    return FakeModel(model.config, config(**(options or {})), hardware or Hardware(), **keywords)


@pytest.mark.parametrize(("optim", "per_parameter"), [("adamw_torch", 8), ("sgd", 0), ("adamw_bnb_8bit", 2)])
def test_optimizer_states_take_their_bytes_per_trained_parameter(optim, per_parameter):
    for peft_config in (None, LORA):
        settings, hardware = config(optim=optim), Hardware()
        model = fake(tiny_llama(), peft_config=peft_config)
        setup = Setup(model, settings, assumed(100, 32, settings), hardware)
        assert optimizer_bytes(setup) == per_parameter * trained_bytes(setup) / 4


def really(model, rows: int, length: int, separable: bool, checkpointing: bool) -> tuple[int, int]:
    """Bytes at the peak, and of gradients, of a micro-batch that really runs, counted as the fake one's are."""
    attach(model.train())
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    attention = torch.ones(rows, length, dtype=torch.long)
    attention[0, -1] = 0  # padding: without it there would be no mask
    scored = torch.arange(length).expand(rows, -1) >= length // 2
    batch = {"input_ids": torch.zeros(rows, length, dtype=torch.long), "attention_mask": attention}
    batch |= {"completion_mask": scored, "label": torch.ones(rows, dtype=torch.bool)}
    live = _Live(model, 4)
    for parameter in model.parameters():
        parameter.register_post_accumulate_grad_hook(live.formed)
    with live:
        even: dict = {"token_weights": lambda tokens: torch.full_like(tokens.logps, 1 / rows)}
        if not separable:
            even = {"loss": lambda completions: completions.logps.sum() / rows}
        call = HeadCall(batch, **even)
        ask(model, {name: values.clone() for name, values in batch.items()}, call).backward()
    return max(most + gradients for gradients, most in live.peaks.items()), live.gradients


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("loss_type", ["bnf", "dpo"])
@pytest.mark.parametrize("build", [*MODELS, lambda: tiny_llama(tie_word_embeddings=True)])
def test_a_micro_batch_takes_on_fake_tensors_what_it_takes_on_real_ones(build, loss_type, checkpointing):
    model = build()
    found = fake(model, options={"loss_type": loss_type}).trace(4, 256, 0.5, checkpointing, False, "training")
    peak, gradients = really(model, 4, 256, loss_type == "bnf", checkpointing)
    assert max(found.peaks) == gradients == 4 * sum(p.numel() for p in model.parameters())
    assert found.peak() == pytest.approx(peak, rel=0.05)  # small numbers per token


def test_checkpointing_keeps_the_inputs_of_the_layers():
    model = fake(tiny_llama())
    without, under = (model.trace(3, 48, 0.5, on, False, "forward").activations for on in (False, True))
    inputs = 3 * 48 * 32 * 4
    outside = model.trace(3, 48, 0.5, False, False, "reference").activations
    # The two layers' inputs, and what embedding, rotary positions, mask and the last norm keep.
    assert 2 * inputs <= under < 8 * inputs + 3 * 48 * 48 * 5 < without
    assert outside < under  # a pass without gradients lets go of everything but its output
    assert memory_of(activation_checkpointing=True)["micro_batch"] < memory_of()["micro_batch"]


def test_sdpa_keeps_no_matrix_per_head_and_flash_attention_no_mask():
    kinds = {
        kind: fake(tiny_llama(), attention=kind).trace(1, 256, 0.5, False, False, "forward").activations
        for kind in ("eager", "sdpa", "flash_attention_2")
    }
    assert kinds["sdpa"] - kinds["flash_attention_2"] >= 2 * 4 * 256 * 256  # a float mask in each of two layers
    weights, sums = 2 * 4 * 4 * 256 * 256, 2 * 4 * 4 * 256  # four heads in two layers
    assert kinds["eager"] - kinds["sdpa"] == weights - sums - weights // 4


def test_under_autocast_the_layers_keep_less_and_the_rounded_weights_are_counted():
    full, half = (fake(tiny_llama(), Hardware(bf16=bf16)) for bf16 in (False, True))
    linear = sum(layer.weight.numel() for layer in full.lm.model.layers.modules() if type(layer) is torch.nn.Linear)

    def kept(model, rows):
        return model.trace(rows, 48, 0.5, False, False, "forward").activations

    fixed = 2 * kept(half, 4) - kept(half, 8)  # what does not grow with the rows
    assert fixed - (2 * kept(full, 4) - kept(full, 8)) == pytest.approx(2 * linear, rel=0.02)
    assert kept(half, 8) - kept(half, 4) < kept(full, 8) - kept(full, 4)


def test_a_mixture_of_experts_is_planned_with_the_experts_that_each_token_sees():
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "vocab_size": 300, "num_experts_per_tok": 2}
    plans = [plan_for(SimpleNamespace(config=MixtralConfig(**sizes, num_local_experts=experts))) for experts in (4, 8)]
    expert = 2 * 3 * 32 * 64  # of both layers
    router = 2 * 32
    assert plans[1]["parameters"] - plans[0]["parameters"] == 4 * (expert + router)
    tokens = 2 * 100 * 32
    more = plans[1]["flops"]["reference_pass"] - plans[0]["flops"]["reference_pass"]
    assert more == pytest.approx(2 * 4 * router * tokens)  # the router's alone: a token goes through two either way


def test_a_larger_budget_never_needs_less_memory():
    budgets = [memory_of(max_tokens_per_micro_batch=budget) for budget in (64, 128, 2048)]
    totals = [memory["total"] for memory in budgets]
    assert totals == sorted(totals)
    assert totals[0] < totals[-1]
    ratio = budgets[2]["activations_without_checkpointing"] / budgets[1]["activations_without_checkpointing"]
    assert ratio == pytest.approx(16, rel=1e-2)


def test_the_parts_of_the_memory_add_up():
    memory = memory_of()
    parts = ("weights", "gradients", "optimizer_states", "gathered", "micro_batch", "allocator", "process")
    assert memory["total"] == sum(memory[name] for name in parts)
    weights = 4 * sum(p.numel() for p in tiny_llama().parameters())
    assert [memory[name] / weights for name in parts[:3]] == [1, 1, 2]


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_what_a_forward_pass_lets_go_of_on_fake_tensors_is_what_it_does_on_real_ones(kind):
    peft_config = LORA if kind == "lora" else None
    model = get_peft_model(tiny_llama(), LORA).base_model.model if peft_config else tiny_llama()
    attention = torch.ones(4, 256, dtype=torch.long)
    attention[0, -1] = 0
    with _Live(model.train(), 4) as live:
        kept = model.base_model(input_ids=torch.zeros_like(attention), attention_mask=attention, use_cache=False)
        passed = live.passed
    assert kept.last_hidden_state.requires_grad
    found = fake(tiny_llama(), peft_config=peft_config).trace(4, 256, 0.5, False, False, "training")
    assert found.passed == pytest.approx(passed, rel=0.05)


def test_the_allocator_loses_a_share_of_what_passes_and_never_more_than_what_is_kept():
    settings, work = config(), assumed(100, 32, config())
    setup = Setup(fake(tiny_llama()), settings, work, Hardware())
    trace = setup.trace(work.rows * work.length)
    assert trace.passed > 0
    assert memory_of()["allocator"] == int(0.3 * trace.passed) < trace.activations
    under = memory_of(activation_checkpointing=True)  # little is kept, so there is little to lose between
    assert under["allocator"] == under["activations_with_checkpointing"]


def test_the_process_itself_is_a_line_of_its_own_and_an_accelerator_has_none_of_it():
    plans = [plan_for(tiny_llama(), Hardware(process=size))["memory_bytes"] for size in (0, 10**8)]
    for name in ("total", "reference_pass"):
        assert plans[1][name] - plans[0][name] == 10**8
    assert plan_for(tiny_llama(), Hardware(accelerator=True))["memory_bytes"]["allocator"] == 0


def test_a_frozen_head_forms_no_gradient_of_its_weight():
    assert plan_for(tiny_llama())["memory_bytes"]["head_dW"] == 300 * 32 * 4
    assert plan_for(tiny_llama(), peft_config=LORA)["memory_bytes"]["head_dW"] == 0


def test_fsdp_divides_weights_gradients_and_states_and_ddp_doubles_gradients():
    one, ddp, fsdp = (
        plan_for(tiny_llama(), Hardware(devices, sharded=sharded))["memory_bytes"]
        for devices, sharded in ((1, False), (4, False), (4, True))
    )
    for name in ("weights", "gradients", "optimizer_states"):
        assert fsdp[name] == one[name] // 4
    assert ddp["gradients"] == 2 * one["gradients"]
    assert ddp["reference_pass"] == fsdp["reference_pass"] == one["reference_pass"]


def test_between_micro_batches_a_shard_of_the_gradients_is_kept_and_never_the_whole():
    """Gradients are reduced in every micro-batch; what is whole for a moment belongs to one layer."""
    memory = plan_for(tiny_llama(), Hardware(4, sharded=True), {"max_tokens_per_micro_batch": 64})["memory_bytes"]
    weights = 4 * sum(p.numel() for p in tiny_llama().parameters())
    assert memory["gradients"] == weights // 4
    layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 64 + 2 * 32
    ends = 2 * 300 * 32
    assert memory["gathered"] == pytest.approx(4 * (2 * layer + ends) + 8 * layer, rel=0.01)  # the last norm's 32


def test_the_suggestion_fits_and_shards_only_where_it_must():
    model = tiny_llama()
    need = plan_for(model, options={"max_tokens_per_micro_batch": 512})["memory_bytes"]["total"]
    roomy = plan_for(model, Hardware(1, 4 * need, accelerator=True))["suggestion"]
    assert roomy["sharding"] == "none"
    assert roomy["max_tokens_per_micro_batch"] >= 512
    large = SimpleNamespace(config=LlamaConfig(hidden_size=2048, intermediate_size=7168, num_hidden_layers=2))
    plan = plan_for(
        large, Hardware(2, 3 * 10**9, accelerator=True)
    )  # weights, gradients and states alone are 16 bytes a parameter
    assert 16 * plan["parameters"] > 3 * 10**9
    assert plan["sharding"] == plan["suggestion"]["sharding"] == "FSDP2"
    assert plan_for(model, Hardware(1, 1000))["suggestion"]["devices"] is None


def test_hours_follow_from_the_flops_and_are_not_invented_without_a_peak():
    plan = plan_for(tiny_llama(), Hardware(4, tflops=100.0))
    seconds = sum(plan["flops"].values()) / (0.4 * 100e12)
    assert plan["hours"]["device"] * 3600 == pytest.approx(seconds)
    assert plan["hours"]["wall"] == pytest.approx(plan["hours"]["device"] / 4)
    assert plan_for(tiny_llama())["hours"] is None


def test_flops_are_three_forward_passes_over_layers_attention_and_head():
    plan = plan_for(tiny_llama())
    layer = 32 * 32 + 2 * 32 * 16 + 32 * 32 + 3 * 32 * 64
    tokens, squares = 2 * 100 * 32, 2 * 100 * 32 * 32
    forward = 2 * 2 * layer * tokens + 2 * squares * 32 * 2
    head = 2 * 300 * 32 * round(0.65 * tokens)
    assert plan["flops"] == {"training": 3 * forward + 3 * head, "reference_pass": forward + head}
    eager = plan_for(tiny_llama(), attention="eager")["flops"]
    assert eager == pytest.approx(plan["flops"])  # its matmuls are counted as matmuls, and not a second time


def test_frozen_weights_save_a_third_of_the_layers_and_of_the_head():
    full, lora = (plan_for(tiny_llama(), peft_config=peft)["flops"] for peft in (None, LORA))
    adapters = 2 * (4 * (32 + 32) + 4 * (32 + 16))
    forward = lora["reference_pass"]
    assert forward - full["reference_pass"] == 2 * adapters * 2 * 100 * 32
    assert lora["training"] == pytest.approx(2 * forward)
    assert full["training"] == pytest.approx(3 * full["reference_pass"])


# ----------------------------------------------------------------------------------------- beside a real run


@pytest.mark.parametrize("options", [{}, {"loss_type": "kto"}, {"eval_fraction": 0.3}, {"loss_type": "simpo"}])
def test_the_cache_takes_four_bytes_for_each_scored_token_of_the_run(tmp_path, monkeypatch, capsys, options):
    monkeypatch.chdir(tmp_path)
    rows = [*pairs(6), *singles(8)]
    trainer = make_trainer(tmp_path, rows, batch_size=4, **options)
    save(tmp_path, trainer, rows)
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    assert main(["plan", *BASIC, "--json", *flags]) == 0
    plan = json.loads(capsys.readouterr().out)
    report = trainer.prepared.reference
    seen = report.computed_tokens + report.cached_tokens if report else 0
    assert plan["reference_cache_bytes"] == 4 * seen
    assert plan["workload"]["tokens"] == trainer.train_dataset.responses.lengths.sum()
    assert plan["workload"]["steps"] == len(trainer.get_train_dataloader())


BASIC = ["--model_name_or_path", "model", "--dataset_name", "rows.jsonl", "--max_length", "128", "--batch_size", "4"]


def save(folder: Path, trainer, rows: list[dict]) -> None:
    trainer.model.save_pretrained(folder / "model")
    trainer.processing_class.save_pretrained(folder / "model")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_run_json_holds_the_plan_beside_the_peak_that_was_measured(tmp_path):
    rows = singles(8)
    trainer = make_trainer(tmp_path, rows, batch_size=4, max_steps=2, max_tokens_per_micro_batch=64)
    trainer.train()
    trainer.save_model()
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    # Both hold the libraries that this process has loaded.
    assert record["plan"]["memory_bytes"]["process"] == pytest.approx(resident_bytes(), rel=0.2)
    assert record["peak_memory_bytes"] >= record["plan"]["memory_bytes"]["process"]
    plan, batches = record["plan"], next(iter(trainer.get_train_dataloader())).micro_batches
    assert plan["parameters"] == sum(p.numel() for p in trainer.model.parameters())
    assert plan["workload"]["rows"] * plan["workload"]["length"] >= max(b["input_ids"].numel() for b in batches)
    assert plan["reference_cache_bytes"] == 4 * trainer.prepared.reference.computed_tokens
    assert plan["max_tokens_per_micro_batch"] == 64


def test_the_process_of_run_json_is_the_one_before_training(tmp_path):
    """Else optimizer states, gradients and freed activations would be counted twice."""
    trainer = make_trainer(tmp_path, singles(8))
    trainer.record.resident = 10**9 + 4 * sum(p.numel() for p in trainer.model.parameters())
    trainer.train()
    trainer.save_model()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["plan"]["memory_bytes"]["process"] == 10**9


@pytest.mark.slow
def test_the_peak_is_not_that_of_the_process_that_started_it():
    """On Linux a process inherits what getrusage says of its parent."""
    ballast = bytearray(b"1" * 2**30)
    program = "from bnf_align.training.record import peak_memory; print(peak_memory())"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert peak_memory() > len(ballast) > int(said) > 10**8


def test_a_run_with_an_adapter_is_planned_with_that_adapter(tmp_path):
    trainer = make_trainer(tmp_path, singles(8), peft_config=LORA)
    trainer.train()
    trainer.save_model()
    plan = json.loads((tmp_path / "run" / "run.json").read_text())["plan"]
    assert plan["trainable_parameters"] == trainer.model.get_nb_trainable_parameters()[0]
    assert plan["memory_bytes"]["head_dW"] == 0


# ---------------------------------------------------------------------------------------------- the command


def test_without_a_tokenizer_lengths_are_said_to_come_from_characters(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tiny_llama().config.save_pretrained(tmp_path / "model")
    row = {"prompt": "p" * 40, "chosen": "c" * 80, "rejected": "r" * 20}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["plan", *BASIC, "--json"]) == 0
    work = json.loads(capsys.readouterr().out)["workload"]
    assert "4 characters a token" in work["source"]
    assert (work["tokens"], work["scored_tokens"]) == (10 + 20 + 10 + 5, 20 + 5)


def test_the_json_has_every_part_and_the_text_says_that_it_is_an_estimate(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    plain_tokenizer().save_pretrained(tmp_path / "model")
    tiny_llama().config.save_pretrained(tmp_path / "model")
    flags = ["plan", "--model_name_or_path", "model", "--rows", "50", "--mean_length", "20"]
    flags += ["--devices", "2", "--device_memory", "1", "--tflops", "100"]
    assert main([*flags, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert set(plan) == {
        "what",
        "parameters",
        "trainable_parameters",
        "workload",
        "devices",
        "device_memory_bytes",
        "sharding",
        "bf16",
        "gradient_checkpointing",
        "max_tokens_per_micro_batch",
        "memory_bytes",
        "flops",
        "hours",
        "disk_bytes",
        "reference_cache_bytes",
        "suggestion",
    }
    assert plan["workload"]["responses"] == 100
    assert plan["device_memory_bytes"] == 2**30
    assert main(flags) == 0
    text = capsys.readouterr().out
    assert "estimates" in text
    assert "  allocator" not in text  # not estimated for an accelerator: a line of 0 would say that it takes nothing
    assert main([flag for flag in flags if flag not in ("--device_memory", "1")]) == 0
    assert "  allocator" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]  # nothing is written


def test_a_plan_without_rows_asks_for_a_data_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--model_name_or_path", "model"]) == 2
    assert "--dataset_name" in capsys.readouterr().err


def test_checkpoints_on_disk_hold_weights_and_states_as_often_as_they_are_saved():
    weights = 4 * sum(p.numel() for p in tiny_llama().parameters())
    disk = plan_for(tiny_llama(), options={"save_strategy": "steps", "save_steps": 10})["disk_bytes"]
    assert disk["number_of_checkpoints"] == 3  # 25 steps: after 10, 20 and at the end
    assert disk == {"model": weights, "checkpoints": 9 * weights, "number_of_checkpoints": 3, "total": 10 * weights}


def test_peak_memory_of_a_single_micro_batch_holds_gradients_or_activations_not_both():
    settings = config(max_tokens_per_micro_batch=64 * 64)
    alone = make_plan(tiny_llama().config, settings, assumed(1000, 32, settings), Hardware(accelerator=True))
    long = config(max_tokens_per_micro_batch=64 * 64, batch_size=1000)
    later = make_plan(tiny_llama().config, long, assumed(1000, 32, long), Hardware(accelerator=True))
    assert (alone["workload"]["later_tokens"], later["workload"]["later_tokens"]) == (0, 64 * 64)
    gradients = 4 * alone["parameters"]
    grown = later["memory_bytes"]["total"] - alone["memory_bytes"]["total"]
    assert grown == pytest.approx(gradients, rel=0.02)  # the embedding's, formed last, met what was left of the layers


def test_a_model_that_cannot_be_traced_gives_no_plan_and_the_reason_and_stops_nothing(tmp_path, caplog):
    trainer = make_trainer(tmp_path, singles(8))
    model = trainer.model
    model.config.num_key_value_heads = 3  # which four heads cannot share
    assert plan_of_run(model, trainer.args, trainer.train_dataset, sharded=False, resident=0) is None
    assert "llama cannot be planned" in caplog.text
    with pytest.raises(BadInput, match="--max_steps 3"):
        make_plan(model.config, config(), assumed(10, 8, config()), Hardware())


def test_a_rank_without_a_share_of_a_step_is_planned_for_all_the_same():
    lengths = np.array([5, 7, 9])
    config = PreferenceConfig(output_dir="out", batch_size=2)
    found = measured("a test", [(lengths, lengths)], [[0], [1], [2]], config, devices=2)
    assert (found.length, found.rows, found.steps) == (9, 1, 2)


def test_steps_that_are_never_taken_are_not_planned_for():
    lengths = np.array([50, 9, 7, 5])
    units = [[0], [1], [2], [3]]
    found = [
        measured(
            "a test", [(lengths, lengths)], units, PreferenceConfig(output_dir="out", batch_size=1, max_steps=steps)
        )
        for steps in range(1, 5)
    ]
    longest = [work.length for work in found]
    order = list(StepSampler(4, 1, PreferenceConfig(output_dir="out").seed))
    assert longest == [max(lengths[step[0]] for step in order[:taken]) for taken in range(1, 5)]
    assert longest[0] < longest[-1] == 50


def test_the_reference_pass_fills_its_budget_from_all_rows():
    lengths = np.array([10] * 40 + [16] * 40)
    units = [[row] for row in range(80)]
    settings = {"output_dir": "out", "batch_size": 2, "max_tokens_per_micro_batch": 160}
    padded, packed = (
        measured("a test", [(lengths, lengths)], units, PreferenceConfig(**settings, packing=packing))
        for packing in (False, True)
    )
    assert (padded.reference_rows, padded.reference_length) == (10, 16)
    assert (packed.reference_rows, packed.reference_length) == (1, 160)
    assert padded.rows == 2
