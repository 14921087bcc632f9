"""How answers begin and end: refusals, and phrases that many have in common."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bnf_align.data.doctor.personal import redact
from bnf_align.data.ledger import DOWN, PAIR, UP, Ledger
from bnf_align.records import NOTE, WARNING, Finding, rows_text
from bnf_align.stats import wilson
from bnf_align.thoughts import without_thoughts

REFUSAL = re.compile(
    r"\W{0,9}(?:"
    r"(?:(?:i['’]m|i am|we['’]re|we are) (?:(?:very|really|so|truly|deeply) )?)?sorry,? (?:but|i (?:can|am|['’]m|won))"
    r"|(?:i|we) (?:sincerely )?apologi[sz]e,? (?:but|i (?:can|am|won))|(?:unfortunately,? )?(?:i|we) (?:cannot|can not"
    r"|can['’]t|am unable|['’]m unable|are unable|am not able|won['’]t be able|will not be able|must decline)"
    r"|i['’]m (?:unable|not able)|as an? (?:ai|artificial intelligence|(?:large )?language model)\b)",
    re.IGNORECASE,
)
WORDS = 4
"""Of an opening or a closing; an answer has to have twice as many."""
WIDEST = 60
"""Characters of a phrase: what is longer is no phrase of words."""
LOOKED_AT = 50_000
"""Rows of which phrases are kept; of a larger source one in so many."""
REFUSALS_APART, PHRASES_APART = 0.05, 0.1
"""Difference between the shares of the two sides from which a note becomes a warning."""
MANY, LEAST = 0.1, 10
"""A phrase is named that this share of a side's answers have, and this many of them."""
NAMED = 3


class Share(NamedTuple):
    """How many of the preferred answers have something, and how many of the others."""

    ups: int
    downs: int
    of_ups: int
    of_downs: int

    @property
    def shares(self) -> tuple[float, float]:
        """Of the chosen and desirable answers, and of the rejected and undesirable ones."""
        return self.ups / max(self.of_ups, 1), self.downs / max(self.of_downs, 1)

    def apart(self, least: float) -> bool:
        """Whether the shares differ by so much, and their 95 % intervals do not meet."""
        if not (self.of_ups and self.of_downs) or abs(self.shares[0] - self.shares[1]) < least:
            return False
        ups, downs = map(wilson, self.shares, (self.of_ups, self.of_downs))
        return ups.high < downs.low or downs.high < ups.low

    def __str__(self) -> str:
        said = (
            f"{share:.1%} of {what} answers ({count:,} of {of:,})"
            for share, what, count, of in (
                (self.shares[0], "chosen or desirable", self.ups, self.of_ups),
                (self.shares[1], "rejected or undesirable", self.downs, self.of_downs),
            )
            if of
        )
        return " and ".join(said)


class Phrases:
    """The beginnings and ends of answers: a byte of every row, and the words of up to 50,000.

    Args:
        rows: How many the source has.
    """

    def __init__(self, rows: int) -> None:
        self._step = max(-(-rows // LOOKED_AT), 1)
        self._refused = bytearray()
        self._looked_at: list[tuple[tuple[str, str], ...]] = []

    def add(self, answers: Sequence[str]) -> None:
        """Look at the answers of a row, a pair's chosen one first."""
        answers = [without_thoughts(answer) if "<" in answer or "[" in answer else answer for answer in answers]
        refused = [bool(REFUSAL.match(answer)) for answer in answers]
        if len(self._refused) % self._step == 0:
            self._looked_at.append(tuple(map(_phrases, answers, refused)))
        self._refused.append(refused[0] + 2 * refused[-1])

    def findings(self, ledger: Ledger) -> list[Finding]:
        """Refusals, and phrases that many answers begin or end with."""
        return [*self._refusals(ledger), *self._boilerplate(ledger)]

    def _refusals(self, ledger: Ledger) -> list[Finding]:
        refused = np.frombuffer(self._refused, dtype=np.uint8)
        first, last, pairs = refused & 1 > 0, refused & 2 > 0, ledger.sides == PAIR
        ups = first[pairs | (ledger.sides == UP)]
        downs = np.concatenate([last[pairs], first[ledger.sides == DOWN]])
        rows = ledger.numbers[ledger.kept & (refused > 0)].tolist()
        if not rows:
            return []
        share = Share(int(ups.sum()), int(downs.sum()), len(ups), len(downs))
        text, level = f"answers that begin as refusals do: {share}, in {rows_text(rows)}", NOTE
        if share.apart(REFUSALS_APART):
            level = WARNING
            text += ". The model will learn " + ("to refuse" if share.shares[0] > share.shares[1] else "not to refuse")
        return [Finding("refusals", text, rows, level, share._asdict())]

    def _boilerplate(self, ledger: Ledger) -> list[Finding]:
        """Phrases, each with its share, the most frequent first."""
        sides = ledger.sides[:: self._step].tolist()
        counts: tuple[Counter[tuple[str, str]], ...] = (Counter(), Counter())
        of = [0, 0]
        for side, answers in zip(sides, self._looked_at, strict=True):
            for down, phrases in _sided(side, answers):
                of[down] += 1
                counts[down].update((("begin with", phrases[0]), ("end in", phrases[1])))
        found = {
            (where, phrase): Share(counts[0][where, phrase], counts[1][where, phrase], *of)
            for count, total in zip(counts, of, strict=True)
            for (where, phrase), times in count.items()
            if phrase and times >= max(LEAST, MANY * total)
        }
        found = dict(sorted(found.items(), key=lambda item: -max(item[1].shares))[:NAMED])
        if not found:
            return []
        numbers = ledger.numbers[:: self._step].tolist()
        rows = [
            number
            for number, side, answers in zip(numbers, sides, self._looked_at, strict=True)
            if any(
                ("begin with", first) in found or ("end in", last) in found
                for _, (first, last) in _sided(side, answers)
            )
        ]
        said = "; ".join(f"{share} {where} {redact(phrase)!r}" for (where, phrase), share in found.items())
        apart = any(share.apart(PHRASES_APART) for share in found.values())
        looked = f" (one row in {self._step:,} was looked at)" if self._step > 1 else ""
        text = f"phrases that answers have in common{looked}: {said}; in {rows_text(rows)}"
        if apart:
            text += ". Where the sides differ a model can learn the phrase in the place of quality"
        listed = [
            {"where": where, "phrase": redact(text), **share._asdict()} for (where, text), share in found.items()
        ]
        return [Finding("boilerplate", text, rows, WARNING if apart else NOTE, {"phrases": listed})]


def _phrases(answer: str, refused: bool) -> tuple[str, str]:
    """The first words of an answer and its last; empty where it has too few, and the first ones of a refusal."""
    # A phrase is at most so wide, so an answer of any length is read at its ends.
    first, last = answer[: 4 * WIDEST].split(), answer[-4 * WIDEST :].split()
    if len(first) < 2 * WORDS:
        return "", ""
    opening, closing = " ".join(first[:WORDS]), " ".join(last[-WORDS:])
    return "" if refused or len(opening) > WIDEST else opening, "" if len(closing) > WIDEST else closing


def _sided(side: int, answers: Sequence[tuple[str, str]]) -> list[tuple[bool, tuple[str, str]]]:
    """A row's phrases, each with whether its answer is rejected or undesirable; none of a row left out."""
    if side == PAIR:
        return [(False, answers[0]), (True, answers[1])]
    return [(side == DOWN, answers[0])] if side in (UP, DOWN) else []
