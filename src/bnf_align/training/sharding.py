"""FSDP2: what was asked for must be what runs, and nothing may be rounded that a loss depends on."""

from __future__ import annotations

import os

import torch
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import Trainer

from bnf_align.records import BadInput


def asked_for() -> bool:
    """Whether the launcher was told to shard."""
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"


def loads_on_main_process_alone() -> bool:
    """Whether the other processes wait for FSDP to hand them their share of the weights."""
    return asked_for() and os.environ.get("FSDP_CPU_RAM_EFFICIENT_LOADING", "false").lower() == "true"


def check_sharding(trainer: Trainer) -> None:
    """Refuse FSDP that was dropped or is not FSDP2, and give bfloat16 runs a mixed-precision policy that can train."""
    if asked_for() and not trainer.is_fsdp_enabled:
        raise BadInput(
            "FSDP was asked for, but accelerate shards on accelerators alone and would run every process with the "
            "whole model. Launch with recipes/accelerate/ddp.yaml, or where there are GPUs."
        )
    if not trainer.is_fsdp_enabled:
        return
    plugin = trainer.accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise BadInput("FSDP1 is not supported: set fsdp_version: 2 in the launcher's file.")
    if trainer.args.bf16:
        # accelerate's own policy rounds the outputs and sums gradients over ranks in bfloat16.
        plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16, reduce_dtype=torch.float32, output_dtype=None
        )
