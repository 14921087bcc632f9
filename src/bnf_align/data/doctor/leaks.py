"""Prompts that stand on both sides of a split: what is measured on them is memory."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import xxhash

from bnf_align.data.findings import Finding
from bnf_align.data.ledger import Ledger
from bnf_align.records import PreferenceRow, rows_text


class Prompts:
    """The prompts of one source's rows, in their order, 8 bytes each."""

    def __init__(self) -> None:
        self._keys = array("Q")

    def add(self, row: PreferenceRow) -> None:
        """Remember a row's prompt."""
        self._keys.append(_prompt_key(row["prompt"]))

    def leaks(self, ledger: Ledger, test: Prompts, name: str) -> list[Finding]:
        """Rows kept whose prompt is also one of `test`, which is called `name`."""
        others = np.unique(np.array(test._keys, dtype=np.uint64))
        keys = np.array(self._keys, dtype=np.uint64)
        leaked = ledger.kept & np.isin(keys, others)
        if not leaked.any():
            return []
        rows, shared = ledger.numbers[leaked].tolist(), len(np.unique(keys[leaked]))
        text = (
            f"{shared:,} of the {len(others):,} prompts of {name} are also in these rows, so what is measured on them "
            f"is memory: {rows_text(rows)}"
        )
        return [Finding("leak", text, rows, figures={"prompts": shared, "share": round(shared / len(others), 4)})]


def _prompt_key(prompt: str | list[dict[str, Any]]) -> int:
    """64 bits that two prompts share if they are the same words, whatever their case, spaces and form."""
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    said = [(turn["role"], " ".join(turn.get("content", "").casefold().split())) for turn in turns]
    return int(xxhash.xxh3_64_intdigest(repr(said).encode(errors="surrogatepass")))
