"""From outcomes to statements: the mean of a measurement over prompts with a bootstrap interval, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 4_000


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts and its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Change:
    """One measurement of two models on the same prompts."""

    before: Estimate
    after: Estimate
    change: Estimate
    """After minus before, paired by prompt: what makes a prompt hard for both models cancels out."""


def estimate(values: Sequence[float] | np.ndarray, seed: int = 0) -> Estimate:
    """The mean of (prompts,) values with the percentile bootstrap interval over prompts (Efron, 1979)."""
    values = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)), dtype=np.int32)
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high))


def compare(before: Sequence[float], after: Sequence[float], seed: int = 0) -> Change:
    """Two models' values on the same prompts, in the same order; ValueError if the lengths differ."""
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"Before has {first.shape} values and after {second.shape}: they cannot be paired.")
    return Change(estimate(first, seed), estimate(second, seed), estimate(second - first, seed))
