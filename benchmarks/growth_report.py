"""From the points of `growth.py` to slopes, a table for people and a picture."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from protocol import Estimate, _versions, machine

STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""97.5 % quantiles of Student's t by degrees of freedom."""

LOOKS = {
    "head, BNF": ("#0072b2", "o-"),
    "head, fine-tuning": ("#56b4e9", "x--"),
    "head, Appendix B": ("#d55e00", "s-"),
    "head, TRL": ("#009e73", "^-"),
    "step, BNF": ("#000000", "D-"),
    "step, BNF, cut to 512": ("#767676", "v--"),
}
"""Colours that colour-blind readers tell apart too (Okabe and Ito, 2008), and marks."""

LABELS = {"tokens": "tokens of a step", "vocabulary": "vocabulary", "width": "width of the model"}


class Point(NamedTuple):
    """One size of one curve: a row of `results/growth.csv`."""

    axis: str
    curve: str
    size: int
    seconds: float
    least_seconds: float
    most_seconds: float
    peak_bytes: int


def read_points(path: Path) -> list[Point]:
    """The points in a `growth.csv`."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    return [
        Point(axis, curve, int(size), *map(float, seconds), int(peak)) for axis, curve, size, *seconds, peak in rows
    ]


class Slope(NamedTuple):
    """The exponent s of cost ~ size^s."""

    fitted: Estimate
    """By least squares to the logarithms, and its 95 % interval, which is as wide as the curve is bent or noisy."""
    last: float
    """Between the two largest sizes."""


def slope(sizes: Sequence[float], costs: Sequence[float]) -> Slope:
    """How `costs` grow with `sizes`; three sizes at least.

    >>> slope([1, 2, 4, 8], [3, 12, 48, 192]).fitted.figure
    2.0
    """
    x, y = np.log(sizes), np.log(costs)
    centred = x - x.mean()
    figure = centred @ y / (centred @ centred)
    residuals = y - y.mean() - figure * centred
    freedom = len(x) - 2
    half = STUDENT[freedom] * np.sqrt(residuals @ residuals / freedom / (centred @ centred))
    fitted = Estimate(*(round(float(value), 9) for value in (figure, figure - half, figure + half)))
    return Slope(fitted, float((y[-1] - y[-2]) / (x[-1] - x[-2])))


def slopes(points: Sequence[Point], axis: str) -> dict[str, tuple[Slope, Slope]]:
    """Of time and of memory, by curve."""
    found = {}
    for curve in dict.fromkeys(point.curve for point in points if point.axis == axis):
        here = on_curve(points, axis, curve)
        sizes = [point.size for point in here]
        costs = ([point.seconds for point in here], [float(point.peak_bytes) for point in here])
        found[curve] = (slope(sizes, costs[0]), slope(sizes, costs[1]))
    return found


def on_curve(points: Sequence[Point], axis: str, curve: str) -> list[Point]:
    """The points of a curve by size."""
    return sorted((p for p in points if (p.axis, p.curve) == (axis, curve)), key=lambda point: point.size)


INTRODUCTION = """\
# How cost grows

![time and memory against tokens, vocabulary and width](growth.svg)

