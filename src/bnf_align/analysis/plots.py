"""Figures 1, 3 and 4 of the paper, drawn from the rows that `measure` wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnf_align.analysis.bins import BINS
from bnf_align.analysis.curves import derivative_curve
from bnf_align.analysis.shifts import MEASURES
from bnf_align.analysis.summary import PERCENTILES, Rows, binned, values_of
from bnf_align.outputs import replacing

# Told apart by colour-blind readers too (Okabe and Ito, 2008).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#767676", "#000000")

REFERENCES = (0.2, 0.5, 0.8)
"""r(y) of the BNF curves in Figure 1."""


def figure_1(references: Sequence[float] = REFERENCES) -> Figure:
    """The likelihood-derivative curves of NLL and BNF; they need no model."""
    figure = Figure(figsize=(5.5, 4), layout="constrained")  # without pyplot no display is ever asked for
    axes = figure.add_subplot()
    # The kink of each curve is one of its points.
    likelihoods = np.union1d(np.linspace(0.002, 0.998, 499), references)
    nll = derivative_curve("nll_pll", likelihoods)
    axes.plot(likelihoods, nll, color="black", linestyle="--", label="NLL", zorder=3)
    for reference, color in zip(references, COLORS, strict=False):
        curve = derivative_curve("bnf", likelihoods, reference)
        axes.plot(likelihoods, curve, color=color, label=f"BNF, reference at {reference:g}")
    axes.set(xlabel="likelihood of the token", ylabel="|∂L/∂z| of its logit", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False)
    _plain(axes)
    return figure


def figure_3(rows: Rows) -> Figure:
    """Six panels: (a) to (c) for whole responses, (d) and (e) per token, (f) the Gini coefficients."""
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    panels = figure.subplots(2, 3).flat
    whole, logit, per_token, logit_per_token, gini = MEASURES
    for letter, axes, measure in zip(
        "abcdef", panels, (whole, logit, None, per_token, logit_per_token, gini), strict=True
    ):
        if measure is None:
            _against(axes, rows, whole, logit)
        else:
            _boxes(axes, rows, measure)
        axes.set_title(f"({letter})", loc="left")
        _plain(axes)
    figure.supxlabel("Boxes: quartiles of the responses; whiskers: 5th and 95th percentile; diamonds: mean.", size=9)
    return figure


def figure_4(rows: Rows, bins_of: str) -> Figure:
    """Share of each method's tokens in the tenths of the token shifts of `bins_of`."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.add_subplot()
    edges, shares = binned(rows, bins_of)
    width = 0.8 / len(shares)
    for number, (name, of_method) in enumerate(shares.items()):
        places = np.arange(BINS) + (number - (len(shares) - 1) / 2) * width
        axes.bar(places, 100 * of_method, width, color=COLORS[number % len(COLORS)], label=name)
    axes.axhline(100 / BINS, color="black", linewidth=0.6)
    axes.set_xticks(np.arange(BINS - 1) + 0.5, [f"{edge:.2g}" for edge in edges])
    axes.set(
        xlabel=f"log-likelihood shift of a token (nats), cut into tenths of {bins_of}'s", ylabel="share of tokens, %"
    )
    axes.legend(frameon=False)
    _plain(axes)
    return figure


def save(figure: Figure, folder: str | Path, name: str) -> list[Path]:
    """Write NAME.png and NAME.svg into `folder`, each in one step; the same figure gives the same bytes."""
    paths = [Path(folder) / f"{name}.{kind}" for kind in ("png", "svg")]
    with rc_context({"svg.hashsalt": "bnf-align", "svg.fonttype": "none"}):
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            with replacing(path) as (temporary,):
                figure.savefig(temporary, format=path.suffix[1:], dpi=150, metadata=metadata)
    return paths


def _boxes(axes: Axes, rows: Rows, measure: str) -> None:
    """Median, quartiles, 5th and 95th percentile and mean (diamond) of a measure, a box for each method."""
    boxes = axes.boxplot(
        [values_of(of_method, measure) for of_method in rows.values()],
        tick_labels=list(rows),
        whis=(PERCENTILES[0], PERCENTILES[-1]),
        showfliers=False,
        showmeans=True,
        meanprops={"marker": "D", "markersize": 4, "markerfacecolor": "white", "markeredgecolor": "black"},
        medianprops={"color": "black"},
        patch_artist=True,
    )
    for number, box in enumerate(boxes["boxes"]):
        box.set(facecolor=COLORS[number % len(COLORS)], alpha=0.6)
    axes.set_ylabel(MEASURES[measure])
    if measure == "gini":
        axes.set_ylim(0, 1)
    else:
        axes.axhline(0, color="black", linewidth=0.6)


def _against(axes: Axes, rows: Rows, across: str, up: str) -> None:
    """A point for each response: one measure against another."""
    for number, (name, of_method) in enumerate(rows.items()):
        color = COLORS[number % len(COLORS)]
        points = values_of(of_method, across), values_of(of_method, up)
        axes.scatter(*points, s=8, alpha=0.5, linewidths=0, color=color, label=name, rasterized=True)
    axes.set(xlabel=MEASURES[across], ylabel=MEASURES[up])
    axes.axvline(0, color="black", linewidth=0.6)
    axes.legend(frameon=False)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
