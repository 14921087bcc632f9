"""Memory, hours and disk of a run before it starts. Everything here is an estimate, made from shapes and lengths."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftConfig, PeftModel
from transformers import PretrainedConfig

from bnf_align.config import PreferenceConfig
from bnf_align.data.batching import StepDataset
from bnf_align.plan.activations import meta_model
from bnf_align.plan.memory import (
    MARGIN,
    Setup,
    backbone_linears,
    optimizer_bytes,
    peak_memory,
    trained_bytes,
    weight_bytes,
)
from bnf_align.plan.workload import Workload, of_steps

if TYPE_CHECKING:
    from bnf_align.training.trainer import PreferenceTrainer

logger = logging.getLogger(__name__)

UTILISATION = 0.4
"""Share of a device's peak that a run is assumed to reach where the peak is stated."""

BUDGETS = tuple(2**power for power in range(16, 8, -1))
MOST_DEVICES = 1024


@dataclass(frozen=True)
class Hardware:
    """What a run is planned for; None is not known."""

    devices: int = 1
    memory: int | None = None
    """Bytes of one device."""
    tflops: float | None = None
    """Peak of one device in bfloat16, in TFLOP/s."""
    sharded: bool | None = None
    """FSDP2; None leaves the choice to the plan."""
    accelerator: bool = False
    bf16: bool = False


def make_plan(
    model_config: PretrainedConfig,
    config: PreferenceConfig,
    workload: Workload,
    hardware: Hardware,
    *,
    dtype: torch.dtype = torch.float32,
    peft_config: PeftConfig | None = None,
    attention: str | None = None,
    quantised_bits: int | None = None,
) -> dict[str, Any]:
    """The plan of a run, as `bnf-align plan --json` and `run.json` have it; bytes are plain integers.

    Args:
        model_config: The model's.
        config: The run's settings.
        workload: What there is to do.
        hardware: With what.
        dtype: Of the weights as loaded.
        peft_config: The adapter, if one is trained.
        attention: The attention implementation; the model's own choice if None.
        quantised_bits: 4 or 8 for a quantised base.
    """
    model = meta_model(model_config, dtype, peft_config, attention)
    setup = Setup(
        model,
        rows=workload.rows,
        length=workload.length,
        scored_share=workload.scored_tokens / max(1, workload.tokens),
        later_tokens=workload.later_tokens,
        bf16=hardware.bf16,
        checkpointing=bool(config.activation_checkpointing or config.gradient_checkpointing),
        accelerator=hardware.accelerator,
        optim=str(getattr(config.optim, "value", config.optim)),
        head=config.head,
        quantised_bits=quantised_bits,
        devices=hardware.devices,
        sharded=bool(hardware.sharded),
    )
    suggestion = suggest(setup, hardware, workload.longest if config.packing else None) if hardware.memory else None
    if suggestion and hardware.sharded is None and suggestion["sharding"] == "FSDP2":
        setup = replace(setup, sharded=True)
    flops = _flops(setup, config, workload)
    return {
        "what": "an estimate, made before the run from shapes and lengths; nothing in it is measured",
        "parameters": sum(p.numel() for p in model.parameters()),
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "workload": asdict(workload),
        "devices": hardware.devices,
        "device_memory_bytes": hardware.memory,
        "sharding": "FSDP2" if setup.sharded else "DDP" if setup.devices > 1 else "none",
        "bf16": setup.bf16,
        "gradient_checkpointing": setup.checkpointing,
        "max_tokens_per_micro_batch": config.max_tokens_per_micro_batch,
        "memory_bytes": peak_memory(setup),
        "flops": flops,
        "hours": _hours(flops, hardware),
        "disk_bytes": _disk(setup, config, workload),
        "reference_cache_bytes": 4 * workload.reference_tokens,
        "suggestion": suggestion,
    }


def suggest(setup: Setup, hardware: Hardware, longest_packed: int | None = None) -> dict[str, Any]:
    """The largest budget that fits, without sharding if possible, else sharded over as few devices as it takes.

    Args:
        setup: As planned.
        hardware: With the memory of a device.
        longest_packed: Tokens of the longest response where responses are packed; None where they are padded.
    """
    assert hardware.memory is not None
    traced = {setup.length: setup}
    for candidate in _candidates(setup):
        for budget in BUDGETS:
            rows, length = budget // setup.length, setup.length
            if longest_packed is not None:  # a single row, in which attention may cost the square of the tokens
                rows, length = int(budget >= longest_packed), budget
            sized = replace(candidate, rows=rows, length=length, later_tokens=budget)
            if rows and _total(sized, traced.setdefault(length, sized)) <= MARGIN * hardware.memory:
                sharding = "FSDP2" if sized.sharded else "DDP" if sized.devices > 1 else "none"
                return {"sharding": sharding, "devices": sized.devices, "max_tokens_per_micro_batch": budget}
    return {"sharding": None, "devices": None, "max_tokens_per_micro_batch": None}


