"""Rows with likely personal data, and rows with keys and tokens."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable

import numpy as np

from bnf_align.data.doctor.personal import find
from bnf_align.data.doctor.secrets import SECRETS
from bnf_align.data.ledger import Ledger
from bnf_align.records import Finding, rows_text

SAID = {
    "secrets": "likely keys and tokens ({}): {}. Whoever has the file, or hears them from the model, can use them: "
    "revoke them where they were made; --fix OUT --redact writes the rows with masks over them",
    "personal_data": "likely personal data ({}): {}. A model can learn it by heart; "
    "--fix OUT --redact writes the rows with masks over it",
}


class Privacy:
    """Looks for personal data and secrets in all texts of rows."""

    def __init__(self) -> None:
        self._rows: dict[str, array] = defaultdict(lambda: array("q"))

    def add(self, number: int, texts: Iterable[str]) -> None:
        """Look through the texts of the row with a number."""
        for kind in {found.kind for found in find("\n".join(texts))}:
            self._rows[kind].append(number)

    def findings(self, ledger: Ledger) -> list[Finding]:
        """The rows kept that have any, and how many have each kind."""
        kept = ledger.numbers[ledger.kept]
        found: dict[str, dict[str, np.ndarray]] = {name: {} for name in SAID}
        for kind, numbers in self._rows.items():
            if len(rows := np.intersect1d(np.array(numbers), kept)):
                found["secrets" if kind in SECRETS else "personal_data"][kind] = rows
        findings = []
        for name, kinds in found.items():
            if kinds:
                everywhere = np.unique(np.concatenate(list(kinds.values()))).tolist()
                listed = ", ".join(f"{kind} in {len(rows):,}" for kind, rows in kinds.items())
                figures = {kind: float(len(rows)) for kind, rows in kinds.items()}
                text = SAID[name].format(listed, rows_text(everywhere))
                findings.append(Finding(name, text, everywhere, figures=figures))
        return findings
