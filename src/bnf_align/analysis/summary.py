"""The figures as numbers: what `summary.json` holds, from the files that `measure` wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bnf_align.analysis.overlap import Pair
from bnf_align.analysis.shifts import MEASURES
from bnf_align.analysis.table import column, token_columns
from bnf_align.analysis.tokens import most_changed, weight_shares
from bnf_align.records import BadInput

Files = Mapping[str, Path]
"""Name of a method -> its Parquet file."""

PERCENTILES = (5, 25, 50, 75, 95)
BINS = 10
"""Of Figure 4: tenths of one method's token shifts, into which those of the others fall."""


def bins_method(names: Sequence[str], wanted: str | None = None) -> str:
    """Whose shifts define the bins of Figure 4: the one that is wanted, or DPO as in the paper, or the first.

    Raises:
        BadInput: If the one that is wanted is not there.
    """
    if wanted is not None and wanted not in names:
        raise BadInput(f"--bins_of {wanted}: there is no such method. Known: {', '.join(names)}.")
    return wanted or next((name for name in names if name.lower() == "dpo"), names[0])


def edges(values: np.ndarray) -> np.ndarray:
    """The nine values that cut `values` into ten equal parts."""
    return np.quantile(values, np.arange(1, BINS) / BINS)


def shares(parts: Iterable[np.ndarray], edges: np.ndarray) -> np.ndarray:
    """Share of the values of all `parts` in each bin, first to last; a value on an edge counts in the lower one."""
    counts = np.zeros(len(edges) + 1)
    for part in parts:
        counts += np.bincount(np.searchsorted(edges, part, side="left"), minlength=len(counts))
    return counts / counts.sum()


def token_shifts(file: Path) -> Iterator[np.ndarray]:
    """Log-likelihood shifts of the scored tokens, in nats, a group of responses at a time: what Figure 4 counts."""
    for logps, ref_logps in token_columns(file, "logps", "ref_logps"):
        yield logps - ref_logps


def binned(files: Files, bins_of: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Figure 4: the nine edges that cut the token shifts of `bins_of` into tenths; method -> share of each bin."""
    cut = edges(np.concatenate([*token_shifts(files[bins_of])]))
    return cut, {name: shares(token_shifts(file), cut) for name, file in files.items()}


def summary(files: Files, bins_of: str, pairs: Mapping[str, Sequence[Pair]]) -> dict[str, Any]:
    """The pairs of Figure 2, the distributions of Figure 3, the bins of Figure 4, weights and tokens.

    `bins_of` as `bins_method` finds it; `pairs` are those of `of_pairs`, by method.
    """
    cut, by_method = binned(files, bins_of)
    return {
        "methods": {name: _of_method(file, pairs[name]) for name, file in files.items()},
        "bins": {
            "of": bins_of,
            "edges": cut.tolist(),
            "shares": {name: found.tolist() for name, found in by_method.items()},
        },
    }


def _of_method(file: Path, pairs: Sequence[Pair]) -> dict[str, Any]:
    tokens = column(file, "tokens")
    return {
        "responses": len(tokens),
        "tokens": int(tokens.sum()),
        **{measure: _distribution(column(file, measure)) for measure in MEASURES},
        "weights": weight_shares(file),
        "most_changed": most_changed(file),
        "pairs": {
            name: _distribution(np.array([getattr(pair, name) for pair in pairs]))
            for name in ("overlap", "gap", "ref_gap", "contrast")
        },
    }


def _distribution(values: np.ndarray) -> dict[str, Any]:
    if not len(values):
        return {"count": 0}
    percentiles = np.percentile(values, PERCENTILES)
    found = {f"p{rank}": float(value) for rank, value in zip(PERCENTILES, percentiles, strict=True)}
    return {"count": len(values), "mean": float(values.mean()), **found}
