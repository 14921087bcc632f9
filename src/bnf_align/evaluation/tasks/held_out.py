"""A user's own held-out preferences: does the model find the better answer likelier, and by how much."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bnf_align.evaluation.task import EvalResult, Hub, Row, Task
from bnf_align.records import BadInput
from bnf_align.stats import auc

NEEDED = ("id", "item", "side", "logp", "tokens")
SIDES = ("chosen", "rejected", "up", "down")


@dataclass(frozen=True)
class HeldOut(Task):
    """Preference accuracy and log-probability margin; there is nothing to generate and nobody to ask."""

    name = "held_out"
    version = 1
    hub = Hub("your own rows (--data FILE)", None, "test", "")
    template = ""

    def items(self, rows: Iterable[Row]) -> list[Row]:
        """Rows as training reads them, numbered where they bring no id."""
        return [{**row, "id": str(row.get("id", number))} for number, row in enumerate(rows)]

    def score(self, rows: Sequence[Row], *, base: Sequence[Row] = (), **_: Any) -> EvalResult:
        """Score the log-probabilities that `held_out.measure` wrote.

        Args:
            rows: One per response: `item`, `side` (chosen, rejected, up or down), `logp` in nats over all scored
                tokens, `tokens`.
            base: The same rows under the model before training; gives the reward_* metrics, where a response counts
                by how much likelier it became.

        Returns:
            `accuracy`: per cent of pairs whose chosen answer is likelier as a whole; `accuracy_per_token`: by mean
            log-probability per token; `margin`, `margin_per_token`: mean difference, nats; `auc_per_token`: per cent
            of (up, down) couples of single answers where the up is likelier; ties count half.
        """
        result = EvalResult(self.name, self.version)
        pairs, ups, downs = _sides(rows, result)
        whole = np.array([[chosen["logp"], rejected["logp"]] for chosen, rejected in pairs]).reshape(-1, 2)
        mean = np.array([[_mean(chosen), _mean(rejected)] for chosen, rejected in pairs]).reshape(-1, 2)
        result.metrics = {
            "accuracy": _accuracy(whole),
            "accuracy_per_token": _accuracy(mean),
            "margin": _margin(whole),
            "margin_per_token": _margin(mean),
            "auc_per_token": 100 * auc(list(map(_mean, ups)), list(map(_mean, downs))) if ups and downs else None,
            "pairs": len(pairs),
            "ups": len(ups),
            "downs": len(downs),
        }
        if base:
            _sides(base, EvalResult(self.name, self.version))  # the same shape is asked of them
            shifts = _shift(pairs, {str(row["id"]): row for row in base})
            result.metrics |= {"reward_accuracy": _accuracy(shifts), "reward_margin": _margin(shifts)}
        result.items = [
            {"id": str(chosen["item"]), "correct": bool(values[0] > values[1]), "margin": float(values[0] - values[1])}
            for (chosen, _), values in zip(pairs, whole, strict=True)
        ]
        result.provenance = {"model": rows[0].get("model")}
        return result


def _sides(rows: Sequence[Row], result: EvalResult) -> tuple[list[tuple[Row, Row]], list[Row], list[Row]]:
    bad = [str(number) for number, row in enumerate(rows) if not _measured(row)]
    if bad or not rows:
        raise BadInput(
            f"{len(bad) or 'all'} of {len(rows):,} rows lack one of {', '.join(NEEDED)}, or it is of another kind "
            f"(first row {bad[0] if bad else '-'}): held_out scores the file that `bnf-align eval "
            "held_out` writes."
        )
    by_side: dict[str, dict[str, Row]] = {side: {} for side in SIDES}
    for row in rows:
        by_side[row["side"]][str(row["item"])] = row
    chosen, rejected = by_side["chosen"], by_side["rejected"]
    for item in sorted(chosen.keys() ^ rejected.keys()):
        result.drop("one side of the pair is missing", item)
    pairs = [(chosen[item], rejected[item]) for item in chosen if item in rejected]
    return pairs, list(by_side["up"].values()), list(by_side["down"].values())


def _measured(row: Row) -> bool:
    numbers = all(isinstance(row.get(name), int | float) for name in ("logp", "tokens"))
    return all(name in row for name in NEEDED) and numbers and row["side"] in SIDES


def _mean(row: Row) -> float:
    return row["logp"] / max(row["tokens"], 1)


def _shift(pairs: Sequence[tuple[Row, Row]], base: dict[str, Row]) -> np.ndarray:
    missing = [row["id"] for pair in pairs for row in pair if row["id"] not in base]
    if missing:
        raise BadInput(
            f"The base's file lacks {len(missing):,} responses, the first {missing[0]!r}: measure it on the same rows."
        )
    return np.array([[row["logp"] - base[row["id"]]["logp"] for row in pair] for pair in pairs]).reshape(-1, 2)


def _accuracy(values: np.ndarray) -> float | None:
    if not len(values):
        return None
    return float(100 * np.mean((values[:, 0] > values[:, 1]) + 0.5 * (values[:, 0] == values[:, 1])))


def _margin(values: np.ndarray) -> float | None:
    return float(np.mean(values[:, 0] - values[:, 1])) if len(values) else None
