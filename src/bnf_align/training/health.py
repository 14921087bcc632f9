"""What a run says about itself: sums per step on the device, one reduction per log line, names as in TRL."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bnf_align.losses import CompletionLogps, LossSpec, bnf_weights
from bnf_align.records import counted

SATURATED = 0.1
"""Below this BNF weight a token hardly trains any more."""
FALLEN, COLLAPSED = -0.01, -0.2
"""Log-ratio per chosen token, in nats, below which chosen answers have fallen, or collapsed (`docs/health.md`)."""
UNMOVED = 0.001
"""Distance of chosen and rejected, in nats per token, below which nothing was learnt yet."""
MANY_SATURATED = 0.2
"""Share of saturated tokens that is said; where answers are well apart, it is large in a healthy run too."""
MORE_ENDLESS, MORE_REPEATING = 0.1, 0.1
"""Further share of the sample answers that never end, or repeat themselves, which deserves a look."""
FEW = 50
"""Held-out responses below which a mean over them is said to be one of few."""
RECENT = 16
"""Training responses that a verdict is about, at least: the last step of an epoch may have three."""
COLOURS = ("green", "amber", "red")
JUDGED = ("bnf/shift/chosen", "bnf/shift/rejected", "bnf/saturated", "loss")
"""The metrics that a verdict is about."""


class Metrics:
    """Means over everything that was added since the last reading, over all ranks; sums are kept on the device.

    TRL's names: `logps/*` (sums over a completion, nats), `rewards/*` (beta times the log-ratio; beta is 1 for losses
    without one), `kl`, `delta` (BCO). Ours: `bnf/weight/*` (mean w over tokens), `bnf/saturated` (share of w < 0.1),
    `bnf/shift/*` (log-ratio per token), `bnf/length/*` (scored tokens), `bnf/end_probability/*` (of the end token,
    where the completion was not cut), `bnf/responses` (how many all this is about). A loss without reference has no
    weights, shifts and rewards.
    """

    def __init__(self, spec: LossSpec, beta: float, device: torch.device) -> None:
        self.spec, self.beta = spec, beta
        # float64 where the device has it: evaluation sums must not depend on their order.
        self.zero = torch.zeros(2, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
        self.sums: dict[str, Tensor] = {}
        """Of each metric its sum and count: on every rank the same ones, for all run as many micro-batches."""

    def add(self, name: str, values: Tensor, where: Tensor | None = None) -> None:
        """Add `values` (any shape), those at `where` (bool, same shape) only."""
        where = torch.ones_like(values, dtype=torch.bool) if where is None else where
        kept = torch.where(where, values.detach(), 0.0).to(self.zero.dtype)
        found = torch.stack([kept.sum(), where.sum().to(kept.dtype)])
        self.sums[name] = self.sums.get(name, self.zero) + found

    @torch.no_grad()
    def add_completions(self, completions: CompletionLogps, label: Tensor, end: Tensor) -> None:
        """Add all metrics of one micro-batch; rows with nothing scored do not count.

        Args:
            completions: (B, T) log-probabilities, with reference where the loss has one.
            label: (B,) bool.
            end: (B,) position of the end token, -1 where it was cut.
        """
        present = completions.length > 0
        sides = {"chosen": label & present, "rejected": ~label & present}
        end_logps = completions.logps.gather(1, end.clamp(min=0)[:, None])[:, 0]
        for side, rows in sides.items():
            self.add(f"logps/{side}", completions.logp, rows)
            self.add(f"bnf/length/{side}", completions.length.float(), rows)
            self.add(f"bnf/end_probability/{side}", end_logps.exp(), rows & (end >= 0))
        if self.spec.reference:
            weights = bnf_weights(completions.logps, completions.reference())
            self.add("bnf/weight", weights, completions.mask)
            self.add("bnf/saturated", (weights < SATURATED).float(), completions.mask)
            for side, rows in sides.items():
                tokens = completions.mask & rows[:, None]
                self.add(f"rewards/{side}", self.beta * completions.logratio, rows)
                self.add(f"bnf/weight/{side}", weights, tokens)
                self.add(f"bnf/shift/{side}", completions.logps - completions.reference(), tokens)

    def read(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """The means, and start anew; `reduce` sums a tensor over all ranks, so every rank must call this."""
        if not self.sums:
            return {}
        sums = reduce(torch.stack(list(self.sums.values()))).tolist()
        means = {name: total / count for name, (total, count) in zip(self.sums, sums, strict=True) if count}
        counts = {name: count for name, (_, count) in zip(self.sums, sums, strict=True)}
        means["bnf/responses"] = sum(counts.get(f"logps/{side}", 0) for side in ("chosen", "rejected"))
        if {"rewards/chosen", "rewards/rejected"} <= means.keys():
            means["rewards/margins"] = means["rewards/chosen"] - means["rewards/rejected"]
        self.sums = {}
        return means


@dataclass(frozen=True)
class Health:
    """How a run is doing."""

    colour: str
    """`green`; `amber`, which deserves a look; `red`, where the model is being damaged."""
    text: str
    """Why, in plain words."""


def recent(history: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What `health` judges, over the last log lines that together have `RECENT` responses.

    A line counts by its responses.
    """
    sums: dict[str, tuple[float, float]] = {}
    seen = 0.0
    for line in reversed(history):
        responses = line.get("bnf/responses", 0)
        for name in (name for name in JUDGED if name in line and responses):
            total, count = sums.get(name, (0.0, 0.0))
            sums[name] = total + line[name] * responses, count + responses
        seen += responses
        if seen >= RECENT:
            break
    return {name: total / count for name, (total, count) in sums.items()}


