"""Peak memory of a device before the run: what stays, from the parameters; what passes, from a trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from bnf_align.config import PreferenceConfig
from bnf_align.plan.fake import FakeModel, Hardware, Passes, Trace, linears
from bnf_align.plan.workload import Workload

MARGIN = 0.9
"""Share of a device's memory that tensors can fill; the rest is lost between blocks and to its context. A rule."""

UNUSED = 0.3
"""Share of what a forward pass frees between what it keeps that is not used again on a CPU: in glibc 2.36 an aligned
block needs more room than a freed one of its own size. Measured in six forward passes of a Llama of 135 million
parameters: 0.31, 0.35 and 0.35 with LoRA, 0.03, 0.21 and 0.30 with all weights trained; this is the median."""

OPTIMIZER_BYTES = {"sgd": 0.0, "adafactor": 0.0, "lion_32bit": 4.0, "rmsprop": 4.0}
"""Bytes of state per trained parameter of optimizers that have not AdamW's two states of the parameter's own size."""


@dataclass(frozen=True)
class Setup:
    """What the memory of a device depends on."""

    model: FakeModel
    config: PreferenceConfig
    work: Workload
    hardware: Hardware

    @property
    def checkpointing(self) -> bool:
        """Whether layers run again in the backward pass."""
        return bool(self.config.activation_checkpointing or self.config.gradient_checkpointing)

    @property
    def share(self) -> int:
        """Each device keeps one in so many of the weights, gradients and optimizer states."""
        return self.hardware.devices if self.hardware.sharded else 1

    def trace(self, tokens: int, passes: Passes = "training", checkpointing: bool | None = None) -> Trace:
        """What a micro-batch of `tokens` takes: as many rows of the largest one's length as hold them, or one row."""
        length = min(tokens, self.work.length) if not self.config.packing else tokens
        again = self.checkpointing if checkpointing is None else checkpointing
        sharded = bool(self.hardware.sharded) and passes != "reference"
        return self.model.trace(-(-tokens // length), length, self.work.scored_share, again, sharded, passes)


def weight_bytes(setup: Setup) -> int:
    """Bytes of all weights as loaded."""
    total = sum(p.numel() * p.element_size() for p in setup.model.model.parameters())
    # Blocks of 64 weights share a number, which is 8 bits of double quantisation at best, 32 at worst.
    kept = (setup.model.quantised_bits or 0) / 8 + 1 / 16
    return int(total - sum(w.numel() * (w.element_size() - kept) for w in _quantised(setup)))


def _quantised(setup: Setup) -> list[nn.Parameter]:
    if setup.model.quantised_bits is None:
        return []
    return [layer.weight for layer in linears(setup.model.lm) if not layer.weight.requires_grad]


def trained_bytes(setup: Setup) -> int:
    """Bytes of the trained weights, and so of their gradients."""
    return sum(p.numel() * p.element_size() for p in setup.model.model.parameters() if p.requires_grad)


def optimizer_bytes(setup: Setup) -> int:
    """Bytes of the optimizer's states."""
    trained = sum(p.numel() for p in setup.model.model.parameters() if p.requires_grad)
    optim = str(getattr(setup.config.optim, "value", setup.config.optim))
    if "8bit" in optim:
        return trained * (1 if "lion" in optim or "rmsprop" in optim else 2)
    if optim in OPTIMIZER_BYTES:
        return int(OPTIMIZER_BYTES[optim] * trained)
    return 2 * trained_bytes(setup)


def training_memory(setup: Setup) -> dict[str, int]:
    """Bytes of one device at the peak of training, by what they are for.

    Weights and optimizer states are always there, gradients from the end of a step's first micro-batch on.
    """
    gradients, share, work = trained_bytes(setup), setup.share, setup.work
    later = max(setup.trace(work.later_tokens).peaks.values()) if work.later_tokens else 0
    largest = setup.trace(work.rows * work.length)
    first = largest.peak(share) - gradients // share
    buckets = gradients if setup.hardware.devices > share else 0  # DDP's, a second copy from the start
    return {
        "weights": weight_bytes(setup) // share,
        "gradients": gradients // share + buckets,
        "optimizer_states": optimizer_bytes(setup) // share,
        "gathered": _gathered(setup) if setup.hardware.sharded else 0,
        "micro_batch": max(first, later, 0) + _dequantised(setup),
        "allocator": _allocator(setup, largest),
        "process": setup.hardware.process,
    }


def peak_memory(setup: Setup) -> dict[str, int]:
    """`training_memory`, their `total`, which a device must have, and more of what they are made of."""
    parts, tokens = training_memory(setup), setup.work.rows * setup.work.length
    # The pass before training: the whole model on every device, no gradients, nothing kept. It cuts all rows at once.
    rows, length = setup.work.reference_rows, setup.work.reference_length
    alone = setup.model.trace(rows, length, setup.work.scored_share, False, False, "reference")
    reference = weight_bytes(setup) + _dequantised(setup) + max(alone.peaks.values())
    head = setup.model.head_bytes(int(tokens * setup.work.scored_share))
    without, under = (
        setup.trace(tokens, "training" if on == setup.checkpointing else "forward", on).activations
        for on in (False, True)
    )
    return {
        **parts,
        "activations_without_checkpointing": without,
        "activations_with_checkpointing": under,
        **{f"head_{name}": size for name, size in head.items()},
        "total": sum(parts.values()),
        "reference_pass": reference + _allocator(setup, alone) + setup.hardware.process,
    }


def _dequantised(setup: Setup) -> int:
    """Bytes of the largest quantised weight while it is multiplied."""
    return max((w.numel() * w.element_size() for w in _quantised(setup)), default=0)


def _allocator(setup: Setup, trace: Trace) -> int:
    """Bytes lost between the blocks that a forward pass keeps, where the C library serves; see `UNUSED`."""
    return 0 if setup.hardware.accelerator else min(int(UNUSED * trace.passed), trace.activations)


def _gathered(setup: Setup) -> int:
    """FSDP2: two layers at a time, embedding and head whole, and one layer's gradient on its way to the others."""
    width = 2 if setup.hardware.bf16 else 4
    lm: Any = setup.model.lm
    ends = {id(p): p.numel() for p in (lm.get_input_embeddings().weight, lm.get_output_embeddings().weight)}
    layers = lm.config.get_text_config().num_hidden_layers
    layer = (sum(p.numel() for p in lm.parameters()) - sum(ends.values())) // layers
    return width * (2 * layer + sum(ends.values())) + (width + 4) * layer
