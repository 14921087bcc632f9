"""What a source's ratings say, learnt in a first reading: what each value means, who agrees, which answers pair up.

Only hashes of the answers stay in memory, some 150 bytes each, so the size of the texts does not matter.
"""

from __future__ import annotations

import json
import shlex
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from bnf_align.data.check import clean_message, is_empty
from bnf_align.data.labels import read_labels, spelled
from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport
from bnf_align.sources.scores import by_threshold, label_of, threshold_hint
from bnf_align.sources.source import Contest, Item, Options, Pair, Source, Text, Thumb

Key = int
"""Hash of what identifies an answer or a question: of a million, two meet by chance once in 30 million runs."""

RATERS = ("majority", "unanimous", "all")
WINNERS = {"first": "the first answer", "second": "the second one", "tie": "a tie", "both_bad": "both bad"}
"""What a value that names a winner can mean, and how that is said."""


class Votes(NamedTuple):
    """How often an answer was rated up, and how often down."""

    ups: int = 0
    downs: int = 0


@dataclass
class Ratings:
    """What the first reading learns."""

    meaning: Mapping[str, bool | None]
    """Value of the source, as Python writes it -> up, down, or None for one that is mapped to drop."""
    notes: list[str]
    """How values were read."""
    winners: Mapping[str, str] = field(default_factory=dict)
    """What the source writes of two answers, as Python writes it -> a key of `WINNERS`."""
    votes: dict[Key, Votes] = field(default_factory=dict)
    partners: dict[Key, Key] = field(default_factory=dict)
    """Answers that make a pair, both ways."""
    corrected: set[Key] = field(default_factory=set)
    """Answers that someone rewrote and nobody rated up."""

    def verdict(self, answer: Key, raters: str) -> bool | None:
        """Up or down, or None where the raters disagree as much as the rule does not allow."""
        ups, downs = self.votes[answer]
        if ups and downs and (raters == "unanimous" or ups == downs):
            return None
        return ups > downs


def read_ratings(source: Source, paths: Sequence[Path], options: Options, *, strict: bool = False) -> Ratings:
    """Read the source once for its ratings; `strict` is that of `read_labels`.

    Raises:
        BadInput: If a rating has no certain meaning; the message lists every value with its count.
    """
    if options.raters not in RATERS:
        raise BadInput(f"--raters {options.raters}: known are {', '.join(RATERS)}.")
    values: list[Any] = []
    contests: Counter[str] = Counter()
    rows, answers, questions, rewritten = array("q"), array("Q"), array("Q"), array("q")
    same: dict[str, Any] = {}  # one object per distinct value: a million of them are a few strings, many times
    for item in items(source, paths, options, DataReport("")):
        if isinstance(item, Thumb):
            rewritten.extend([len(values)] if item.better is not None else [])
            values.append(same.setdefault(repr(item.value), item.value))
            rows.append(item.row)
            answers.append(answer_key(item))
            questions.append(0 if item.question is None else _hash(item.question))
        elif isinstance(item, Contest):
            contests[spelled(item.winner)] += 1
    winners, notes = _read_winners(source, contests, options.label_map, strict)
    if contests and not values:
        return Ratings({}, notes, winners)
    by_number = by_threshold(same.values(), options)
    try:
        given = by_number | dict(options.label_map)
        labels, note = read_labels(
            values, given, rows=rows, table=source.values, strict=strict, placed=bool(by_number)
        )
    except BadInput as error:
        hint = "" if by_number else threshold_hint(same.values())
        raise BadInput(f"{source.name}: {error}{hint}") from error
    notes += [f"rating: {note}"] if note else []
    meaning = {repr(value): label for value, label in zip(values, labels, strict=True)}
    ratings = Ratings(meaning, notes, winners, _votes(answers, labels))
    refused = (answers[at] for at in rewritten if values[at] is None or labels[at] is False)
    ratings.corrected = {answer for answer in refused if not ratings.votes.get(answer, Votes()).ups}
    if options.raters != "all":  # where every rating is a row of its own, none is left for a pair
        ratings.partners = _partners(answers, questions, ratings, options.raters)
    return ratings


def _read_winners(
    source: Source, seen: Counter[str], label_map: Mapping[str, str], strict: bool
) -> tuple[Mapping[str, str], list[str]]:
    """What each value that names a winner means, and a sentence on it for the report."""
    if not seen:
        return {}, []
    table = {**source.winners, **label_map}
    listed = ", ".join(f"{count:,} x {value}" for value, count in seen.most_common(20))
    wrong = [f"{value}={to}" for value, to in label_map.items() if to not in WINNERS]
    if wrong:
        raise BadInput(f"--label_map {' '.join(wrong)}: of two answers a value is mapped to {', '.join(WINNERS)}.")
    if strict and label_map and not label_map.keys() & seen.keys():
        raise BadInput(
            f"--label_map {' '.join(label_map)}: no winner is written so, it would change nothing. Seen: {listed}."
        )
    unread = [value for value in seen if value not in table]
    if unread:
        form = " ".join(f"{shlex.quote(value)}={'|'.join(WINNERS)}" for value in unread[:4])
        raise BadInput(
            f"{source.name}: which of the two answers won is not certain. Seen: {listed}. Taken the wrong way round "
            f"it trains on the worse ones, so nothing is guessed: say what each value means with --label_map {form}"
        )
    read = ", ".join(f"{count:,} x {value} read as {WINNERS[table[value]]}" for value, count in seen.most_common(20))
    return table, [f"winner: {read}; another meaning? --label_map"]


