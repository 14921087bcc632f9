"""What reference values depend on besides the tokens: whoever differs in any of it must not share them."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from typing import Any

import torch
from peft import PeftModel

from bnf_align.fingerprint import weights_hash
from bnf_align.reference.cache import digest
from bnf_align.upstream import attention_of, experts_of

HEAD_VERSION = 1
"""Raise it whenever `head` would give other values for the same model and tokens."""

# Names, versions and settings that say nothing about the values of a forward pass in evaluation mode.
IGNORED = re.compile(
    r"_name_or_path|transformers_version|dtype|use_cache|dropout|pdrop|(bos|eos|pad)_token_id"
    r"|revision|inference_mode|init_lora_weights|auto_mapping|runtime_config|peft_version"
)


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
    adapters = {}
    if isinstance(model, PeftModel):
        # Scaling (alpha), rank patterns and the like are not in the weights, and only active adapters act.
        adapters = {name: _digest(model.peft_config[name].to_dict()) for name in model.active_adapters}
    packages = ["torch", "transformers", *(["peft"] if adapters else [])]
    if getattr(model, "is_quantized", False):
        packages.append("bitsandbytes")
    return {
        "head": f"{head}-{HEAD_VERSION}",
        "weights": weights_hash(model),
        "config": _digest(model.config.to_dict()),
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


def _digest(settings: dict[str, Any]) -> str:
    kept = {key: value for key, value in settings.items() if not IGNORED.search(key)}
    return digest(json.dumps(kept, sort_keys=True, default=_plain).encode())


def _plain(value: Any) -> Any:
    """Sets (an adapter's target modules) have no order of their own."""
    return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)
