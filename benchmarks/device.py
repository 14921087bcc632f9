"""A device and how it is measured: time by its own clock, peak memory, the ceiling of its bfloat16 matmuls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from protocol import Estimate, bootstrap, cpu_seconds, gpu_seconds, median_ratio, paired_seconds

from bnf_align.training.record import peak_memory

MATMULS = 10
"""In one timed call, because a single one is so short that its launch would count."""

WARM_UP = 3
"""Calls before the first round: kernels are compiled and chosen, the allocator has its blocks."""


class Device:
    """A CUDA device; or the processor, on which the same code can be tried out.

    Args:
        name: "cuda" or "cpu".
    """

    def __init__(self, name: str) -> None:
        self.name, self.cuda = name, name == "cuda"

    def seconds(self, calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, np.ndarray]:
        """Seconds of every call in every round."""
        clock = gpu_seconds if self.cuda else cpu_seconds
        seconds = paired_seconds(*calls.values(), rounds=rounds, warm_up=WARM_UP if self.cuda else 1, clock=clock)
        return dict(zip(calls, seconds.T, strict=True))

    def held(self) -> int:
        """Bytes in use now; 0 on the processor."""
        return torch.cuda.memory_allocated() if self.cuda else 0

    def peak(self, call: Callable[[], Any]) -> int:
        """Bytes in use at the peak of `call`, what was held before included; on the processor since the start."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        call()
        return peak_memory()

    def ceiling(self, size: int, rounds: int = 30) -> Estimate:
        """Floating-point operations per second of a bfloat16 matmul of `size` x `size` random numbers."""
        left, right = (torch.randn(size, size, device=self.name).bfloat16() for _ in range(2))
        product = torch.empty_like(left)

        def call() -> None:
            for _ in range(MATMULS):
                torch.mm(left, right, out=product)

        return bootstrap(2 * MATMULS * size**3 / self.seconds({"": call}, rounds)[""], _median)

    def release(self) -> None:
        """Give back what nobody uses any more."""
        if self.cuda:
            torch.cuda.empty_cache()


_median: Callable[[np.ndarray], float] = partial(np.median)


def milliseconds(seconds: np.ndarray) -> Estimate:
    """The median over rounds."""
    return bootstrap(1e3 * seconds, _median)


def rates(amount: float, seconds: np.ndarray) -> Estimate:
    """`amount` per second."""
    return bootstrap(amount / seconds, _median)


def compared(prefix: str, seconds: Mapping[str, np.ndarray]) -> dict[str, Estimate]:
    """The rows PREFIX-ms-NAME; BNF over SFT and over itself (`again`), where these are there; the others over BNF."""
    ours, found = seconds["bnf"], {}
    for name, row in seconds.items():
        if name == "again":
            found[f"{prefix}-noise-floor"] = median_ratio(ours, row)
            continue
        found[f"{prefix}-ms-{name}"] = milliseconds(row)
        if name == "sft":
            found[f"{prefix}-time-bnf-sft"] = median_ratio(ours, row)
        elif name != "bnf":
            found[f"{prefix}-time-{name}-bnf"] = median_ratio(row, ours)
    return found
