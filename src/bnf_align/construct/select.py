"""Scored candidates or pairs in, preference rows out; every choice is explicit and seeded.

The paper (section 4.1) takes the best and the worst of five candidates as a pair. Section 5.2 then masks one side of a
share of the pairs at random, which leaves a thumb.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from rapidfuzz.distance import Levenshtein

from bnf_align.data.ledger import EXTRAS, canonical
from bnf_align.journal import Row
from bnf_align.reasons import Reason
from bnf_align.records import BadInput, counted

OF_PAIRS = ("margin", "pairing_ratio", "near_identical")
OF_THUMBS = ("threshold", "top", "bottom", "repeats")


@dataclass(frozen=True)
class Choice:
    """How rows are selected.

    Raises:
        BadInput: For shares and ratios outside 0..1, or more than one way to make thumbs.
    """

    unpaired: bool = False
    """Thumbs instead of pairs: needs `threshold`, or `top` and `bottom`."""
    threshold: float | None = None
    """Scores from here on are ups, others downs."""
    top: float | None = None
    """The best share of all candidates are ups ..."""
    bottom: float | None = None
    """... and the worst share downs; what lies between is left out."""
    repeats: str = "keep"
    """Candidates of a prompt that say the same: "keep" them all as thumbs, or "drop" all but the first. Then an
    answer no longer counts as often as the model gave it: in the quickstart's world, where right answers repeat and
    wrong ones differ, 2,854 ups of 5,000 thumbs became 988 of some 3,000, and the model collapsed."""
    margin: float = 0.0
    """A pair's scores must differ by more than this."""
    pairing_ratio: float = 1.0
    """Share of the pairs that stay pairs; of each other one a side is left out at random, of half the chosen one."""
    balance: bool = False
    """Leave out thumbs of the more frequent kind at random until both are equally many."""
    near_identical: str = "keep"
    """Near-identical pairs: "keep" or "drop" them; they are counted either way."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("top", "bottom", "pairing_ratio"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise BadInput(f"{_flag(name)} {value}: a share lies between 0 and 1.")
        for name in ("near_identical", "repeats"):
            if getattr(self, name) not in ("keep", "drop"):
                raise BadInput(f"{_flag(name)} {getattr(self, name)}: choose keep or drop.")
        if not 0 <= self.margin < math.inf:
            raise BadInput(f"--margin {self.margin}: a pair whose sides score alike says nothing; choose 0 or more.")
        if self.threshold is not None and not math.isfinite(self.threshold):
            raise BadInput(f"--threshold {self.threshold}: no score is compared with that; choose a number.")
        # A setting of the other kind of rows would do nothing, unsaid.
        defaults = {entry.name: entry.default for entry in fields(self)}
        others = OF_PAIRS if self.unpaired else OF_THUMBS
        if set_ := [name for name in others if getattr(self, name) != defaults[name]]:
            kind = "pairs, and --unpaired makes none" if self.unpaired else "--unpaired, which was not given"
            raise BadInput(f"{_flag(set_[0])} is for {kind}.")
        given = [value is not None for value in (self.threshold, self.top, self.bottom)]
        if self.unpaired and given not in ([True, False, False], [False, True, True]):
            raise BadInput("--unpaired needs one way to tell ups from downs: --threshold T, or --top and --bottom.")
        if (self.top or 0) + (self.bottom or 0) > 1:
            raise BadInput("--top and --bottom together are more than all candidates.")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


NEAR_IDENTICAL = 0.9
"""Similarity, 1 minus edit distance over length, both in words, from which two answers are near-identical."""


@dataclass
class Selected:
    """Preference rows, and what was left out and why."""

    rows: list[Row] = field(default_factory=list)
    dropped: dict[Reason, list[str]] = field(default_factory=dict)
    """Reason -> ids of the prompts."""
    similarities: list[float] = field(default_factory=list)
    """Of each pair before masking: 1 is equal."""
    near_identical: int = 0

    def drop(self, reason: Reason, row: Row) -> None:
        """Count a prompt as left out for `reason`."""
        self.dropped.setdefault(reason, []).append(str(row.get("id")))


def select(rows: Sequence[Row], choice: Choice) -> Selected:
    """Rows that `train` reads, in their order.

    Args:
        rows: Rows of `score`; or pairs, among which there may be single answers, which stay as they are.
        choice: How.

    Raises:
        BadInput: If nothing is left, or the choice needs scores where rows are pairs.
    """
    found = Selected()
    if any("candidates" not in row for row in rows) and (choice.unpaired or choice.margin):
        flag = "--unpaired" if choice.unpaired else "--margin"
        raise BadInput(
            f"{flag} goes by the scores of candidates, and these rows are pairs, which have none. "
            "--pairing-ratio leaves out one side of some or all of them."
        )
    if choice.unpaired:
        found.rows = _thumbs(rows, choice, found)
    else:
        found.rows = _masked(list(_pairs(rows, choice, found)), choice)
    if choice.balance:
        found.rows = _balanced(found.rows, choice.seed, found)
    if not found.rows:
        reasons = "; ".join(f"{len(ids):,} for {reason}" for reason, ids in found.dropped.items())
        raise BadInput(f"Nothing is left of {counted(len(rows), 'prompt')}: {reasons or 'there were none'}.")
    return found


def _pairs(rows: Sequence[Row], choice: Choice, found: Selected) -> Iterator[Row]:
    """The pairs, of candidates or as they are, without the near-identical ones where these are not wanted."""
    for row in rows:
        pair = _pair(row, choice) if "candidates" in row else row
        if isinstance(pair, dict) and "chosen" in pair:
            likeness = similarity(_text(pair["chosen"]), _text(pair["rejected"]))
            found.near_identical += likeness >= NEAR_IDENTICAL
            if likeness >= NEAR_IDENTICAL and choice.near_identical == "drop":
                pair = Reason("near_identical")
            else:
                found.similarities.append(likeness)
        if isinstance(pair, Reason):
            found.drop(pair, row)
        else:
            yield pair


def _pair(row: Row, choice: Choice) -> Row | Reason:
    """Best against worst, of equals the earlier candidate; or why there is no such pair."""
    known = [(value, number) for number, value in enumerate(row["scores"]) if value is not None]
    if len(known) < 2:
        return Reason("fewer_than_two_scores")
    best = max(known, key=lambda one: (one[0], -one[1]))
    worst = min(known, key=lambda one: (one[0], one[1]))
    texts = [row["candidates"][number]["text"] for _, number in (best, worst)]
    if best[0] - worst[0] <= choice.margin:
        return Reason("scores_alike") if best[0] == worst[0] else Reason("within_margin")
    if texts[0] == texts[1]:
        return Reason("best_and_worst_same")
    if not all(text.strip() for text in texts):
        return Reason("empty_answer")
    sides = {"chosen": _answer(row, texts[0]), "rejected": _answer(row, texts[1])}
    return {"id": row["id"], **_asked(row), **sides, "chosen_score": best[0], "rejected_score": worst[0]}


def similarity(first: str, second: str) -> float:
    """1 minus the edit distance of two texts in words over the number of words of the longer one."""
    return float(Levenshtein.normalized_similarity(first.split(), second.split()))


def _masked(rows: list[Row], choice: Choice) -> list[Row]:
    """`pairing_ratio` of the pairs whole, and of the others one side, chosen and rejected in turn in a drawn order.

    That order is one for all ratios: a pair that is whole at a low ratio is whole at a higher one, and a side that is
    left out at one is left out at every lower one.
    """
    drawn = _drawn(rows, (at for at, row in enumerate(rows) if "chosen" in row), choice.seed, "pair")
    masked = drawn[round(choice.pairing_ratio * len(drawn)) :][::-1]
    sides = {at: ("chosen", "rejected")[turn % 2] for turn, at in enumerate(masked)}
    return [_side(row, sides[at]) if at in sides else row for at, row in enumerate(rows)]


def _side(pair: Row, side: str) -> Row:
    """One answer of a pair as a thumb, with what the pair says of it (`chosen_score`) and of both."""
    other = "rejected" if side == "chosen" else "chosen"
    rest = {
        name.removeprefix(f"{side}_"): value
        for name, value in pair.items()
        if name != side and not name.startswith(other)
    }
    return {**rest, "prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"}


def _thumbs(scored: Sequence[Row], choice: Choice, found: Selected) -> list[Row]:
    high, low = _bounds(scored, choice)
    rows = []
    for row in scored:
        seen: set[str] = set()
        for number, (candidate, value) in enumerate(zip(row["candidates"], row["scores"], strict=True)):
            label = _label(value, high, low, choice)
            if value is None:
                found.drop(Reason("no_score"), row)
            elif not candidate["text"].strip():
                found.drop(Reason("empty_answer"), row)
            elif choice.repeats == "drop" and candidate["text"] in seen:
                found.drop(Reason("repeated_candidate"), row)
            elif label is None:
                found.drop(Reason("in_between"), row)
            else:
                answer = _answer(row, candidate["text"])
                thumb = {"id": f"{row['id']}/{number}", **_asked(row), "completion": answer, "label": label}
                rows.append({**thumb, "score": value})
            seen.add(candidate["text"])
    return rows


def _bounds(scored: Sequence[Row], choice: Choice) -> tuple[float, float]:
    """The score from which on candidates are ups, and that up to which they are downs."""
    values = [value for row in scored for value in row["scores"] if value is not None]
    if not values:
        raise BadInput(f"No candidate of {counted(len(scored), 'prompt')} has a score.")
    if choice.threshold is not None:
        return choice.threshold, choice.threshold
    # The k best and the k worst for the same share: each end is counted from its own side.
    high = -_smallest([-value for value in values], choice.top or 0)
    return high, _smallest(values, choice.bottom or 0)


def _smallest(values: Sequence[float], share: float) -> float:
    """The largest of the smallest `share` of the values, at least one of them where the share is above 0."""
    return float(np.quantile(values, share, method="inverted_cdf")) if share else -math.inf


def _label(value: float | None, high: float, low: float, choice: Choice) -> bool | None:
    if value is None:
        return None
    if choice.threshold is not None:
        return value >= high
    # Where many scores are equal both bounds may meet; a score on both would be an up and a down.
    if value >= high and value > low:
        return True
    return False if value <= low and value < high else None


def _balanced(rows: Sequence[Row], seed: int, found: Selected) -> list[Row]:
    """As many ups as downs; pairs have both already."""
    sides = {label: [at for at, row in enumerate(rows) if row.get("label") is label] for label in (True, False)}
    fewest = min(map(len, sides.values()))
    out: set[int] = set()
    for side in sides.values():
        out |= {*_drawn(rows, side, seed, "balance")[fewest:]}
    for at in sorted(out):
        found.drop(Reason("unbalanced"), rows[at])
    return [row for at, row in enumerate(rows) if at not in out]


def _asked(row: Row) -> Row:
    """The prompt, and what training gives the chat template beside it."""
    return {name: row[name] for name in ("prompt", "system", *EXTRAS) if name in row}


def _answer(row: Row, text: str) -> str | list[Row]:
    return [{"role": "assistant", "content": text}] if isinstance(row["prompt"], list) else text


def _drawn(rows: Sequence[Row], numbers: Iterable[int], seed: int, what: str) -> list[int]:
    """The numbers of rows in an order that follows from the seed and what each row says, wherever it stands."""

    def chance(number: int) -> bytes:
        text = f"{seed}\0{what}\0{canonical(rows[number])}"
        return hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=8).digest()

    return sorted(numbers, key=chance)


def labels_and_lengths(rows: Iterable[Row]) -> tuple[list[int], list[int]]:
    """Lengths in characters of all ups (chosen answers included) and of all downs."""
    ups, downs = [], []
    for row in rows:
        if "chosen" in row:
            ups.append(len(_text(row["chosen"])))
            downs.append(len(_text(row["rejected"])))
        else:
            (ups if row["label"] else downs).append(len(_text(row["completion"])))
    return ups, downs


def _text(answer: str | list[Row]) -> str:
    """An answer's own words: of messages those of the last one, which may be nothing but tool calls."""
    return answer if isinstance(answer, str) else str(answer[-1].get("content") or "")
