"""From outcomes to statements: the mean of a measurement over prompts with a bootstrap interval, before and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

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


def beside_bnf(
    values: Mapping[str, Mapping[str, Sequence[float]]], names: Iterable[str], seed: int
) -> dict[str, dict[str, Any]]:
    """Of each method and measure the mean (`after`), its `change` from "base", and its distance from "bnf"."""
    return {
        method: {
            name: {
                "after": asdict(estimate(own[name], seed)),
                "change": asdict(compare(values["base"][name], own[name], seed).change),
                "against_bnf": asdict(compare(values["bnf"][name], own[name], seed).change),
            }
            for name in names
        }
        for method, own in values.items()
    }
