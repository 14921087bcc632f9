"""What a set of preferences is made of, on one page: counts, scores, lengths, how alike the pairs are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bnf_align.construct.select import NEAR, NEAR_IDENTICAL, Selected, labels_and_lengths
from bnf_align.data.ledger import canonical
from bnf_align.records import counted
from bnf_align.stats import auc

Row = dict[str, Any]

ANSWERS = {"chosen", "rejected", "completion"}
BINS = 10
BAR = 40
"""Characters of the longest bar."""


def data_card(given: Sequence[Row], selected: Selected, about: Mapping[str, Any]) -> Row:
    """The numbers of the card.

    Args:
        given: Rows that were selected from.
        selected: What became of them.
        about: What made them: command, scorer, seed.
    """
    rows = selected.rows
    ups, downs = labels_and_lengths(rows)
    values = [value for row in given for value in row.get("scores", ()) if value is not None]
    counts, edges = np.histogram(values, bins=BINS) if values else (np.zeros(0), np.zeros(0))
    return {
        "prompts": len({canonical(row["prompt"]) for row in given}),
        "candidates": sum(len(row.get("candidates", ANSWERS & row.keys())) for row in given),
        "duplicates": sum(row.get("duplicates", 0) for row in given),
        "pairs": sum("chosen" in row for row in rows),
        "ups": sum(row.get("label") is True for row in rows),
        "downs": sum(row.get("label") is False for row in rows),
        "left_out": {reason: len(ids) for reason, ids in selected.dropped.items()},
        "scores": {"counts": counts.tolist(), "edges": edges.tolist()},
        "characters": {"ups": _quantiles(ups), "downs": _quantiles(downs)},
        "length_auc": auc(ups, downs) if ups and downs else None,
        "near_identical_pairs": selected.near_identical,
        "pair_similarity": _quantiles(selected.similarities),
        **about,
    }


def card_text(card: Row) -> str:
    """The card as markdown."""
    lines = ["# Data card", "", "| | |", "|---|---|"]
    lines += [f"| scored by | {card['scored'].get('scorer')} |"] if card.get("scored") else []
    lines += [
        f"| {name} | {card[name]:,} |" for name in ("prompts", "candidates", "duplicates", "pairs", "ups", "downs")
    ]
    lines += [f"| of these rows in the test file | {card['test_rows']:,} |"] if card.get("test_rows") else []
    lines += [f"| left out: {reason} | {count:,} |" for reason, count in card["left_out"].items()]
    lines += [f"| note | {note} |" for note in card.get("notes", ())]
    if card["scores"]["counts"]:
        lines += ["", "## Scores of all candidates", "", "```", *_histogram(card["scores"]), "```"]
    lines += ["", "## Lengths", ""]
    lines += [f"* {side}: {_shown(values)} characters" for side, values in card["characters"].items()]
    auc = card["length_auc"]
    if auc is not None:
        lines.append(
            f"* An up is longer than a down with probability {auc:.2f} (0.50: length says nothing)."
            + (" Length alone tells them well apart: a model learns it first." if abs(auc - 0.5) > 0.15 else "")
        )
    lines += ["", "## How alike the two sides of a pair are", ""]
    lines.append(f"* similarity in words (1 is equal): {_shown(card['pair_similarity'])}")
    left_out = ", left out" if NEAR in card["left_out"] else ""
    lines.append(
        f"* near-identical ({NEAR_IDENTICAL} or more){left_out}: {counted(card['near_identical_pairs'], 'pair')}. "
        "What both sides share is pushed up and down at once (section 2.3 of the paper: this is what breaks DPO)."
    )
    return "\n".join(lines) + "\n"


def _quantiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return dict(zip(("p5", "p50", "p95"), np.quantile(values, [0.05, 0.5, 0.95]).tolist(), strict=True))


def _shown(values: Mapping[str, float] | None) -> str:
    return "none" if values is None else ", ".join(f"{name} {value:,.4g}" for name, value in values.items())


def _histogram(scores: Row) -> list[str]:
    most = max(scores["counts"], default=0) or 1
    return [
        f"{low:>10.3g} to {high:<10.3g} {'#' * round(BAR * count / most):<{BAR}} {count:,}"
        for low, high, count in zip(scores["edges"], scores["edges"][1:], scores["counts"], strict=False)
    ]
