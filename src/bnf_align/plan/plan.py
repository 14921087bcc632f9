"""Memory, hours and disk of a run before it starts. Everything here is an estimate, made from shapes and lengths."""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import psutil
import torch
from peft import PeftConfig, PeftModel
from transformers import PretrainedConfig

from bnf_align.config import PreferenceConfig
from bnf_align.data.batching import StepDataset
from bnf_align.plan.fake import FakeModel, Hardware
from bnf_align.plan.memory import (
    MARGIN,
    Setup,
    optimizer_bytes,
    peak_memory,
    trained_bytes,
    training_memory,
    weight_bytes,
)
from bnf_align.plan.workload import Workload, of_steps
from bnf_align.records import BadInput
from bnf_align.upstream import attention_of

logger = logging.getLogger(__name__)

UTILISATION = 0.4
"""Share of a device's peak that a run is assumed to reach where the peak is stated."""

BUDGETS = tuple(2**power for power in range(9, 17))
MOST_DEVICES = 1024


def resident_bytes() -> int:
    """Bytes of memory that this process holds now: interpreter, libraries and whatever it has loaded."""
    return int(psutil.Process().memory_info().rss)


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

    `dtype` is that of the weights as loaded, `attention` None for the model's own choice, `quantised_bits` 4 or 8 for
    a quantised base.

    Raises:
        BadInput: If the model cannot be run on tensors without memory.
    """
    try:
        model = FakeModel(model_config, config, hardware, dtype, peft_config, attention, quantised_bits)
        setup = Setup(model, config, workload, hardware)
        suggestion = suggest(setup) if hardware.memory else None
        if suggestion and hardware.sharded is None and suggestion["sharding"] == "FSDP2":
            setup = replace(setup, hardware=replace(hardware, sharded=True))
        memory, flops = peak_memory(setup), _flops(setup)
    except Exception as error:  # whatever a model's own code does with tensors that hold nothing
        raise BadInput(
            f"{model_config.model_type} cannot be planned: its forward or backward pass does not run on shapes alone "
            f"({type(error).__name__}: {str(error)[:300]}). Training does not need the plan: a run of a few steps, "
            "--max_steps 3, leaves its peak in run.json."
        ) from error
    weights = list(model.model.parameters())
    return {
        "what": "an estimate, made before the run from shapes and lengths; only `process` is measured",
        "parameters": sum(p.numel() for p in weights),
        "trainable_parameters": sum(p.numel() for p in weights if p.requires_grad),
        "workload": asdict(workload),
        "devices": hardware.devices,
        "device_memory_bytes": hardware.memory,
        "sharding": _sharding(setup.hardware),
        "bf16": hardware.bf16,
        "gradient_checkpointing": setup.checkpointing,
        "max_tokens_per_micro_batch": config.max_tokens_per_micro_batch,
        "memory_bytes": memory,
        "flops": flops,
        "hours": _hours(flops, hardware),
        "disk_bytes": _disk(setup),
        "reference_cache_bytes": 4 * workload.reference_tokens,
        "suggestion": suggestion,
    }


def _sharding(hardware: Hardware) -> str:
    return "FSDP2" if hardware.sharded else "DDP" if hardware.devices > 1 else "none"


def suggest(setup: Setup) -> dict[str, Any]:
    """The largest budget that fits, without sharding if possible, else sharded over as few devices as it takes."""
    work, hardware, packing = setup.work, setup.hardware, setup.config.packing
    budgets = [budget for budget in BUDGETS if budget >= (work.longest if packing else work.length)]
    candidates = [replace(hardware, sharded=False)]
    while (devices := max(2, hardware.devices) << (len(candidates) - 1)) <= MOST_DEVICES:
        candidates.append(replace(hardware, sharded=True, devices=devices))

    def too_large(budget: int, candidate: Hardware) -> bool:
        # Packed, it is a single row, in which attention may cost the square of the tokens.
        rows, length = (1, budget) if packing else (budget // work.length, work.length)
        sized = replace(work, rows=rows, length=length, later_tokens=rows * length)
        needs = Setup(setup.model, setup.config, sized, candidate)
        least = (weight_bytes(needs) + trained_bytes(needs) + optimizer_bytes(needs)) // needs.share
        room = MARGIN * (hardware.memory or 0)
        return least > room or sum(training_memory(needs).values()) > room

    for candidate in candidates:
        if fitting := bisect_left(budgets, True, key=partial(too_large, candidate=candidate)):
            found = {"sharding": _sharding(candidate), "devices": candidate.devices}
            return found | {"max_tokens_per_micro_batch": budgets[fitting - 1]}
    return {"sharding": None, "devices": None, "max_tokens_per_micro_batch": None}


def _flops(setup: Setup) -> dict[str, float]:
    """Floating-point operations of matmuls and causal attention, all epochs, all devices."""
    lm, config, workload = setup.model.lm, setup.config, setup.work
    tokens, head, per_square = workload.rows * workload.length, lm.get_output_embeddings().weight, 0
    # Of every two tokens, once. Heads differ from layer to layer in Gemma 4, for instance.
    for layer in lm.config.get_text_config().per_layer_config:
        count = layer.num_attention_heads
        per_square += 2 * count * (getattr(layer, "head_dim", None) or layer.hidden_size // count)
    matmuls = setup.trace(tokens).flops
    if attention_of(lm) == "eager":  # whose matmuls were counted, before and after one another
        matmuls -= 2 * per_square * tokens * workload.length
    squares = workload.squares
    if config.packing and attention_of(lm) != "planned_flash":
        squares = 2 * workload.tokens * workload.length  # every two tokens of a row, before and after one another
    backbone = workload.tokens * matmuls / tokens + per_square * squares
    # Backward: twice the forward pass, for the operands' gradients; frozen weights get none.
    passes = 1 + (2 if setup.model.peft_config is None else 1) + setup.checkpointing + config.loss.mismatched
    heads = (3 if config.loss.separable else 4) - (not head.requires_grad)
    of_head = 2.0 * head.numel() * workload.scored_tokens
    share = workload.reference_inputs / max(1, workload.tokens)
    return {
        "training": config.num_train_epochs * (passes * backbone + heads * of_head),
        "reference_pass": share * (backbone + of_head),
    }


def _hours(flops: dict[str, float], hardware: Hardware) -> dict[str, float] | None:
    """Hours from start to end and device hours, at the assumed share of the stated peak; None without one."""
    if not hardware.tflops:
        return None
    seconds = sum(flops.values()) / (hardware.tflops * 1e12 * UTILISATION)
    return {"wall": seconds / hardware.devices / 3600, "device": seconds / 3600, "utilisation": UTILISATION}


def _disk(setup: Setup) -> dict[str, int]:
    config, workload = setup.config, setup.work
    saved = weight_bytes(setup) if setup.model.peft_config is None else trained_bytes(setup)
    strategy = str(getattr(config.save_strategy, "value", config.save_strategy))
    steps = config.max_steps if config.max_steps > 0 else int(workload.steps * config.num_train_epochs)
    every = config.save_steps if config.save_steps >= 1 else max(1, int(config.save_steps * steps))
    # Trainer saves a last time when training ends.
    number = {"no": 0, "epoch": -(-steps // max(1, workload.steps))}.get(strategy, -(-steps // int(every)))
    number = min(number, config.save_total_limit or number)
    checkpoints = number * (saved + (0 if config.save_only_model else optimizer_bytes(setup)))
    return {"model": saved, "checkpoints": checkpoints, "number_of_checkpoints": number, "total": saved + checkpoints}


def plan_of_run(
    model: Any,
    config: PreferenceConfig,
    steps: StepDataset,
    evaluation: Sequence[StepDataset] = (),
    *,
    sharded: bool,
    resident: int,
) -> dict[str, Any] | None:
    """The plan of a run, as it was before it started; None, with the reason in the log, where there is none to be had.

    `model` is the policy, without what DDP or FSDP2 put around it; the reference pass sees the `evaluation` steps too.
    `resident` are the bytes that the process held, the model included, before training: gradients, optimizer states
    and what the allocator keeps of freed activations are no part of them.
    """
    try:
        bits = 4 if getattr(model, "is_loaded_in_4bit", False) else 8
        quantised = bits == 4 or getattr(model, "is_loaded_in_8bit", False)
        accelerator = torch.cuda.is_available() and not config.use_cpu
        loaded = sum(weight.numel() * weight.element_size() for weight in model.parameters())
        hardware = Hardware(
            devices=config.world_size,
            memory=torch.cuda.get_device_properties(0).total_memory if accelerator else None,
            sharded=sharded,
            accelerator=accelerator,
            bf16=bool(config.bf16),
            process=0 if accelerator else max(0, resident - loaded),
        )
        return make_plan(
            model.config,
            config,
            of_steps(steps, config, evaluation),
            hardware,
            dtype=getattr(model, "dtype", torch.float32),
            peft_config=model.active_peft_config if isinstance(model, PeftModel) else None,
            quantised_bits=bits if quantised else None,
        )
    except Exception as error:  # a plan must never stop a run
        logger.warning(f"No plan for run.json: {error}")
        return None
