"""Rows with likely personal data."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from bnf_align.data.doctor.personal import find
from bnf_align.data.findings import Finding
from bnf_align.data.ledger import Ledger
from bnf_align.records import rows_text


class Privacy:
    """Looks for e-mail addresses, phone and card numbers in all texts of rows."""

    def __init__(self) -> None:
        self._rows: dict[str, array] = defaultdict(lambda: array("q"))

    def add(self, number: int, texts: Iterable[str]) -> None:
        """Look through the texts of the row with a number."""
        for kind in {found.kind for found in find("\n".join(texts))}:
            self._rows[kind].append(number)

    def findings(self, ledger: Ledger) -> list[Finding]:
        """The rows kept that have any, and how many have each kind."""
        kept = ledger.numbers[ledger.kept]
        rows = {kind: np.intersect1d(np.array(numbers), kept) for kind, numbers in self._rows.items()}
        rows = {kind: numbers for kind, numbers in rows.items() if len(numbers)}
        if not rows:
            return []
        everywhere = np.unique(np.concatenate(list(rows.values()))).tolist()
        listed = ", ".join(f"{kind} in {len(numbers):,}" for kind, numbers in rows.items())
        text = (
            f"likely personal data ({listed}): {rows_text(everywhere)}. A model can learn it by heart; "
            "--fix OUT --redact writes the rows with masks over it"
        )
        figures = {kind: float(len(numbers)) for kind, numbers in rows.items()}
        return [Finding("personal_data", text, everywhere, figures=figures)]
