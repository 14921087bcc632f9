"""Which texts share most of their words' runs: MinHash signatures and their bands.

The share of equal places of two signatures estimates the Jaccard similarity of their texts' sets of three-word runs
(Broder, 1997), with a standard error of 0.04; two that have a band in common are compared (Leskovec, Rajaraman and
Ullman, Mining of Massive Datasets, 3.4). A signature is 256 bytes, one array holds them all, and a band is a column
of it: an index of sets, as packages for this keep one, takes kilobytes a text.
"""

from __future__ import annotations

import numpy as np
import xxhash

PLACES, BAND = 128, 4
"""Texts with a similarity of 0.7 have a band in common with a probability of 0.9999, of 0.3 with 0.23."""
LONGEST = 5_000
"""Words that are read."""
CHARACTERS = 16
"""A word; where they are longer, as in scripts without spaces, characters stand for words."""

_GENERATOR = np.random.default_rng(0)
_FACTORS, _SUMMANDS = _GENERATOR.integers(2**64, size=(2, PLACES), dtype=np.uint64)
_FACTORS |= np.uint64(1)
_POSITIONS = _GENERATOR.integers(2**64, size=3, dtype=np.uint64) | np.uint64(1)


def signature(text: str, kind: int = 0) -> np.ndarray:
    """(128,) uint16 of a text, whatever its case and spaces.

    Args:
        text: A text; one of fewer than three words is one run.
        kind: Texts of two kinds have nothing in common.
    """
    text = text.casefold()
    words: list[str] = text.split()
    if len(text) > CHARACTERS * (len(words) + 1):
        words = list("".join(words))
    words = words[:LONGEST]
    hashes = np.fromiter(
        (xxhash.xxh3_64_intdigest(word.encode(errors="surrogatepass"), kind) for word in words), np.uint64, len(words)
    )
    length = max(len(words) - 2, 1)
    runs = np.full(length, kind, dtype=np.uint64)
    for position, factor in enumerate(_POSITIONS):
        part = hashes[position : position + length]
        runs[: len(part)] += factor * part
    return (runs[:, None] * _FACTORS + _SUMMANDS).min(axis=0).astype(np.uint16)


def first_near(signatures: np.ndarray, others: np.ndarray | None, similarity: float) -> np.ndarray:
    """For each signature the place of a near one among others, an early one.

    Of the others that share a band the first is compared, so a group of texts is found by its first.

    Args:
        signatures: (n, 128).
        others: (m, 128); None for the signatures before it.
        similarity: Share of equal places from which two are near.

    Returns:
        (n,) places; where none is near m, or a signature's own.
    """
    first = np.arange(len(signatures)) if others is None else np.full(len(signatures), len(others))
    others = signatures if others is None else others
    for start in range(0, PLACES, BAND):
        ours, theirs = (
            np.ascontiguousarray(part[:, start : start + BAND]).view(np.uint64)[:, 0] for part in (signatures, others)
        )
        keys, places = np.unique(theirs, return_index=True)
        found = np.searchsorted(keys, ours).clip(max=len(keys) - 1)
        at = places[found]
        shared = np.flatnonzero((keys[found] == ours) & (at < first))
        near = shared[(signatures[shared] == others[at[shared]]).mean(axis=1) >= similarity]
        first[near] = at[near]
    return first
