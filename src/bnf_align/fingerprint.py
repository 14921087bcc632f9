"""A model's weights as a short text: what was made with other weights must not pass for theirs."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from typing import Any

import torch
import xxhash
from peft import PeftModel
from torch import Tensor, nn

from bnf_align.upstream import attention_of, experts_of

HEAD_VERSION = 1
"""Raise it whenever `head` would give other values for the same model and tokens."""

# Names, versions and settings that say nothing about the values of a forward pass in evaluation mode.
IGNORED = re.compile(
    r"_name_or_path|transformers_version|dtype|use_cache|dropout|pdrop|(bos|eos|pad)_token_id"
    r"|revision|inference_mode|init_lora_weights|auto_mapping|runtime_config|peft_version"
)


def settings_digest(settings: dict[str, Any]) -> str:
    """Of a model's or an adapter's config, without what changes no value."""

    def plain(value: Any) -> Any:  # sets (an adapter's target modules) have no order of their own
        return sorted(map(str, value)) if isinstance(value, set | frozenset) else str(value)

    kept = {key: value for key, value in settings.items() if not IGNORED.search(key)}
    return str(xxhash.xxh3_128_hexdigest(json.dumps(kept, sort_keys=True, default=plain).encode()))


def adapters_digest(model: Any) -> dict[str, str]:
    """Active adapter -> digest of its settings: scaling (alpha), rank patterns and the like are not in the weights."""
    if not isinstance(model, PeftModel):
        return {}
    return {name: settings_digest(model.peft_config[name].to_dict()) for name in model.active_adapters}


def weights_hash(model: nn.Module) -> str:
    """Hash of every weight and saved buffer (adapters too) with its name, type and shape; 32 hexadecimal digits.

    The settings of active adapters count. Buffers that no checkpoint holds, such as rotary frequencies, follow from
    the config: whoever compares models by this compares their configs too.

    XXH3, which is not made to resist forgery: nobody gains by forging the name of a model in a cache of his own.
    """

    def entry(named: tuple[str, Any]) -> bytes:
        name, value = named
        if not isinstance(value, Tensor):
            return f"{name}|{value!r}".encode()
        data = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        return f"{name}|{value.dtype}|{tuple(value.shape)}|".encode() + xxhash.xxh3_128(data.data).digest()

    with ThreadPoolExecutor(4) as pool:  # xxhash works outside Python's lock
        entries = [*pool.map(entry, sorted(model.state_dict().items()))]
    entries += [f"{name}|{found}".encode() for name, found in sorted(adapters_digest(model).items())]
    return str(xxhash.xxh3_128(b"\n".join(entries)).hexdigest())


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
        sharded: FSDP2 hands out weights in the dtype of `autocast`, which itself rounds what is multiplied.
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
