"""The figures as numbers: what `summary.json` holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bnf_align.analysis.bins import edges, shares
from bnf_align.analysis.shifts import MEASURES, token_shifts
from bnf_align.records import BadInput

Rows = Mapping[str, Sequence[Mapping[str, Any]]]
"""Name of a method -> the rows of its file."""

PERCENTILES = (5, 25, 50, 75, 95)


def values_of(rows: Sequence[Mapping[str, Any]], measure: str) -> np.ndarray:
    """One number a response, without those that have none."""
    return np.array([row[measure] for row in rows if row[measure] is not None], dtype=np.float64)


def bins_method(names: Sequence[str], wanted: str | None = None) -> str:
    """Whose shifts define the bins of Figure 4: the one that is wanted, or DPO as in the paper, or the first.

    Raises:
        BadInput: If the one that is wanted is not there.
    """
    if wanted is not None and wanted not in names:
        raise BadInput(f"--bins_of {wanted}: there is no such method. Known: {', '.join(names)}.")
    return wanted or next((name for name in names if name.lower() == "dpo"), names[0])


def binned(rows: Rows, bins_of: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Figure 4: the nine edges that cut the token shifts of `bins_of` into tenths; method -> share of each bin."""
    values = {name: token_shifts(of_method) for name, of_method in rows.items()}
    cut = edges(values[bins_of])
    return cut, {name: shares(of_method, cut) for name, of_method in values.items()}


def summary(rows: Rows, bins_of: str) -> dict[str, Any]:
    """The distributions of Figure 3 and the bins of Figure 4, by method."""
    cut, by_method = binned(rows, bins_of)
    return {
        "methods": {name: _of_method(of_method) for name, of_method in rows.items()},
        "bins": {
            "of": bins_of,
            "edges": cut.tolist(),
            "shares": {name: found.tolist() for name, found in by_method.items()},
        },
    }


def _of_method(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counts = {"responses": len(rows), "tokens": sum(row["tokens"] for row in rows)}
    return counts | {measure: _distribution(values_of(rows, measure)) for measure in MEASURES}


def _distribution(values: np.ndarray) -> dict[str, Any]:
    if not len(values):
        return {"count": 0}
    percentiles = np.percentile(values, PERCENTILES)
    found = {f"p{rank}": float(value) for rank, value in zip(PERCENTILES, percentiles, strict=True)}
    return {"count": len(values), "mean": float(values.mean()), **found}
