"""Every setting is honoured or refused by name: none is taken and ignored."""

import dataclasses
import math

import pytest
from transformers import TrainingArguments

from bnf_align import BadInput, BNFTrainer, PreferenceConfig
from bnf_align.config import NUMBERS, REFUSED
from bnf_align.training.trainer import NOT_TAKEN, PreferenceTrainer
from runs import make_trainer, singles
from tiny_nets import tiny_llama

# What `transformers.Trainer`, accelerate or we do as the field says, in any of its values.
HONOURED = set(
    """
    output_dir per_device_train_batch_size num_train_epochs max_steps learning_rate lr_scheduler_type
    lr_scheduler_kwargs warmup_steps optim_args weight_decay adam_beta1 adam_beta2 adam_epsilon
    optim_target_modules gradient_accumulation_steps max_grad_norm bf16 tf32 activation_checkpointing
    activation_checkpointing_kwargs gradient_checkpointing gradient_checkpointing_kwargs use_cache
    torch_empty_cache_steps logging_strategy logging_steps logging_first_step log_on_each_node
    logging_nan_inf_filter include_num_input_tokens_seen log_level log_level_replica disable_tqdm report_to
    run_name project trackio_space_id trackio_bucket_id trackio_static_space_id eval_strategy eval_steps
    eval_delay eval_on_start save_only_model save_strategy save_steps save_on_each_node save_total_limit
    enable_jit_checkpoint push_to_hub hub_private_repo hub_model_id hub_strategy hub_always_push hub_revision
    load_best_model_at_end metric_for_best_model greater_is_better ignore_data_skip
    restore_callback_states_from_checkpoint full_determinism seed data_seed use_cpu dataloader_drop_last
    dataloader_num_workers dataloader_pin_memory dataloader_persistent_workers dataloader_prefetch_factor
    dataloader_multiprocessing_context dataloader_in_order ddp_find_unused_parameters ddp_bucket_cap_mb
    ddp_broadcast_buffers ddp_static_graph ddp_backend ddp_timeout fsdp_config debug skip_memory_metrics
    do_train do_eval resume_from_checkpoint local_rank
    """.split()  # noqa: SIM905 (a list of words reads better as words)
)

# A value of each refused field that somebody might give.
GIVEN = {
    "fp16": True,
    "fp16_full_eval": True,
    "bf16_full_eval": True,
    "deepspeed": "ds.json",
    "fsdp": True,
    "parallelism_config": {"tp_size": 2},
    "auto_find_batch_size": True,
    "per_device_eval_batch_size": 4,
    "label_smoothing_factor": 0.1,
    "neftune_noise_alpha": 5.0,
    "train_sampling_strategy": "group_by_length",
    "length_column_name": "tokens",
    "average_tokens_across_devices": False,
    "use_liger_kernel": True,
    "liger_kernel_config": {"rope": True},
    "torch_compile": True,
    "torch_compile_backend": "inductor",
    "torch_compile_mode": "default",
    "optim": "galore_adamw_layerwise",
    "accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 4}},
    "remove_unused_columns": True,
    "label_names": ["labels"],
    "prediction_loss_only": True,
    "include_for_metrics": ["inputs"],
    "batch_eval_metrics": True,
    "eval_do_concat_batches": False,
    "eval_use_gather_object": True,
    "eval_accumulation_steps": 2,
    "do_predict": True,
    "hub_token": "hf_secret",
}


def test_there_is_a_decision_for_every_field_of_training_arguments():
    fields = {field.name for field in dataclasses.fields(TrainingArguments)}
    assert HONOURED | set(REFUSED) == fields
    assert not HONOURED & set(REFUSED)
    assert set(GIVEN) == set(REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_ignored_is_refused_by_name(name):
    with pytest.raises(BadInput, match=f"^{name} .*is not supported: ") as raised:
        PreferenceConfig(output_dir="out", use_cpu=True, **{name: GIVEN[name]})
    assert "hf_secret" not in str(raised.value)


@pytest.mark.parametrize("optim", ["lomo", "adalomo", "apollo_adamw_layerwise", "galore_adafactor_layerwise"])
def test_optimizers_that_update_in_every_backward_are_refused(optim):
    with pytest.raises(BadInput, match=f"optim {optim} is not supported: it updates weights during every backward"):
        PreferenceConfig(output_dir="out", use_cpu=True, optim=optim)


@pytest.mark.parametrize(
    "given",
    [
        {"split_batches": True},
        {"dispatch_batches": True},
        {"even_batches": False},
        {"non_blocking": True},
        '{"gradient_accumulation_kwargs": {"num_steps": 2}}',
    ],
    ids=str,
)
def test_of_an_accelerator_config_only_what_is_read_is_taken(given):
    with pytest.raises(BadInput, match=r"accelerator_config .* is not supported"):
        PreferenceConfig(output_dir="out", use_cpu=True, accelerator_config=given)
    PreferenceConfig(
        output_dir="out",
        use_cpu=True,
        accelerator_config={"gradient_accumulation_kwargs": {"sync_each_batch": True}},
    )


@pytest.mark.parametrize("given", ["[]", "1", 1, "{", "nowhere.json", ["split_batches"]], ids=repr)
def test_an_accelerator_config_that_is_no_json_object_is_refused(given):
    with pytest.raises(BadInput, match=r"--accelerator_config .* is not (a JSON object|JSON)"):
        PreferenceConfig(output_dir="out", use_cpu=True, accelerator_config=given)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -5])
