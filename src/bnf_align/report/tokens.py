"""Scored tokens with their BNF weight and log-ratio, coloured by both."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from bnf_align.report.answers import prompt_text
from bnf_align.report.inputs import Document

BUDGET = 20_000
"""Tokens on a page."""
STEPS = (0.02, 0.1, 0.3, 1.0)
"""Absolute log-ratio in nats from which a token has the next colour."""
LABELS = {True: "desirable", False: "undesirable", None: "without a label"}


@dataclass(frozen=True)
class Scored:
    """One response, token by token."""

    title: str
    prompt: str
    tokens: list[tuple[str, str]]
    """Piece and classes of its colours: w0 for a weight below 0.1, w1 below 0.2, ..., and of its log-ratio."""
    numbers: str
    """Weight, log-ratio and reference log-probability of each token, for the script: `0.52,-0.31,-1.2;...`."""


@dataclass(frozen=True)
class Method:
    """The responses of one method that are shown."""

    name: str
    shown: list[Scored]
    total: int


def methods_of(documents: Iterable[Document]) -> list[Method]:
    """The first responses of every method, within the budget of the page."""
    found = [document for document in documents if document.kind == "tokens"]
    methods = []
    for document in found:
        rows = document.data["rows"]
        used = accumulate(len(row["pieces"]) for row in rows)
        shown = [_scored(row) for row, end in zip(rows, used, strict=True) if end <= BUDGET // len(found)]
        methods.append(Method(document.path.stem, shown, document.data["total"]))
    return methods


def _scored(row: dict[str, Any]) -> Scored:
    ratios = [new - old for new, old in zip(row["logps"], row["ref_logps"], strict=True)]
    numbers = zip(row["weights"], ratios, row["ref_logps"], strict=True)
    side = row["side"] if row["label"] is None else LABELS[row["label"]]
    tokens = []
    for piece, weight, ratio in zip(row["pieces"], row["weights"], ratios, strict=True):
        level = bisect_right(STEPS, abs(ratio))
        colours = f"w{int(10 * min(max(weight, 0.0), 1.0))} r{'m' if ratio < 0 and level else 'p'}{level}"
        tokens.append((piece, colours))
    return Scored(
        f"Response {row['id']}, {side}",
        prompt_text(row["prompt"]),
        tokens,
        ";".join(f"{weight:.3g},{ratio:.3g},{old:.3g}" for weight, ratio, old in numbers),
    )
