"""From outcomes to statements: the mean of a measurement over prompts with a bootstrap interval, before and after."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

RESAMPLES = 4_000


Estimate = dict[str, float]
"""`mean` over prompts, and `low` and `high`, its 95 % interval."""


def estimate(values: Sequence[float] | np.ndarray, seed: int = 0) -> Estimate:
    """The mean of (prompts,) values with the percentile bootstrap interval over prompts (Efron, 1979)."""
    values = np.asarray(values, dtype=np.float64)
    drawn = np.random.default_rng(seed).integers(len(values), size=(RESAMPLES, len(values)), dtype=np.int32)
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def compare(before: Sequence[float], after: Sequence[float], seed: int = 0) -> dict[str, Estimate]:
    """`before`, `after` and `change` of two models' values on the same prompts; ValueError if the lengths differ.

    The change is paired by prompt: what makes a prompt hard for both models cancels out.
    """
    first, second = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"Before has {first.shape} values and after {second.shape}: they cannot be paired.")
    sides = {"before": first, "after": second, "change": second - first}
    return {name: estimate(values, seed) for name, values in sides.items()}


def beside_bnf(
    values: Mapping[str, Mapping[str, Sequence[float]]], names: Iterable[str], seed: int
) -> dict[str, dict[str, dict[str, Estimate]]]:
    """Of each method and measure the mean (`after`), its `change` from "base", and its distance from "bnf"."""
    return {
        method: {
            name: {
                "after": estimate(own[name], seed),
                "change": compare(values["base"][name], own[name], seed)["change"],
                "against_bnf": compare(values["bnf"][name], own[name], seed)["change"],
            }
            for name in names
        }
        for method, own in values.items()
    }
