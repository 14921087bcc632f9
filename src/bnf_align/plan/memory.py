"""Peak memory of a device before the run: estimates, from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from peft import PeftModel
from torch import nn
from transformers.pytorch_utils import Conv1D

from bnf_align.head.chunked_lm_head import CPU_CHUNK_BYTES, DEVICE_CHUNK_BYTES
from bnf_align.plan.activations import Activations, trace

MARGIN = 0.9
"""Share of a device's memory that a plan may fill: the rest is for its context and for what the allocator cannot use
(a working rule, not measured)."""

OPTIMIZER_BYTES = {"sgd": 0.0, "adafactor": 0.0, "lion_32bit": 4.0, "rmsprop": 4.0}
"""Bytes of state per trained parameter of optimizers that have not AdamW's two states of the parameter's own size."""


@dataclass(frozen=True)
class Setup:
    """What the memory of a device depends on.

    Args:
        model: The model on the meta device, adapter included.
        rows: Rows of the largest micro-batch.
        length: Their padded length.
        scored_share: Share of its tokens that are scored.
        later_tokens: Padded tokens of the largest micro-batch that is not the first of its step. Only from then on
            there are gradients, and the costliest micro-batch of a step comes first.
        bf16: bfloat16 autocast.
        checkpointing: Gradient checkpointing.
        accelerator: Not a CPU: tiles of the head are larger.
        optim: Name of the optimizer, as transformers has it.
        head: The head's implementation.
        separable: The loss forms its gradient in the forward pass.
        quantised_bits: 4 or 8 for QLoRA, else None.
        devices: Number of devices.
        sharded: FSDP2 instead of DDP.
    """

    model: nn.Module
    rows: int
    length: int
    scored_share: float = 1.0
    later_tokens: int = 0
    bf16: bool = False
    checkpointing: bool = False
    accelerator: bool = False
    optim: str = "adamw_torch_fused"
    head: str = "fused"
    quantised_bits: int | None = None
    devices: int = 1
    sharded: bool = False

    @cached_property
    def lm(self) -> Any:
        """The causal language model, without its adapter's wrapper."""
        return self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model

    @cached_property
    def activations(self) -> Activations:
        """Of one response; FSDP2 hands bfloat16 weights to the layers, so nothing is left to cast there."""
        return trace(self.model, self.length, torch.bfloat16 if self.bf16 else None)


def weight_bytes(setup: Setup) -> int:
    """Bytes of all weights as loaded."""
    total = sum(p.numel() * p.element_size() for p in setup.model.parameters())
    if setup.quantised_bits is None:
        return total
    frozen = [layer.weight for layer in backbone_linears(setup.lm) if not layer.weight.requires_grad]
    # Blocks of 64 weights share a number, which is 8 bits of double quantisation at best, 32 at worst.
    return int(total - sum(w.numel() * (w.element_size() - setup.quantised_bits / 8 - 1 / 16) for w in frozen))


def backbone_linears(lm: Any) -> list[Any]:
    """The linear layers of the model without its output head; adapters' own and GPT-2's Conv1D among them."""
    head = lm.get_output_embeddings()
    return [layer for layer in lm.modules() if layer is not head and isinstance(layer, (nn.Linear, Conv1D))]


def trained_bytes(setup: Setup) -> int:
    """Bytes of the trained weights, and so of their gradients."""
    return sum(p.numel() * p.element_size() for p in setup.model.parameters() if p.requires_grad)


def optimizer_bytes(setup: Setup) -> int:
    """Bytes of the optimizer's states."""
    trained = sum(p.numel() for p in setup.model.parameters() if p.requires_grad)
    if "8bit" in setup.optim:
        return trained * (1 if "lion" in setup.optim or "rmsprop" in setup.optim else 2)
    if setup.optim in OPTIMIZER_BYTES:
        return int(OPTIMIZER_BYTES[setup.optim] * trained)
    return 2 * trained_bytes(setup)


