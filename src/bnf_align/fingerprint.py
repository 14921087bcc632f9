"""A model's weights as a short text: what was made with other weights must not pass for theirs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import xxhash
from torch import Tensor, nn


def weights_hash(model: nn.Module) -> str:
    """Hash of every weight and saved buffer (adapters too) with its name, type and shape; 32 hexadecimal digits.

    Buffers that no checkpoint holds, such as rotary frequencies, follow from the config: whoever compares models by
    this compares their configs too, and those of their adapters, where alpha and the choice of the active one stand.

    XXH3, which is not made to resist forgery: nobody gains by forging the name of a model in a cache of his own.
    """

    def entry(named: tuple[str, Any]) -> bytes:
        name, value = named
        if not isinstance(value, Tensor):
            return f"{name}|{value!r}".encode()
        data = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
        return f"{name}|{value.dtype}|{tuple(value.shape)}|".encode() + xxhash.xxh3_128(data.data).digest()

    with ThreadPoolExecutor(4) as pool:  # xxhash works outside Python's lock
        return str(xxhash.xxh3_128(b"\n".join(pool.map(entry, sorted(model.state_dict().items())))).hexdigest())
