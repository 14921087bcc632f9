"""The quickstart's picture: what BNF does to right and wrong answers while it trains, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnf_align.lab.table import ACCURACIES

UP, DOWN, BEFORE = "#0072b2", "#d55e00", "#767676"  # told apart by colour-blind readers too (Okabe and Ito, 2008)


def draw(path: Path, result: Mapping[str, Any]) -> None:
    """Draw the contents of `quickstart.json` and write them as PNG."""
    figure = Figure(figsize=(11, 5), layout="constrained")  # without pyplot no display is ever asked for
    grid = figure.add_gridspec(2, 2, width_ratios=[1, 1.1])
    shift = figure.add_subplot(grid[0, 0])
    weight = figure.add_subplot(grid[1, 0], sharex=shift)
    _sides(shift, result["history"], "bnf/shift", "shift of log-probability\nper token (nats)")
    shift.axhline(0, color="black", linewidth=0.6)
    shift.legend(frameon=False)
    _sides(weight, result["history"], "bnf/weight", "mean BNF weight\nof a token")
    weight.set(xlabel="BNF step", ylim=(0, 1.05))
    _accuracies(figure.add_subplot(grid[:, 1]), result["measures"])
    counts = result["preferences"]
    figure.suptitle(
        f"BNF on a tiny model's own answers: {counts['ups']:,} thumbs up, {counts['downs']:,} down, "
        f"seed {result['seed']}"
    )
    figure.savefig(path, dpi=150)


def _sides(axes: Axes, history: Sequence[Mapping[str, Any]], name: str, label: str) -> None:
    for side, word, color in (("chosen", "right answers", UP), ("rejected", "wrong answers", DOWN)):
        lines = [line for line in history if f"{name}/{side}" in line]
        steps, values = [line["step"] for line in lines], [line[f"{name}/{side}"] for line in lines]
        axes.plot(steps, values, color=color, label=word)
    axes.set_ylabel(label)
    axes.spines[["top", "right"]].set_visible(False)


def _accuracies(axes: Axes, measures: Mapping[str, Any]) -> None:
    rows = [-row for row in range(len(ACCURACIES))]
    for side, offset, color, word in (("before", 0.12, BEFORE, "before"), ("after", -0.12, UP, "after BNF")):
        found = [measures[name][side] for name in ACCURACIES]
        means = [100 * one["mean"] for one in found]
        below = [100 * (one["mean"] - one["low"]) for one in found]
        above = [100 * (one["high"] - one["mean"]) for one in found]
        places = [row + offset for row in rows]
        axes.errorbar(means, places, xerr=[below, above], fmt="o", capsize=3, color=color, label=word)
        for mean, place in zip(means, places, strict=True):
            axes.annotate(f"{mean:.1f}", (mean, place), (0, 6), textcoords="offset points", ha="center", color=color)
    axes.set(yticks=rows, yticklabels=[title.replace(": ", "\n") for title in ACCURACIES.values()])
    axes.set(
        xlabel="right answers to fresh prompts, % (95 % intervals)", xlim=(None, 102.5), ylim=(rows[-1] - 0.5, 0.5)
    )
    axes.legend(frameon=False, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.3)
