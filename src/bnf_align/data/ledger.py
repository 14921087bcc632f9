"""What is remembered of every checked row while rows come and go: 28 bytes, which tell what concerns several of them.

Whether an answer is labelled both ways, or a row repeats another, no row says of itself. Training holds its rows and
the doctor does not, but both ask here, and so agree.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from typing import Any

import numpy as np
import xxhash

from bnf_align.data.labels import plain, read_labels
from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport, Finding, PreferenceRow, counted, rows_text
from bnf_align.sources.scores import THRESHOLDS, threshold_hint

UNBALANCED = 20
MOSTLY_DOWNS = 3
"""Downs for each up from which BNF collapsed in the tiny world (`docs/claims.md`, claim 4)."""
RULES = ("drop", "keep", "majority")
OUT, PAIR, DOWN, UP, UNREAD = -1, 0, 1, 2, 3
CHAT, SYSTEM, LATE_SYSTEM, CONTINUED, UNPROMPTED = 1, 2, 4, 8, 16
"""Messages; a system turn; one after other turns; a prompt that ends with an answer; an empty prompt."""
EXTRAS = ("tools", "chat_template_kwargs")
FACTORS = {"prompt": 1, "chosen": 3, "rejected": 5, "completion": 7, "tools": 9, "chat_template_kwargs": 11}

canonical = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str).encode


class Ledger:
    """The rows of one source, in their order; the report gets what became of them."""

    def __init__(self, report: DataReport) -> None:
        self.report = report
        self._numbers, self._keys, self._turned = array("q"), array("Q"), array("Q")
        self._sides, self._flags = array("b"), bytearray()
        self._values: list[Any] = []
        self._same: dict[str, Any] = {}
        self.numbers = np.zeros(0, dtype=np.int64)
        """(rows,), after `settle`: the rows' numbers in their source."""
        self.sides = np.zeros(0, dtype=np.int8)
        """(rows,), after `settle`: `PAIR`, `DOWN` or `UP`; `OUT` where the row is left out."""
        self.labelled = np.zeros(0, dtype=np.int8)
        """(rows,), after `settle`: the same before answers with both labels are left out."""
        self.keys = self.turned = np.zeros(0, dtype=np.uint64)
        """(rows,), after `settle`: the `answer_keys` of each; 0 where a tokenizer cannot read it."""

    def add(self, row: PreferenceRow) -> bool:
        """Remember a row of `RowChecker`; says whether a tokenizer can read it."""
        self._numbers.append(row["row"])
        self._flags.append(_flags(row["prompt"]))
        try:
            key, turned = answer_keys(row)
            self._keys.append(key)
            self._turned.append(turned)
        except UnicodeEncodeError:
            self._keys.append(0)
            self._turned.append(0)
            self._sides.append(OUT)
            self.report.drop(Reason("half_character"), row["row"])
            return False
        self._sides.append(UNREAD if "completion" in row else PAIR)
        if "completion" in row:
            value = plain(row["label"])
            # One object per distinct value: a million labels are a few objects, many times.
            self._values.append(value if isinstance(value, bool) else self._same.setdefault(repr(value), value))
        return True

    @property
    def kept(self) -> np.ndarray:
        """(rows,) bool, after `settle`: whether the row is trained on."""
        return self.sides != OUT

    def rows(self, flag: int) -> list[int]:
        """Numbers of the rows kept that have a flag."""
        flags = np.array(self._flags, dtype=np.uint8)
        return self.numbers[self.kept & (flags & flag > 0)].tolist()

    def settle(self, label_map: Mapping[str, str] | None, conflicting_labels: str) -> list[Finding]:
        """Read the labels, and leave out what has none or has both.

        Returns:
            What deserves a look, in the order in which it is said; nothing of it is in the report yet.

        Raises:
            BadInput: If labels have no certain meaning, or no row is left.
        """
        if conflicting_labels not in RULES:
            raise BadInput(f"--conflicting_labels {conflicting_labels}: known are drop, keep and majority.")
        self.numbers = np.array(self._numbers, dtype=np.int64)
        self.sides = np.array(self._sides, dtype=np.int8)
        self.keys, self.turned = (np.frombuffer(of, dtype=np.uint64) for of in (self._keys, self._turned))
        self._read_labels(label_map)
        self.labelled = self.sides.copy()
        found = self._settle_conflicts(conflicting_labels)
        if not self.kept.any():
            why = self.report.left_out()
            raise BadInput(f"{self.report.source}: 0 of {self.report.rows:,} rows are usable. {why}.")
        counts = np.bincount(self.sides[self.kept], minlength=3).tolist()
        self.report.pairs, self.report.downs, self.report.ups = counts
        return [*found, *self._remarks()]

    def _read_labels(self, label_map: Mapping[str, str] | None) -> None:
        singles = np.flatnonzero(self.sides == UNREAD)
        numbers = self.numbers[singles].tolist()
        try:
            labels, note = read_labels(self._values, label_map, rows=numbers)
        except BadInput as error:
            hint = threshold_hint(self._values, f"`bnf-align import table FILE {THRESHOLDS} --out rows.jsonl`")
            raise BadInput(f"{self.report.source}: {error}{hint}") from error
        if note:
            self.report.notes.append(f"label: {note}")
        for at, number, value, label in zip(singles.tolist(), numbers, self._values, labels, strict=True):
            if label is None:
                missing = value is None or (value != value and "nan" not in (label_map or {}))
                self._leave_out(at, number, Reason("no_label" if missing else "dropped_label"))
            else:
                self.sides[at] = UP if label else DOWN

    def _settle_conflicts(self, rule: str) -> list[Finding]:
        """Leave out the single answers that carry both labels: their gradients cancel where they should teach."""
        singles = np.flatnonzero(self.sides > PAIR)
        up = self.sides[singles] == UP
        keys, which = np.unique(self.keys[singles], return_inverse=True)
        ups, downs = np.bincount(which, up, len(keys)), np.bincount(which, ~up, len(keys))
        torn = (ups > 0) & (downs > 0)
        if not torn.any():
            return []
        votes = f"{counted(int(ups[torn].sum()), 'up')}, {counted(int(downs[torn].sum()), 'down')}"
        answers = "1 answer carries" if torn.sum() == 1 else f"{torn.sum():,} answers carry"
        counts = f"{answers} both labels ({votes})"
        at = singles[torn[which]]
        if rule == "keep":
            text = f"{counts}: kept, as --conflicting_labels keep says, and they cancel each other"
            return [Finding("both_labels", text, self.numbers[at].tolist())]
        if rule == "majority":
            loses = np.where(up, ups[which] <= downs[which], downs[which] <= ups[which])
            at = singles[torn[which] & loses]
        for row in at.tolist():
            self._leave_out(row, int(self.numbers[row]), Reason("both_labels"))
        left = {"drop": "none of them is kept", "majority": "the more frequent label is kept"}[rule]
        self.report.notes.append(f"{counts}: {left} (--conflicting_labels drop|majority|keep)")
        return []

    def _remarks(self) -> list[Finding]:
        """What is kept but deserves a look."""
        at = np.flatnonzero(self.kept)
        keys = self.keys[at] ^ self.sides[at].astype(np.uint64)
        again = np.ones(len(at), dtype=bool)
        again[np.unique(keys, return_index=True)[1]] = False
        found = []
        if repeats := self.numbers[at[again]].tolist():
            text = f"an earlier row is repeated word for word, and so counts twice: {rows_text(repeats)}"
            found.append(Finding("repeats", text, repeats))
        pairs = np.flatnonzero(self.sides == PAIR)
        if opposite := self.numbers[pairs[np.isin(self.turned[pairs], self.keys[pairs])]].tolist():
            text = "another row has the same two answers the other way round, chosen and rejected, so they cancel "
            text += f"each other: {rows_text(opposite)}"
            found.append(Finding("opposite_pairs", text, opposite))
        if continued := self.rows(CONTINUED):
            text = f"the prompt ends with an assistant turn, which the answer continues: {rows_text(continued)}"
            found.append(Finding("continued_prompt", text, continued))
        if unprompted := self.rows(UNPROMPTED):
            found.append(Finding("empty_prompt", f"the prompt is empty: {rows_text(unprompted)}", unprompted))
        return found

    def _leave_out(self, at: int, number: int, reason: Reason) -> None:
        self.sides[at] = OUT
        self.report.drop(reason, number)