def head_bytes(setup: Setup, rows: float, training: bool = True) -> dict[str, int]:
    """Bytes that the head needs beside its weight: the buffer of logits, and the gradients it forms in float32."""
    weight = setup.lm.get_output_embeddings().weight
    vocabulary, hidden = weight.shape
    tokens = int(rows * setup.length * setup.scored_share)
    whole = 4 * tokens * vocabulary
    if setup.head == "logits":  # logits, their log-softmax, and the gradient of one
        tile = int(rows * setup.length) * vocabulary * 4 + whole * (2 if training else 1)
        return {"tile": tile, "dX": 0, "dW": 0}
    tile = min(DEVICE_CHUNK_BYTES if setup.accelerator else CPU_CHUNK_BYTES, whole)
    tile += tile // 2 if setup.accelerator and setup.bf16 and training else 0  # its gradient, rounded for the matmuls
    tile += tokens * hidden * weight.element_size()  # hidden states of the scored positions
    if not training:
        return {"tile": tile, "dX": 0, "dW": 0}
    return {
        "tile": tile,
        "dX": 4 * tokens * hidden,
        "dW": 4 * vocabulary * hidden if weight.requires_grad else 0,
    }


def peak_memory(setup: Setup) -> dict[str, int]:
    """Bytes of one device at its peak, by what they are for; `total` is what a device must have.

    Weights and optimizer states are always there, gradients from the end of a step's first micro-batch on.
    """
    weights, gradients, states = weight_bytes(setup), trained_bytes(setup), optimizer_bytes(setup)
    share = setup.devices if setup.sharded else 1
    first, later = micro_batch_bytes(setup, setup.rows), micro_batch_bytes(setup, setup.later_tokens / setup.length)
    # DDP keeps a second copy of the gradients from the start, in the buckets that it sends.
    buckets = gradients if setup.devices > 1 and not setup.sharded else 0
    parts = {
        "weights": weights // share,
        "gradients": gradients // share + buckets,
        "optimizer_states": states // share,
        "gathered": _gathered(setup) if setup.sharded else 0,
        "micro_batch": max(first - gradients // share, later if setup.later_tokens else 0, 0),
    }
    head = head_bytes(setup, setup.rows)
    return {
        **parts,
        "activations_without_checkpointing": setup.activations.forward(setup.rows, False),
        "activations_with_checkpointing": setup.activations.backward(setup.rows, True),
        "casts": 0 if setup.sharded else setup.activations.casts,
        **{f"head_{name}": size for name, size in head.items()},
        "total": sum(parts.values()),
        "reference_pass": reference_peak(setup),
    }


def micro_batch_bytes(setup: Setup, rows: float) -> int:
    """Bytes of a micro-batch at its peak: when the head works, or at the beginning of the backward pass."""
    kept, head = setup.activations, head_bytes(setup, rows)
    tied = bool(getattr(setup.lm.config.get_text_config(), "tie_word_embeddings", False))
    at_head = kept.forward(rows, setup.checkpointing) + sum(head.values())
    backward = kept.backward(rows, setup.checkpointing) + kept.passing(rows)
    backward += head["dW"] if tied else 0  # a tied weight's gradient waits for the embedding's part
    return max(at_head, backward) + (0 if setup.sharded else kept.casts)


def _gathered(setup: Setup) -> int:
    """FSDP2: two layers at a time, embedding and head whole, and one layer's gradient on its way to the others."""
    width = 2 if setup.bf16 else 4
    lm = setup.lm
    ends = {id(p): p.numel() for p in (lm.get_input_embeddings().weight, lm.get_output_embeddings().weight)}
    layers = len(setup.activations.layers) or 1
    layer = (sum(p.numel() for p in lm.parameters()) - sum(ends.values())) // layers
    return width * (2 * layer + sum(ends.values())) + (width + 4) * layer


def reference_peak(setup: Setup) -> int:
    """Bytes of the pass before training: the whole model on every device, no gradients, nothing kept."""
    kept = setup.activations
    batch = max(kept.passing(setup.rows), sum(head_bytes(setup, setup.rows, training=False).values()))
    return weight_bytes(setup) + kept.casts + batch
