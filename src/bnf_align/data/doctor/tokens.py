"""The rows under the model's tokenizer: what training makes of them, how long they are, and how near their answers."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np

from bnf_align.data.doctor.ches import Ches
from bnf_align.data.doctor.lengths import Lengths
from bnf_align.data.doctor.near_identical import NearIdentical
from bnf_align.data.ledger import CHAT, DOWN, LATE_SYSTEM, PAIR, SYSTEM, UP, Ledger
from bnf_align.data.token_ledger import TokenLedger, check_tokenizer
from bnf_align.data.tokenize import encode_row
from bnf_align.records import Finding, PreferenceRow


class Tokens:
    """Tokenises as training does, and keeps the lengths.

    Args:
        ledger: Counts what becomes of the rows.
        merge_system_prompt: As in training.
        model: Under which pairs are scored by `Ches`; None leaves that out.
    """

    def __init__(self, ledger: TokenLedger, merge_system_prompt: bool, model: Any) -> None:
        self._ledger, self._merge = ledger, merge_system_prompt
        self._ches = None if model is None else Ches(model, ledger.max_length)
        self.lengths, self._near = Lengths("tokens"), NearIdentical("tokens")
        self._sides = array("b")

    def check(self, rows: Ledger) -> None:
        """Make sure that the tokenizer can write these rows.

        Raises:
            BadInput: If it lacks what they need.
        """
        chat = rows.rows(CHAT)
        plain = sorted(set(rows.numbers[rows.kept].tolist()) - set(chat))
        system = rows.rows(LATE_SYSTEM if self._merge else SYSTEM)
        check_tokenizer(chat, plain, system, self._ledger.tokenizer, self._ledger.report)

    def read(self, rows: Iterable[PreferenceRow]) -> list[Finding]:
        """Tokenise rows with labels.

        Raises:
            BadInput: If none of them is left.
        """
        tokenizer = self._ledger.tokenizer
        for row in rows:
            outcome = encode_row(row, tokenizer, self._merge, self._ledger.score_thoughts)
            unit = self._ledger.add(row["row"], outcome)
            if unit is None:
                continue
            answers = [answer.ids[answer.mask] for answer in unit]
            self.lengths.add(int(unit[0].mask.argmax()), [len(ids) for ids in answers])
            self._sides.append(PAIR if len(unit) == 2 else UP if unit[0].label else DOWN)
            if len(unit) == 2:
                self._near.add(row["row"], answers[0].tolist(), answers[1].tolist())
                if self._ches is not None:
                    self._ches.add(row["row"], *unit)
        return self._ledger.finish()

    def findings(self) -> list[Finding]:
        """What else lengths, distances and hidden states say."""
        ches = [] if self._ches is None else self._ches.findings()
        return [*self._near.findings(), *ches, *self.lengths.findings(self.sides)]

    @property
    def sides(self) -> np.ndarray:
        """(rows,) `PAIR`, `DOWN` or `UP` of the rows that fit."""
        return np.array(self._sides, dtype=np.int8)