def answer_keys(row: PreferenceRow) -> tuple[int, int]:
    """64 bits that prompt, answers and what else the template sees have in common, whatever their label.

    And the same of a pair whose chosen and rejected have changed places. Of a million rows two that differ share them
    with a probability of 3e-8.
    """
    # Each part has a factor of its own, or a prompt and an answer could change places.
    hashes = {name: _hash(row[name]) for name in FACTORS if name in row}
    key = sum(FACTORS[name] * value for name, value in hashes.items())
    turned = (FACTORS["rejected"] - FACTORS["chosen"]) * (hashes.get("chosen", 0) - hashes.get("rejected", 0))
    return key % 2**64, (key + turned) % 2**64


def _hash(value: Any) -> int:
    # To write a text, or plain turns, as JSON takes three times as long as to hash it.
    if isinstance(value, str):
        return int(xxhash.xxh3_64_intdigest(value.encode(), seed=1))
    if isinstance(value, list) and all(
        turn.keys() == {"role", "content"} and isinstance(turn["content"], str) for turn in value
    ):
        said = "".join(f"{turn['role']}:{len(turn['content'])}:{turn['content']}" for turn in value)
        return int(xxhash.xxh3_64_intdigest(said.encode(), seed=2))
    return int(xxhash.xxh3_64_intdigest(canonical(value).encode()))


def _flags(prompt: str | list[dict[str, Any]]) -> int:
    if isinstance(prompt, str):
        return 0 if prompt.strip() else UNPROMPTED
    roles = [turn["role"] for turn in prompt]
    flags = CHAT | CONTINUED * (roles[-1] == "assistant")
    if "system" in roles:
        first = next((i for i, role in enumerate(roles) if role != "system"), len(roles))
        flags |= SYSTEM | LATE_SYSTEM * ("system" in roles[first:])
    return flags


def with_label(row: PreferenceRow, side: int) -> PreferenceRow:
    """A row with its label as `Ledger.sides` has it; a pair as it is."""
    return row if side == PAIR else {**row, "label": side == UP}


def balance(report: DataReport) -> Finding | None:
    """What is wrong with the balance of single responses; pairs are balanced by nature."""
    ups, downs = report.ups, report.downs
    if report.pairs or (ups and downs and downs < MOSTLY_DOWNS * ups and ups <= UNBALANCED * downs):
        return None
    if not downs:
        text = "only ups: nothing says what to avoid, so this is plain supervised fine-tuning on them"
        return Finding("one_sided", text)
    if not ups:
        return Finding("one_sided", "only downs: nothing says what to do instead, so the model can only unlearn")
    text = f"{counted(ups, 'up')} against {counted(downs, 'down')}: "
    if downs > ups:
        text += "with so many downs a model may collapse. Balance them (`bnf-align select FILE --balance --out OUT`), "
        text += "or take a small learning rate and --stop_on_collapse true"
    else:
        text += "the rarer label has little say in the mean of a step"
    return Finding("unbalanced", text, figures={"ups": ups, "downs": downs})