def _total(sized: Setup, traced: Setup) -> int:
    """Peak memory of `sized`, with the trace of `traced`, whose rows have the same length."""
    sized.__dict__.update(activations=traced.activations, lm=traced.lm)
    return peak_memory(sized)["total"]


def _candidates(setup: Setup) -> Iterator[Setup]:
    yield replace(setup, sharded=False)
    devices = max(2, setup.devices)
    while devices <= MOST_DEVICES:
        yield replace(setup, sharded=True, devices=devices)
        devices *= 2


def _flops(setup: Setup, config: PreferenceConfig, workload: Workload) -> dict[str, float]:
    """Floating-point operations of matmuls and causal attention, all epochs, all devices."""
    linear = sum(layer.weight.numel() for layer in backbone_linears(setup.lm))
    head = setup.lm.get_output_embeddings().weight
    text = setup.lm.config.get_text_config()
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    squares = workload.squares
    if config.packing and setup.lm.config._attn_implementation != "planned_flash":
        squares = 2 * workload.tokens * workload.length  # every two tokens of a row, before and after one another
    attention = 2 * squares * text.num_attention_heads * width * text.num_hidden_layers
    backbone = 2 * linear * workload.tokens + attention
    # Backward: twice the forward pass, for the operands' gradients; frozen weights get none.
    passes = 1 + (2 if peft_free(setup) else 1) + (1 if setup.checkpointing else 0)
    passes += 1 if config.loss.mismatched else 0
    heads = 3 if config.loss.separable else 4
    heads -= 0 if head.requires_grad else 1
    of_head = 2.0 * head.numel() * workload.scored_tokens
    share = workload.reference_inputs / max(1, workload.tokens)
    return {
        "training": config.num_train_epochs * (passes * backbone + heads * of_head),
        "reference_pass": share * (backbone + of_head),
    }


def peft_free(setup: Setup) -> bool:
    """Whether all weights are trained."""
    return not isinstance(setup.model, PeftModel)


def _hours(flops: dict[str, float], hardware: Hardware) -> dict[str, float] | None:
    """Hours from start to end and device hours, at the assumed share of the stated peak; None without one."""
    if not hardware.tflops:
        return None
    seconds = sum(flops.values()) / (hardware.tflops * 1e12 * UTILISATION)
    return {"wall": seconds / hardware.devices / 3600, "device": seconds / 3600, "utilisation": UTILISATION}


def _disk(setup: Setup, config: PreferenceConfig, workload: Workload) -> dict[str, int]:
    saved = trained_bytes(setup) if isinstance(setup.model, PeftModel) else weight_bytes(setup)
    strategy = str(getattr(config.save_strategy, "value", config.save_strategy))
    steps = config.max_steps if config.max_steps > 0 else int(workload.steps * config.num_train_epochs)
    every = config.save_steps if config.save_steps >= 1 else max(1, int(config.save_steps * steps))
    # Trainer saves a last time when training ends.
    number = {"no": 0, "epoch": -(-steps // max(1, workload.steps))}.get(strategy, -(-steps // int(every)))
    number = min(number, config.save_total_limit or number)
    states = 0 if config.save_only_model else optimizer_bytes(setup)
    checkpoints = number * (saved + states)
    return {"model": saved, "checkpoints": checkpoints, "number_of_checkpoints": number, "total": saved + checkpoints}


def plan_of_run(trainer: PreferenceTrainer) -> dict[str, Any] | None:
    """The plan of a run whose trainer stands; None, with the reason in the log, where its model cannot be traced."""
    if trainer.train_dataset is None:
        return None
    try:
        return _plan_of_run(trainer, trainer.train_dataset)
    except Exception as error:  # a plan must never stop a run
        logger.warning(f"No plan for run.json: {error!r}.")
        return None


def _plan_of_run(trainer: PreferenceTrainer, steps: StepDataset) -> dict[str, Any]:
    policy: Any = trainer.accelerator.unwrap_model(trainer.model)
    bits = 4 if getattr(policy, "is_loaded_in_4bit", False) else 8
    quantised = bits == 4 or getattr(policy, "is_loaded_in_8bit", False)
    others = trainer.eval_dataset.values() if isinstance(trainer.eval_dataset, dict) else [trainer.eval_dataset]
    workload = of_steps(steps, trainer.args, [evaluation for evaluation in others if evaluation is not None])
    accelerator = torch.cuda.is_available() and not trainer.args.use_cpu
    memory = torch.cuda.get_device_properties(0).total_memory if accelerator else None
    sharded = bool(trainer.is_fsdp_enabled)
    return make_plan(
        policy.config,
        trainer.args,
        workload,
        Hardware(trainer.args.world_size, memory, None, sharded, accelerator, bool(trainer.args.bf16)),
        dtype=getattr(policy, "dtype", torch.float32),
        peft_config=policy.active_peft_config if isinstance(policy, PeftModel) else None,
        quantised_bits=bits if quantised else None,
    )
