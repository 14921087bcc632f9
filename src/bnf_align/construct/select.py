"""Scored candidates in, preference rows out: best against worst, or thumbs; every choice is explicit and seeded.

The paper (section 4.1) takes the best and the worst of five as a pair. Section 5.2 then masks one side of a share of
the pairs at random, which leaves a thumb.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from bnf_align.construct.choice import Choice
from bnf_align.records import BadInput

Row = dict[str, Any]

NEAR_IDENTICAL = 0.9
"""Similarity, 1 minus edit distance over length, both in words, from which two answers are near-identical."""
NEAR = "best and worst are near-identical"


@dataclass
class Selected:
    """Preference rows, and what was left out and why."""

    rows: list[Row] = field(default_factory=list)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> ids of the prompts."""
    similarities: list[float] = field(default_factory=list)
    """Of each pair before masking: 1 is equal."""
    near_identical: int = 0

    def drop(self, reason: str, row: Row) -> None:
        """Count a prompt as left out for `reason`."""
        self.dropped.setdefault(reason, []).append(row["id"])


def select(scored: Sequence[Row], choice: Choice) -> Selected:
    """Rows that `train` reads, in the order of the prompts.

    Args:
        scored: Rows of `score`.
        choice: How.

    Raises:
        BadInput: If nothing is left.
    """
    found = Selected()
    if choice.unpaired:
        found.rows = _thumbs(scored, choice, found)
    else:
        found.rows = [_masked(pair, choice) for pair in _pairs(scored, choice, found)]
    if choice.balance:
        found.rows = _balanced(found.rows, choice.seed, found)
    if not found.rows:
        reasons = "; ".join(f"{len(ids):,} for {reason}" for reason, ids in found.dropped.items())
        raise BadInput(f"Nothing is left of {len(scored):,} prompts: {reasons or 'there were none'}.")
    return found


def _pairs(scored: Sequence[Row], choice: Choice, found: Selected) -> Iterator[Row]:
    for row in scored:
        pair = _pair(row, choice, found)
        if isinstance(pair, str):
            found.drop(pair, row)
        else:
            yield pair


def _pair(row: Row, choice: Choice, found: Selected) -> Row | str:
    """Best against worst, of equals the earlier candidate; or why there is no such pair."""
    known = [(value, number) for number, value in enumerate(row["scores"]) if value is not None]
    if len(known) < 2:
        return "fewer than two candidates with a score"
    best = max(known, key=lambda one: (one[0], -one[1]))
    worst = min(known, key=lambda one: (one[0], one[1]))
    texts = [row["candidates"][number]["text"] for _, number in (best, worst)]
    if best[0] - worst[0] <= choice.margin:
        return "all candidates score alike" if best[0] == worst[0] else "best and worst are within the margin"
    if texts[0] == texts[1]:
        return "best and worst say the same"
    if not all(text.strip() for text in texts):
        return "an empty answer"
    likeness = similarity(*texts)
    if likeness >= NEAR_IDENTICAL:
        found.near_identical += 1
        if choice.near_identical == "drop":
            return NEAR
    found.similarities.append(likeness)
    sides = {"chosen": _answer(row, texts[0]), "rejected": _answer(row, texts[1])}
    return {"id": row["id"], "prompt": row["prompt"], **sides, "chosen_score": best[0], "rejected_score": worst[0]}


def similarity(first: str, second: str) -> float:
    """1 minus the edit distance of two texts in words over the number of words of the longer one."""
    return float(Levenshtein.normalized_similarity(first.split(), second.split()))


def _masked(pair: Row, choice: Choice) -> Row:
    """The pair, or one side of it, by chance from the seed and the prompt's id alone."""
    if _chance(choice.seed, "pair", pair["id"]) < choice.pairing_ratio:
        return pair
    side, label = ("chosen", True) if _chance(choice.seed, "side", pair["id"]) < 0.5 else ("rejected", False)
    thumb = {"id": pair["id"], "prompt": pair["prompt"], "completion": pair[side], "label": label}
    return {**thumb, "score": pair[f"{side}_score"]}


def _thumbs(scored: Sequence[Row], choice: Choice, found: Selected) -> list[Row]:
    high, low = _bounds(scored, choice)
    rows = []
    for row in scored:
        seen: set[str] = set()
        for number, (candidate, value) in enumerate(zip(row["candidates"], row["scores"], strict=True)):
            label = _label(value, high, low, choice)
            if value is None:
                found.drop("a candidate without a score", row)
            elif not candidate["text"].strip():
                found.drop("an empty answer", row)
            elif choice.repeats == "drop" and candidate["text"] in seen:
                found.drop("a candidate that says what an earlier one does", row)
            elif label is None:
                found.drop("a candidate between the bottom and the top", row)
            else:
                answer = _answer(row, candidate["text"])
                thumb = {"id": f"{row['id']}/{number}", "prompt": row["prompt"], "completion": answer, "label": label}
                rows.append({**thumb, "score": value})
            seen.add(candidate["text"])
    return rows


def _bounds(scored: Sequence[Row], choice: Choice) -> tuple[float, float]:
    """The score from which on candidates are ups, and that up to which they are downs."""
    values = [value for row in scored for value in row["scores"] if value is not None]
    if not values:
        raise BadInput(f"No candidate of {len(scored):,} prompts has a score.")
    if choice.threshold is not None:
        return choice.threshold, choice.threshold
    # The k best and the k worst for the same share: each end is counted from its own side.
    high = -_smallest([-value for value in values], choice.top or 0)
    return high, _smallest(values, choice.bottom or 0)


def _smallest(values: Sequence[float], share: float) -> float:
    """The largest of the smallest `share` of the values, at least one of them where the share is above 0."""
    return float(np.quantile(values, share, method="inverted_cdf")) if share else -math.inf


def _label(value: float | None, high: float, low: float, choice: Choice) -> bool | None:
    if value is None:
        return None
    if choice.threshold is not None:
        return value >= high
    # Where many scores are equal both bounds may meet; a score on both would be an up and a down.
    if value >= high and value > low:
        return True
    return False if value <= low and value < high else None


def _balanced(rows: Sequence[Row], seed: int, found: Selected) -> list[Row]:
    """As many ups as downs; pairs have both already."""
    sides = {label: [row for row in rows if row.get("label") is label] for label in (True, False)}
    fewest = min(map(len, sides.values()))
    out: set[str] = set()
    for side in sides.values():
        drawn = sorted(side, key=lambda row: _chance(seed, "balance", row["id"]))
        out |= {row["id"] for row in drawn[fewest:]}
    for row in rows:
        if row["id"] in out:
            found.drop("left out to balance ups and downs", row)
    return [row for row in rows if row["id"] not in out]


def _answer(row: Row, text: str) -> str | list[Row]:
    return [{"role": "assistant", "content": text}] if isinstance(row["prompt"], list) else text


def _chance(seed: int, what: str, name: str) -> float:
    """Uniform in [0, 1), from its arguments alone: rows may be added without moving the others."""
    digest = hashlib.blake2b(f"{seed}\0{what}\0{name}".encode(errors="backslashreplace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def labels_and_lengths(rows: Iterable[Row]) -> tuple[list[int], list[int]]:
    """Lengths in characters of all ups (chosen answers included) and of all downs."""
    ups, downs = [], []
    for row in rows:
        if "chosen" in row:
            ups.append(_length(row["chosen"]))
            downs.append(_length(row["rejected"]))
        else:
            (ups if row["label"] else downs).append(_length(row["completion"]))
    return ups, downs


def _length(answer: str | list[Row]) -> int:
    return len(answer if isinstance(answer, str) else answer[-1]["content"])
