"""Figures 1 to 4 of the paper, and BNF weights by label, drawn from the files that `measure` wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnf_align.analysis.overlap import BETA, Pair
from bnf_align.analysis.shifts import MEASURES
from bnf_align.analysis.summary import BINS, PERCENTILES, Files, binned
from bnf_align.analysis.table import column
from bnf_align.analysis.tokens import WEIGHT_BINS, weight_shares
from bnf_align.losses import LOSSES, CompletionLogps
from bnf_align.outputs import replacing

# Told apart by colour-blind readers too (Okabe and Ito, 2008).
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#767676", "#000000")

REFERENCES = (0.2, 0.5, 0.8)
"""r(y) of the BNF curves in Figure 1."""


def derivative_curve(
    loss: str, likelihoods: np.ndarray, reference: float | None = None, *, preferred: bool = False
) -> np.ndarray:
    """(n,) |dL/dz_y| of a response of one token with likelihoods (n,), by autograd through a pointwise loss itself.

    The token stands against one other: what the rest of the vocabulary looks like has no say in Eq. 9. `nll_pll` gives
    1 - pi, `bnf` Eq. 9 with |y| = 1 and r(y) = `reference`. The label turns the sign and leaves the magnitude.
    """
    z = torch.as_tensor(likelihoods, dtype=torch.float64).logit()[:, None].requires_grad_()
    logps = torch.nn.functional.logsigmoid(z)
    ref_logps = None if reference is None else torch.full_like(logps, reference).log().detach()
    completions = CompletionLogps(logps, torch.ones_like(logps, dtype=torch.bool), ref_logps)
    value = LOSSES[loss].function(completions, torch.full((len(z),), preferred))
    return torch.autograd.grad(value.sum(), z)[0].abs()[:, 0].numpy()


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
    _plain(axes)
    return figure


def figure_2(pairs: Mapping[str, Sequence[Pair]]) -> Figure:
    """A point for each pair of a method, by how many of its tokens both answers share.

    (a) the gap of their log-likelihoods, in nats and in the paper's unit; (b) what is left of DPO's gradient.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    gaps, contrasts = figure.subplots(1, 2)
    first = next(iter(pairs.values()))
    dots = {"s": 10, "alpha": 0.5, "linewidths": 0, "rasterized": True}
    gaps.scatter([pair.overlap for pair in first], [pair.ref_gap for pair in first], color="0.6", label="base", **dots)
    for number, (name, of_method) in enumerate(pairs.items()):
        color, overlaps = COLORS[number % len(COLORS)], [pair.overlap for pair in of_method]
        gaps.scatter(overlaps, [pair.gap for pair in of_method], color=color, label=name, **dots)
        contrasts.scatter(overlaps, [pair.contrast for pair in of_method], color=color, label=name, **dots)
    gaps.axhline(0, color="black", linewidth=0.6)
    contrasts.axhline(0.5, color="black", linewidth=0.6)
    gaps.set(ylabel="log-likelihood gap, chosen - rejected (nats)")
    gaps.secondary_yaxis("right", functions=(lambda y: y / np.log(10), lambda y: y * np.log(10))).set_ylabel("log10")
    contrasts.set(ylabel=f"DPO's contrastive function over beta, beta {BETA:g}", ylim=(0, 1))
    for letter, axes in zip("ab", (gaps, contrasts), strict=True):
        axes.set(xlabel="share of tokens that both answers have", xlim=(0, 1.02))
        axes.set_title(f"({letter})", loc="left")
        _plain(axes)
    return figure


def figure_weights(files: Files) -> Figure:
    """A panel for each method: share of the tokens of each side by BNF weight."""
    figure = Figure(figsize=(4.2 * len(files), 3.6), layout="constrained")
    panels = figure.subplots(1, len(files), sharey=True, squeeze=False)[0]
    for axes, (name, file) in zip(panels, files.items(), strict=True):
        found = weight_shares(file)
        width = 0.8 / len(found)
        for number, (side, shares) in enumerate(found.items()):
            places = np.arange(WEIGHT_BINS) + (number - (len(found) - 1) / 2) * width
            axes.bar(places, 100 * np.array(shares), width, color=COLORS[number % len(COLORS)], label=side)
        ticks = np.arange(0, WEIGHT_BINS + 1, 2)
        axes.set_xticks(ticks - 0.5, [f"{tick / WEIGHT_BINS:g}" for tick in ticks])
        axes.set(title=name, xlabel="BNF weight of a token")
        _plain(axes)
    panels[0].set_ylabel("share of the side's tokens, %")
    return figure


def figure_3(files: Files) -> Figure:
    """Six panels: (a) to (c) for whole responses, (d) and (e) per token, (f) the Gini coefficients."""
    figure = Figure(figsize=(13, 7.5), layout="constrained")
    panels = figure.subplots(2, 3).flat
    whole, logit, per_token, logit_per_token, gini = MEASURES
    shown = (whole, logit, None, per_token, logit_per_token, gini)
    for letter, axes, measure in zip("abcdef", panels, shown, strict=True):
        if measure is None:
            _against(axes, files, whole, logit)
        else:
            _boxes(axes, files, measure)
        axes.set_title(f"({letter})", loc="left")
        _plain(axes, legend=measure is None)
    figure.supxlabel("Boxes: quartiles of the responses; whiskers: 5th and 95th percentile; diamonds: mean.", size=9)
    return figure


def figure_4(files: Files, bins_of: str) -> Figure:
    """Share of each method's tokens in the tenths of the token shifts of `bins_of`."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    axes = figure.add_subplot()
    edges, shares = binned(files, bins_of)
    width = 0.8 / len(shares)
    for number, (name, of_method) in enumerate(shares.items()):
        places = np.arange(BINS) + (number - (len(shares) - 1) / 2) * width
        axes.bar(places, 100 * of_method, width, color=COLORS[number % len(COLORS)], label=name)
    axes.axhline(100 / BINS, color="black", linewidth=0.6)
    axes.set_xticks(np.arange(BINS - 1) + 0.5, [f"{edge:.2g}" for edge in edges])
    axes.set(
        xlabel=f"log-likelihood shift of a token (nats), cut into tenths of {bins_of}'s", ylabel="share of tokens, %"
    )
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


def _boxes(axes: Axes, files: Files, measure: str) -> None:
    """Median, quartiles, 5th and 95th percentile and mean (diamond) of a measure, a box for each method."""
    boxes = axes.boxplot(
        [column(file, measure) for file in files.values()],
        tick_labels=list(files),
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


def _against(axes: Axes, files: Files, across: str, up: str) -> None:
    """A point for each response: one measure against another."""
    for number, (name, file) in enumerate(files.items()):
        color = COLORS[number % len(COLORS)]
        points = column(file, across), column(file, up)
        axes.scatter(*points, s=8, alpha=0.5, linewidths=0, color=color, label=name, rasterized=True)
    axes.set(xlabel=MEASURES[across], ylabel=MEASURES[up])
    axes.axvline(0, color="black", linewidth=0.6)


def _plain(axes: Axes, legend: bool = True) -> None:
    if legend:
        axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