def items(source: Source, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Item]:
    """What a source reads, cleaned; without what can make no row, which is counted in `report`.

    Raises:
        BadInput: If the files cannot be read.
    """
    try:
        for item in source.read(paths, options, report):
            clean = _cleaned(item)
            if isinstance(clean, Reason):
                report.drop(clean, item.row)
            else:
                yield clean
    except RecursionError:
        raise BadInput(f"{source.name}: a record is nested too deeply to be a conversation.") from None


ANSWERS: Mapping[type, tuple[str, ...]] = {
    Thumb: ("completion",),
    Pair: ("chosen", "rejected"),
    Contest: ("first", "second"),
}
"""Where each kind of item holds its answers."""


def _cleaned(item: Item) -> Item | Reason:
    """An item with clean messages, or why it makes no row."""
    if isinstance(item, Thumb):
        item = item._replace(value=label_of(item.value, text_only=False))
        if item.value is None and item.better is None:
            return Reason("no_rating")
    if isinstance(item, Contest) and item.winner in (None, ""):
        return Reason("no_winner")
    names = [*ANSWERS[type(item)]]
    names += ["better"] if isinstance(item, Thumb) and item.better is not None else []
    if not item.prompt and item.prompt != "":
        return Reason("no_prompt")
    try:
        texts: dict[str, Any] = {name: _clean(getattr(item, name)) for name in ("prompt", *names)}
    except BadInput:
        return Reason("not_text")
    if any(not texts[name] or is_empty(texts[name]) for name in names):
        return Reason("empty_answer")
    if len({isinstance(text, str) for text in texts.values()}) > 1:
        return Reason("text_and_messages")
    try:
        json.dumps(texts, ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError:
        return Reason("half_character")
    if len(names) > 1 and texts[names[0]] == texts[names[1]]:
        if not isinstance(item, Thumb):
            return Reason("equal_answers" if isinstance(item, Pair) else "equal_sides")
        if item.value is None:
            return Reason("no_rating")
        texts["better"] = None
    return item._replace(**texts)


def _clean(text: Any) -> Text:
    if text is None or isinstance(text, str):
        return text or ""
    if not isinstance(text, list):
        raise BadInput(type(text).__name__)
    return [clean_message(message, "", {}) for message in text]


def _votes(answers: Sequence[Key], labels: Sequence[bool | None]) -> dict[Key, Votes]:
    votes: dict[Key, Votes] = {}
    same: dict[Votes, Votes] = {}
    for answer, label in zip(answers, labels, strict=True):
        if label is not None:
            ups, downs = votes.get(answer, Votes())
            new = Votes(ups + label, downs + (not label))
            votes[answer] = same.setdefault(new, new)
    return votes


def _partners(answers: Sequence[Key], questions: Sequence[Key], ratings: Ratings, raters: str) -> dict[Key, Key]:
    """Answers to one question, the first up with the first down and so on; what is left over stays single."""
    found, counts = np.unique(np.asarray(questions, dtype=np.uint64), return_counts=True)
    several = set(found[counts > 1].tolist()) - {0}
    both = ((answer, question) for answer, question in zip(answers, questions, strict=True) if question in several)
    sides: dict[Key, tuple[list[Key], list[Key]]] = defaultdict(lambda: ([], []))
    for answer, question in dict.fromkeys(both):
        alone = answer not in ratings.votes or answer in ratings.corrected
        verdict = None if alone else ratings.verdict(answer, raters)
        if verdict is not None:
            sides[question][verdict].append(answer)
    pairs = [pair for downs, ups in sides.values() for pair in zip(ups, downs, strict=False)]
    return {one: other for up, down in pairs for one, other in ((up, down), (down, up))}


def answer_key(thumb: Thumb) -> Key:
    """What ratings of one answer share."""
    if thumb.answer is not None:
        return _hash(f"id {thumb.answer}")
    return _hash(json.dumps([thumb.prompt, thumb.completion], sort_keys=True, default=str))


def _hash(text: str) -> Key:
    return xxhash.xxh3_64_intdigest(text.encode(errors="backslashreplace"))


# Several people's choices between the answers of one record

Choice = tuple[str, str]
"""The better of two answers, and the worse one."""


def settled(choices: Sequence[Choice | None], raters: str, neither: Reason) -> list[Choice] | Reason:
    """The choices to write a pair for, by the rule for several raters; or why there is none.

    Args:
        choices: One per person; None of one who preferred neither, which is a choice like the others.
        raters: As in `Options`: "majority" leaves out a tie, "unanimous" any disagreement, "all" nothing.
        neither: The reason where nobody preferred any.

    Example:
        >>> settled([("a", "b"), None, ("a", "b")], "majority", Reason("prefers_no_side"))
        [('a', 'b')]
        >>> settled([("a", "b"), ("b", "a")], "majority", Reason("prefers_no_side"))
        'its raters disagree (--raters majority)'
    """
    ranked = Counter(choices).most_common(2)
    if raters == "all":
        found = [choice for choice in choices if choice is not None]
    elif len(ranked) > 1 and (raters == "unanimous" or ranked[0][1] == ranked[1][1]):
        found = []
    else:
        found = [choice for choice, _ in ranked[:1] if choice is not None]
    return found or (neither if len(ranked) < 2 else Reason("raters_disagree", raters=raters))