def health(metrics: Mapping[str, Any], held_out: int = 0) -> Health:
    """A run from the metrics of its last evaluation on so many `held_out` responses, or of its last training steps.

    Says what moved and by how much, and names what users ask about: preferred answers that fall with the others, and
    tokens that hardly train any more. `healthy` is said only where every quantity it speaks of is there and finite.
    `docs/health.md` says where the thresholds come from.
    """
    found = {name: metrics[name] for name in JUDGED if name in metrics}
    if wrong := [name for name, value in found.items() if not math.isfinite(value)]:
        return Health(
            "red", f"Not healthy: {', '.join(wrong)} is NaN or infinite, so nothing can be said of the model."
        )
    up, down, saturated = (found.get(name) for name in JUDGED[:3])
    if up is None and down is None:
        return Health("green", "No reference was used, so there is no shift to judge.")
    colour = "green"
    moved = [f"{name} {shift:+.4f}" for name, shift in (("chosen", up), ("rejected", down)) if shift is not None]
    text = f"Log-probability per token against the reference: {', '.join(moved)}. "
    if up is not None and up < COLLAPSED:
        colour = "red"
        text += "Chosen answers collapsed with the rejected ones. Take a smaller learning rate or fewer steps. "
    elif up is not None and up < FALLEN:
        colour = "amber"
        text += "Chosen answers became less likely too. A smaller learning rate keeps them up. "
    elif up is None or down is None:
        text += "There is only one side, so nothing can be said of their distance. "
    elif up - down < UNMOVED:
        text += "Chosen and rejected hardly differ yet: train longer, or with a larger learning rate. "
    elif saturated is not None:
        text += "Chosen and rejected have moved apart, and chosen answers did not fall: healthy. "
    if saturated is not None and saturated > MANY_SATURATED:
        text += f"{saturated:.0%} of tokens hardly train any more (BNF weight below {SATURATED}). "
    if held_out:
        few = ", which are few: others may say otherwise" if held_out < FEW else ""
        text += f"Measured on {counted(held_out, 'held-out response')}{few}. "
    return Health(colour, text.strip())


def samples_health(metrics: Mapping[str, Any]) -> list[Health]:
    """What a user's own prompts show, by `samples/*` of `evaluation.callback`; nothing where there were none."""
    found = []
    for name, more, what in (
        ("never_ended", MORE_ENDLESS, "never ended"),
        ("repeated", MORE_REPEATING, "repeat themselves"),
    ):
        before, after = metrics.get(f"samples/{name}_before", 0.0), metrics.get(f"samples/{name}", 0.0)
        if after - before > more:
            text = f"{after:.0%} of the sample answers {what}, {before:.0%} before training: read them."
            found.append(Health("amber", text))
    return found