def test_numbers_that_make_no_sense_are_refused_before_anything_runs(name, value):
    with pytest.raises(BadInput, match=f"--{name} {value}: .* needed"):
        PreferenceConfig(output_dir="out", use_cpu=True, **{name: value})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_steps": 0}, "--max_steps 0: at least 1 step"),
        ({"max_steps": -5}, "--max_steps -5: at least 1 step"),
        ({"adam_beta2": 1.0}, "--adam_beta2 1.0: a number from 0 to below 1"),
        ({"num_train_epochs": 1e30}, "--num_train_epochs 1e[+]30: .* million"),
        ({"lr_scheduler_kwargs": '{"a":1'}, "--lr_scheduler_kwargs .* is not JSON"),
    ],
)
def test_what_makes_no_run_or_two_of_them_is_refused(given, message):
    with pytest.raises(BadInput, match=message):
        PreferenceConfig(output_dir="out", use_cpu=True, **given)


@pytest.mark.parametrize(
    ("given", "product"), [({"per_device_train_batch_size": 2}, 2), ({"gradient_accumulation_steps": 2}, 16)]
)
def test_two_sizes_of_a_step_are_refused_unless_the_devices_make_them_one(given, product):
    config = PreferenceConfig(output_dir="out", use_cpu=True, batch_size=4 * product, **given)
    with pytest.raises(BadInput, match=f"--batch_size {4 * product} beside .* 1 device = {product}: .* Give one"):
        config.fold_batch_size()
    assert config.step_size(devices=4) == 4 * product


def test_two_ways_to_say_the_same_batch_are_one():
    config = PreferenceConfig(
        output_dir="out", use_cpu=True, batch_size=4, per_device_train_batch_size=2, gradient_accumulation_steps=2
    )
    config.fold_batch_size()
    assert (config.batch_size, config.per_device_train_batch_size, config.gradient_accumulation_steps) == (4, 4, 1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", 0),
        ("max_grad_norm", 0),
        ("weight_decay", 0.0),
        ("max_length", 2),
        ("max_length", None),
        ("eval_fraction", 0.0),
        ("eval_fraction", 0.5),
        ("seed", 0),
        ("batch_size", 1),
        ("warmup_steps", 0),
    ],
)
def test_numbers_at_their_ends_are_taken(name, value):
    assert getattr(PreferenceConfig(output_dir="out", use_cpu=True, **{name: value}), name) == value


@pytest.mark.parametrize("value", ["0.5", "[1]", '"beta"', "3"])
def test_loss_kwargs_that_are_no_json_object_are_refused(value):
    with pytest.raises(BadInput, match=r"--loss_kwargs .* is not a JSON object"):
        PreferenceConfig(output_dir="out", use_cpu=True, loss_type="dpo", loss_kwargs=value)


def test_loss_kwargs_that_are_no_json_name_the_flag():
    with pytest.raises(BadInput, match=r"--loss_kwargs '\{beta: 1\}' is not JSON"):
        PreferenceConfig(output_dir="out", use_cpu=True, loss_type="dpo", loss_kwargs="{beta: 1}")


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_arguments_of_trainer_that_would_be_ignored_are_refused_by_name(tmp_path, name):
    config = PreferenceConfig(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(BadInput, match=f"{name} is not supported"):
        PreferenceTrainer(tiny_llama(), config, train_dataset=singles(4), **{name: lambda *_: None})
    with pytest.raises(TypeError, match="BNFTrainer takes no argument 'train_data'"):
        BNFTrainer(tiny_llama(), train_data=singles(4))


def test_the_loader_gets_what_the_settings_say(tmp_path):
    options = {"dataloader_num_workers": 1, "dataloader_prefetch_factor": 3, "dataloader_in_order": False}
    loader = make_trainer(tmp_path, singles(4), **options).get_train_dataloader()
    assert (loader.num_workers, loader.prefetch_factor, loader.in_order) == (1, 3, False)


def test_the_device_cache_is_emptied_as_often_as_asked(tmp_path, monkeypatch):
    from bnf_align.training import trainer as module

    emptied = []
    monkeypatch.setattr(module, "clear_device_cache", lambda: emptied.append(1))
    make_trainer(tmp_path, singles(8), batch_size=2, max_steps=4, torch_empty_cache_steps=2).train()
    assert len(emptied) == 2


@pytest.mark.parametrize("count", ["all", "non_padding"])
def test_input_tokens_are_counted_as_asked(tmp_path, count):
    trainer = make_trainer(tmp_path, singles(6), include_num_input_tokens_seen=count)
    trainer.train()
    lengths = trainer.train_dataset.responses.lengths
    step = trainer.train_dataset.__getitems__(range(6))
    padded = sum(batch["input_ids"].numel() for batch in step.micro_batches)
    assert trainer.state.num_input_tokens_seen == (padded if count == "all" else lengths.sum())