Measured on a processor, one thread, CPU seconds, float32, by `python benchmarks/growth.py`. The points are in
[growth.csv](growth.csv), times with the least and the most of three rounds. A slope is the exponent s in cost ~ size^s
fitted by least squares to the logarithms of the medians, with its 95 % interval (Student's t): that is wide where a
curve is noisy and where it is bent, because no single exponent describes it. "last" is the slope between the two
largest sizes, where constant parts count least. Memory is the peak above what was held before, gradients included.

* head: forward and backward through the LM head alone, all tokens scored. Ours with the BNF and the fine-tuning loss;
  the paper's Appendix B with shift, mask and sign mended; TRL's chunked head with the tile that TRL sets.
* step: `training_step` with BNF of a Llama with 4 layers, rows of 256 tokens, two thirds of them scored; "cut to 512"
  is the same step under `max_tokens_per_micro_batch` 512 instead of the default.
"""

CLOSING = """\
## What the curves say

* BNF lies on fine-tuning at every size: there is nothing in it that grows.
* Time is close to proportional to the tokens, whichever head.
* Memory against tokens is what tells heads apart. Appendix B keeps arrays of tokens x vocabulary. TRL's tile, 4,096
  tokens x 32,768 entries, grows until a step fills it, and no further with the vocabulary. Ours is 64 MiB: beyond it a
  token adds its hidden state and that one's gradient alone. What still grows with vocabulary and width is the gradient
  of the weight, which every head has.
* Not better: with the vocabulary our time grows a little faster than in proportion, as Appendix B's does. One reason
  is the tile: 64 MiB hold 524 tokens of 32,000 logits, but 65 of 256,000, and the whole gradient of the weight is read
  and written once per tile.
* A step's memory follows its tokens only until `max_tokens_per_micro_batch` cuts it. Cut as finely as here it takes
  somewhat longer.
* All rows have one length: that attention is quadratic in it does not show here.
* A slope below 1 has a constant part under it (tile, gradients, weights) and says little beyond the sizes measured.
"""


def write_report(points: Sequence[Point], held: Mapping[str, int], path: Path) -> None:
    """`results/growth.md`."""
    parts = [INTRODUCTION]
    for axis in dict.fromkeys(point.axis for point in points):
        others = ", ".join(f"{name} {size:,}" for name, size in held.items() if name != axis)
        sizes = sorted({point.size for point in points if point.axis == axis})
        parts.append(f"## Against {LABELS[axis]}: {', '.join(f'{size:,}' for size in sizes)}\n\nWith {others}.\n")
        parts.append("| curve | time | last | memory | last |\n|---|---|---|---|---|")
        for curve, costs in slopes(points, axis).items():
            parts.append(f"| {curve} | {' | '.join(map(_cell, costs))} |")
        parts.append("")
    parts.append(f"{CLOSING}\n## Machine and versions\n\n{machine()}; {_versions()}\n")
    path.write_text("\n".join(parts), encoding="utf-8")


def _cell(found: Slope) -> str:
    figure, low, high = found.fitted
    return f"{figure:.2f} ({low:.2f} to {high:.2f}) | {found.last:.2f}"


def draw(points: Sequence[Point], *paths: Path) -> None:
    """The curves, time above memory, a column per axis."""
    axes_names = list(dict.fromkeys(point.axis for point in points))
    with rc_context({"svg.hashsalt": "growth", "svg.fonttype": "none"}):  # the same points, the same file
        figure = Figure(figsize=(12, 7), layout="constrained")  # without pyplot no display is ever asked for
        grid = figure.subplots(2, len(axes_names), sharex="col", sharey="row", squeeze=False)
        for column, axis in enumerate(axes_names):
            _panel(grid[0, column], points, axis, 0)
            _panel(grid[1, column], points, axis, 1)
            grid[1, column].set_xlabel(LABELS[axis])
        grid[0, 0].set_ylabel("CPU seconds")
        grid[1, 0].set_ylabel("peak MiB above what was held")
        for row in grid:
            row[0].set_ylim(top=6 * row[0].get_ylim()[1])  # room for the legends
        for path in paths:
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def _panel(axes: Axes, points: Sequence[Point], axis: str, quantity: int) -> None:
    for curve, found in slopes(points, axis).items():
        here = on_curve(points, axis, curve)
        costs = [point.peak_bytes / 2**20 if quantity else point.seconds for point in here]
        color, look = LOOKS[curve]
        label = f"{curve}: {found[quantity].fitted.figure:.2f}"
        axes.loglog([point.size for point in here], costs, look, color=color, label=label, markersize=4)
    sizes = sorted({point.size for point in points if point.axis == axis})
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
    axes.set_xticks([], minor=True)
    axes.legend(title="fitted slope", frameon=False, fontsize=7, title_fontsize=7, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
