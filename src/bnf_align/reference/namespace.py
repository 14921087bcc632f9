"""What reference values depend on besides the tokens: whoever differs in any of it must not share them."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import torch

from bnf_align.fingerprint import adapters_digest, settings_digest, weights_hash
from bnf_align.upstream import attention_of, experts_of

HEAD_VERSION = 1
"""Raise it whenever `head` would give other values for the same model and tokens."""


def namespace_of(
    model: Any,
    *,
    autocast: torch.dtype | None,
    head: str,
    packing: bool = False,
    device: str = "cpu",
    sharded: bool = False,
) -> dict[str, Any]:
    """Everything besides the tokens that reference values depend on, as JSON values.

    Args:
        model: The reference: a causal language model, or an adapter around one.
        autocast: The dtype that matmuls are rounded to; None for that of the weights.
        head: The head's implementation, `fused` or `logits`.
        packing: Responses stand one after another in one row.
        device: Kind of device: `cpu`, `cuda`, ...
        sharded: FSDP2 hands the forward pass weights in the dtype of `autocast`; autocast itself leaves them as they
            are and rounds what is multiplied.
    """
    adapters = adapters_digest(model)
    packages = ["torch", "transformers", *(["peft"] if adapters else [])]
    if getattr(model, "is_quantized", False):
        packages.append("bitsandbytes")
    return {
        "head": f"{head}-{HEAD_VERSION}",
        "weights": weights_hash(model),
        "config": settings_digest(model.config.to_dict()),
        "adapters": adapters,
        "dtype": str(next(model.parameters()).dtype),
        "autocast": f"{autocast} weights" if autocast is not None and sharded else str(autocast),
        "matmul_precision": str(getattr(torch.backends.cuda.matmul, "fp32_precision", None)),  # TF32
        # Packed rows may take another kernel than padded ones, and policy and reference must round alike.
        "attention": attention_of(model) + (" packed" if packing else ""),
        "experts": experts_of(model),
        "device": device,
        # A bug mended in a model's code or in a kernel gives other values.
        "versions": {package: version(package) for package in packages},
    }
