"""Prompts that stand on both sides of a split, word for word or nearly: what is measured on them is memory.

Nearly, by MinHash: the share of equal places of two signatures estimates the Jaccard similarity of the sets of
three-word runs of their texts (Broder, 1997), with a standard error of 0.04; two that have a band in common are
compared (Leskovec, Rajaraman and Ullman, Mining of Massive Datasets, 3.4). A signature is 256 bytes, one array holds
them all, and a band is a column of it: an index of sets, as packages for this keep one, takes kilobytes a text.
"""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import xxhash

from bnf_align.data.ledger import Ledger
from bnf_align.records import NOTE, Finding, PreferenceRow, rows_text

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


NEAR = 0.7
"""Share of three-word runs in common (Jaccard) from which two prompts are nearly the same."""
LOOKED_AT = 100_000
"""Rows up to which near-duplicates are looked for unasked: it takes longer than all the rest."""
SAID = f"at least about {NEAR:.0%} of their three-word runs in common, by MinHash"


class Prompts:
    """The prompts of one source's rows, in their order: 8 bytes each, and 256 more for a signature.

    Args:
        near: Whether near-duplicates are looked for.
    """

    def __init__(self, near: bool) -> None:
        self.near = near
        self._keys, self._signatures = array("Q"), bytearray()

    def add(self, row: PreferenceRow) -> None:
        """Remember a row's prompt."""
        prompt = row["prompt"]
        turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        said = [(turn["role"], " ".join(turn.get("content", "").casefold().split())) for turn in turns]
        self._keys.append(_hash(said))
        if self.near:
            # Prompts under other system messages, or of other turns, are others whatever their words: a long
            # instruction in all of them must not make them near.
            kind = _hash([(role, text if role == "system" else "") for role, text in said])
            self._signatures += signature("\n".join(text for role, text in said if role != "system"), kind).tobytes()

    def findings(self, ledger: Ledger, test: Prompts | None, name: str) -> list[Finding]:
        """Rows kept whose prompt is one of `test`, which is called `name`, or nearly; and those near each other."""
        keys = np.array(self._keys, dtype=np.uint64)
        leaked = np.zeros(len(keys), dtype=bool)
        found = []
        if test is not None:
            others = np.unique(np.array(test._keys, dtype=np.uint64))
            leaked = ledger.kept & np.isin(keys, others)
            if leaked.any():
                rows, shared = ledger.numbers[leaked].tolist(), len(np.unique(keys[leaked]))
                text = (
                    f"{shared:,} of the {len(others):,} prompts of {name} are also in these rows, so what is measured "
                    f"on them is memory: {rows_text(rows)}"
                )
                figures = {"prompts": shared, "share": round(shared / len(others), 4)}
                found.append(Finding("leak", text, rows, figures=figures))
        if self.near:
            found += self._near_leaks(ledger, ledger.kept & ~leaked, test, name) if test is not None else []
            found += self._near_repeats(ledger)
        return found

    def _near_leaks(self, ledger: Ledger, rows: np.ndarray, test: Prompts, name: str) -> list[Finding]:
        at = np.flatnonzero(rows)
        first = first_near(self._table[at], test._table, NEAR)
        near = first < len(test._keys)
        if not near.any():
            return []
        numbers, shared = ledger.numbers[at[near]].tolist(), len(np.unique(first[near]))
        text = (
            f"{len(numbers):,} more prompts are nearly one of {name} ({SAID}): {rows_text(numbers)}. What is measured "
            "on those is memory too, unless they only share a form of words"
        )
        return [Finding("near_leak", text, numbers, figures={"prompts": shared, "similarity": NEAR})]

    def _near_repeats(self, ledger: Ledger) -> list[Finding]:
        """Prompts that are nearly an earlier one; the same prompt again, with another answer, is none."""
        kept = np.flatnonzero(ledger.kept)
        keys, firsts, which = np.unique(
            np.array(self._keys, dtype=np.uint64)[kept], return_index=True, return_inverse=True
        )
        order = np.argsort(firsts)
        table = self._table[kept[firsts[order]]]
        near = np.zeros(len(keys), dtype=bool)
        near[order] = first_near(table, None, NEAR) < np.arange(len(keys))
        if not near.any():
            return []
        numbers = ledger.numbers[kept[near[which]]].tolist()
        text = (
            f"{near.sum():,} of {len(keys):,} different prompts are nearly an earlier one ({SAID}): "
            f"{rows_text(numbers)}. Keep those on one side of a split"
        )
        figures = {"prompts": int(near.sum()), "share": round(float(near.mean()), 4), "similarity": NEAR}
        return [Finding("near_repeats", text, numbers, NOTE, figures)]

    @property
    def _table(self) -> np.ndarray:
        return np.frombuffer(self._signatures, dtype=np.uint16).reshape(-1, PLACES)


def _hash(said: Any) -> int:
    """64 bits that two prompts share if they are the same words, whatever their case, spaces and form."""
    return int(xxhash.xxh3_64_intdigest(repr(said).encode(errors="surrogatepass")))
