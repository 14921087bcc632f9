"""Token by token: how BNF would weigh them, and which moved most."""

from __future__ import annotations

import heapq
from pathlib import Path
from typing import Any

import numpy as np

from bnf_align.analysis.table import read_rows

WEIGHT_BINS = 10
MOST = 20
CONTEXT = 8
"""Tokens shown on each side of one that moved."""


def weight_shares(file: str | Path) -> dict[str, list[float]]:
    """Side -> share of its tokens whose BNF weight lies in each tenth of 0 to 1; 1 counts in the last."""
    counts: dict[str, np.ndarray] = {}
    for row in read_rows(file, "side", "weights"):
        found, _ = np.histogram(row["weights"], bins=WEIGHT_BINS, range=(0.0, 1.0))
        counts[row["side"]] = counts.get(row["side"], np.zeros(WEIGHT_BINS)) + found
    return {side: (found / found.sum()).tolist() for side, found in counts.items()}


def most_changed(file: str | Path, most: int = MOST) -> dict[str, list[dict[str, Any]]]:
    """The tokens that rose and those that fell most, each with its context, the largest shift first.

    Returns:
        `risen` and `fallen`: `piece`, `before` and `after` (text around it), `shift` (nats), `p` and `ref_p`
        (likelihoods), `id` (of the response) and `place` (among its scored tokens, from 0).
    """
    kept: dict[str, list[tuple[float, str, int, dict[str, Any]]]] = {"risen": [], "fallen": []}
    for row in read_rows(file, "id", "pieces", "logps", "ref_logps"):
        shifts = np.subtract(row["logps"], row["ref_logps"])
        for name, sign in (("risen", 1.0), ("fallen", -1.0)):
            for place in np.argsort(-sign * shifts, kind="stable")[:most].tolist():
                if sign * shifts[place] > 0:
                    entry = (sign * float(shifts[place]), row["id"], -place, _entry(row, place))
                    (heapq.heappushpop if len(kept[name]) == most else heapq.heappush)(kept[name], entry)
    return {name: [entry for *_, entry in sorted(found, reverse=True)] for name, found in kept.items()}


def _entry(row: dict[str, Any], place: int) -> dict[str, Any]:
    pieces = row["pieces"]
    return {
        "piece": pieces[place],
        "before": "".join(pieces[max(place - CONTEXT, 0) : place]),
        "after": "".join(pieces[place + 1 : place + 1 + CONTEXT]),
        "shift": row["logps"][place] - row["ref_logps"][place],
        "p": float(np.exp(row["logps"][place])),
        "ref_p": float(np.exp(row["ref_logps"][place])),
        "id": row["id"],
        "place": place,
    }
