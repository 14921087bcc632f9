"""What a source's ratings say, learnt in a first reading: what each value means, who agrees, which answers pair up.

Only hashes of the answers stay in memory, some 150 bytes each, so the size of the texts does not matter.
"""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xxhash

from bnf_align.data.importers.importer import Importer, Options, Pair, Thumb
from bnf_align.data.importers.scores import by_threshold, threshold_hint
from bnf_align.data.importers.texts import cleaned
from bnf_align.data.labels import read_labels
from bnf_align.records import BadInput, DataReport

Key = int
"""Hash of what identifies an answer or a question: of a million, two meet by chance once in 30 million runs."""

RATERS = ("majority", "unanimous", "all")


class Votes(NamedTuple):
    """How often an answer was rated up, and how often down."""

    ups: int = 0
    downs: int = 0


@dataclass
class Ratings:
    """What the first reading learns."""

    meaning: Mapping[str, bool | None]
    """Value of the source, as Python writes it -> up, down, or None for one that is mapped to drop."""
    note: str | None
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


def read_ratings(importer: Importer, paths: Sequence[Path], options: Options, *, strict: bool = False) -> Ratings:
    """Read the source once for its ratings; `strict` is that of `read_labels`.

    Raises:
        BadInput: If a rating has no certain meaning; the message lists every value with its count.
    """
    if options.raters not in RATERS:
        raise BadInput(f"--raters {options.raters}: known are {', '.join(RATERS)}.")
    values: list[Any] = []
    rows, answers, questions, rewritten = array("q"), array("Q"), array("Q"), array("q")
    same: dict[str, Any] = {}  # one object per distinct value: a million of them are a few strings, many times
    for item in items(importer, paths, options, DataReport("")):
        if isinstance(item, Thumb):
            rewritten.extend([len(values)] if item.better is not None else [])
            values.append(same.setdefault(repr(item.value), item.value))
            rows.append(item.row)
            answers.append(answer_key(item))
            questions.append(0 if item.question is None else _hash(item.question))
    by_number = by_threshold(same.values(), options)
    try:
        given = by_number | dict(options.label_map)
        labels, note = read_labels(values, given, rows=rows, table=importer.VALUES, strict=strict)
    except BadInput as error:
        said, hint = str(error), threshold_hint(same.values())
        if by_number:  # the scale is placed, so what is left are words, such as N/A
            said, hint = said.replace("are not in --label_map", "are no numbers, nor in --label_map"), ""
        raise BadInput(f"{importer.name}: {said}{hint}") from error
    if by_number and note:
        note = note.replace("(--label_map)", "(--up_from, --down_to)")
    meaning = {repr(value): label for value, label in zip(values, labels, strict=True)}
    ratings = Ratings(meaning, note, _votes(answers, labels))
    refused = (answers[at] for at in rewritten if values[at] is None or labels[at] is False)
    ratings.corrected = {answer for answer in refused if not ratings.votes.get(answer, Votes()).ups}
    if options.raters != "all":  # where every rating is a row of its own, none is left for a pair
        ratings.partners = _partners(answers, questions, ratings, options.raters)
    return ratings


def items(importer: Importer, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb | Pair]:
    """What an importer reads, cleaned; without what can make no row, which is counted in `report`.

    Raises:
        BadInput: If the files cannot be read.
    """
    try:
        for item in importer.read(paths, options, report):
            clean = cleaned(item) if _says_something(item) else "no rating"
            clean = clean if isinstance(clean, str) or _says_something(clean) else "no rating"
            if isinstance(clean, str):
                report.drop(clean, item.row)
            else:
                yield clean
    except RecursionError:
        raise BadInput(f"{importer.name}: a record is nested too deeply to be a conversation.") from None


def _says_something(item: Thumb | Pair) -> bool:
    return isinstance(item, Pair) or item.value is not None or item.better is not None


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
