"""Rows of a declared shape: where the prompt stands, and where what was said of the answers to it.

A format is one `Format`: `knows` says which fields only it has, `prompt` where the prompt, system text and history
stand, and `verdicts` where the answers and the rating stand; of several verdicts the first that a row has is read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from bnf_align.data.columns import IMAGES
from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport
from bnf_align.sources.fields import Where, filled, first_of, inside, part
from bnf_align.sources.files import records_like, records_of, unpacked
from bnf_align.sources.scores import number_of
from bnf_align.sources.source import Contest, Extras, Item, Message, Options, Pair, Record, Source, Thumb
from bnf_align.sources.turns import asked, assistant, ending, messages, transcript, with_system

Answer = tuple[list[Message], list[Message]]
"""An answer after the turns that stand before it in its own field."""

PICTURES = (*IMAGES, "attachments")
"""Columns with images, video or audio, which no row here can hold; an empty one has none."""
ROWS = "rows of one question"
"""Where a record that stands for several rows has them, with their numbers."""


@dataclass(frozen=True)
class Prompt:
    """Where the turns before the answers stand."""

    turns: str = ""
    """Fields with a conversation."""
    texts: tuple[str, ...] = ()
    """Fields with the question as text, where there is no conversation: one a line."""
    answer: str = ""
    """Fields with the answer to that question, which ends the conversation."""
    needs_answer: bool = False
    """Whether a question without an answer is no conversation."""
    system: str = "system"
    history: str = "history"
    split: Callable[[Any], list[Message] | None] = transcript
    """What makes turns of a text that holds several, None of any other."""

    def of(self, record: Record) -> list[Message] | None:
        """The turns, or None where there are none, or none that can be read."""
        talk, system = first_of(record, self.turns), first_of(record, self.system)
        texts = [first_of(record, one) for one in self.texts]
        question = texts[0] if texts else None
        talk = question if talk is None and isinstance(question, list) else talk
        turns = self.split(question) if talk is None else messages(talk)
        if turns and turns[-1].get("content") == "" and talk is None:
            turns = turns[:-1]  # a transcript that ends where the answer begins
        if turns is not None or talk is not None:
            return turns and with_system(turns, system)
        turns, answer = (
            asked(*texts, system=system, history=first_of(record, self.history)),
            part(record, self.answer),
        )
        if not isinstance(answer, str) or (not answer and not self.needs_answer):
            return None if self.needs_answer else turns
        return turns and [*turns, assistant(answer)]


class Row(NamedTuple):
    """One record on its way."""

    number: int
    prompt: list[Message] | None
    record: Record
    options: Options
    extras: Extras
    score: str
    """The score that is read, where the format has several."""


Verdict = Callable[[Row], Iterable[Item | Reason] | None]
"""What was said of the answers of a row: items, reasons for which there are none, or None where it says nothing."""


def facing(
    prompt: list[Message] | None, better: Answer | None, worse: Answer | None, without: Reason = Reason("side_unread")
) -> tuple[list[Message], list[Message], list[Message]] | Reason:
    """The prompt that two answers share, and the answers; or why they make no pair, `without` where one is missing."""
    if better is None or worse is None:
        return without
    before, (own, answer) = list(prompt or []), better
    if own and before and _said(own[-1]) != _said(before[-1]):
        return Reason("two_prompts")
    if len(own) > len(before):  # the conversation in the answer is the whole one; it may lack the system prompt
        before = with_system(own, before[0].get("content") if before and before[0]["role"] == "system" else None)
    apart = own and worse[0] and own != worse[0]
    return Reason("two_prompts") if apart or not before else (before, answer, worse[1])


def _said(turn: Message) -> Any:
    content = turn.get("content")
    return content.strip() if isinstance(content, str) else content


@dataclass(frozen=True)
class Chosen:
    """The better answer in one field, the worse in another."""

    chosen: str = "chosen"
    """The turn that ends the conversation, where it is empty."""
    rejected: str = "rejected"
    read: Callable[[Any], Answer | None] = ending
    opening: str = ""
    """A field with text that both answers begin with."""
    without: Reason = Reason("side_unread")
    """Why a row without one of the answers is left out."""

    def __call__(self, row: Row) -> Iterable[Item | Reason] | None:
        """A pair, where there is one of the two."""
        prompt, begins = row.prompt, first_of(row.record, self.opening)
        chosen, rejected = (first_of(row.record, names) for names in (self.chosen, self.rejected))
        if chosen is None and rejected is None:
            return None
        if not self.chosen and prompt:
            prompt, chosen = prompt[:-1], prompt[-1]
            if chosen["role"] != "assistant":
                return [Reason("no_last_answer")]
        if isinstance(begins, str) and isinstance(chosen, str) and isinstance(rejected, str):
            chosen, rejected = begins + chosen, begins + rejected
        found = facing(prompt, self.read(chosen), self.read(rejected), self.without)
        return [found if isinstance(found, Reason) else Pair(row.number, *found, row.extras)]


@dataclass(frozen=True)
class Labelled:
    """One answer with a rating of its own."""

    label: str = "label"
    answer: str = ""
    """The turn that ends the conversation, where it is empty."""
    before: str = ""
    """Where the conversation stands if not in the prompt's own field."""
    without: Reason = Reason("no_last_answer")
    """Why a row without an answer is left out."""

    def __call__(self, row: Row) -> Iterable[Item | Reason] | None:
        """A thumb, where there is an answer."""
        given = first_of(row.record, self.answer)
        if self.answer and given is None:
            return None
        prompt = row.prompt if row.prompt is not None else messages(first_of(row.record, self.before))
        answer = ending(given if self.answer else prompt)
        before = answer[0] if answer and answer[0] else prompt
        if answer is None or not before:
            return [self.without]
        return [Thumb(row.number, before, answer[1], first_of(row.record, self.label), extras=row.extras)]


@dataclass(frozen=True)
class Winner:
    """Two answers, and a field that says which of them is the better one; its value is read later."""

    first: Where
    second: Where
    winner: Where = ""
    """Where it is empty, the field that is the format's score, of which `--score_name` may name another."""

    def __call__(self, row: Row) -> Iterable[Item | Reason] | None:
        """A contest."""
        first, second = (ending(part(row.record, side)) for side in (self.first, self.second))
        found = facing(row.prompt, first, second)
        won = part(row.record, self.winner or row.score)
        return [found if isinstance(found, Reason) else Contest(row.number, *found, won, row.extras)]


class Candidate(NamedTuple):
    """One of several answers to a question, with its score."""

    text: Any
    score: Any
    model: Any = None
    doubt: Reason | None = None
    """Why its score cannot be believed."""
    row: int | None = None
    """Its own record's number, where it has one."""


@dataclass(frozen=True)
class Scored:
    """Several answers with a number each: the best and the worst make a pair.

    Where the user places the scale (`--up_from`, `--down_to`, `--label_map`) each is a thumb instead: no number of
    points is good or bad by itself.
    """

    answers: Callable[[Record, str], Iterable[Candidate]]
    """The answers of a record with their scores of a name."""
    fields: str = ""
    """Where they stand, if rows may have another verdict instead."""
    ranks: bool = False
    """Whether the numbers are ranks, of which the lowest is the best one."""
    without: Reason = Reason("no_two_scores")

    def __call__(self, row: Row) -> Iterable[Item | Reason] | None:
        """A pair, or a thumb for each answer."""
        if self.fields and first_of(row.record, self.fields) is None:
            return None
        answered = [one for one in self.answers(row.record, row.score) if ending(one.text) is not None]
        reasons: list[Item | Reason] = [*dict.fromkeys(one.doubt for one in answered if one.doubt)]
        scored = [one for one in answered if not one.doubt]
        if not self.ranks and (row.options.label_map or row.options.places_a_scale):
            return [*reasons, *(self._thumb(row, one) for one in scored)]
        numbers = [(number, one) for one in scored if (number := number_of(one.score)) is not None]
        if len({number for number, _ in numbers}) < 2:
            return [*reasons, self.without]
        worst, best = (pick(numbers, key=lambda pair: pair[0])[1] for pick in (min, max))
        best, worst = (worst, best) if self.ranks else (best, worst)
        scores = {} if self.ranks else {"chosen_score": best.score, "rejected_score": worst.score}
        extras = {**row.extras, **filled(chosen_model=best.model, rejected_model=worst.model, **scores)}
        found = facing(row.prompt, ending(best.text), ending(worst.text))
        return [*reasons, found if isinstance(found, Reason) else Pair(row.number, *found, extras)]

    def _thumb(self, row: Row, one: Candidate) -> Thumb:
        answer, number = ending(one.text), number_of(one.score)
        extras = {**row.extras, **filled(model=one.model, score=one.score)}
        value, given = one.score if number is None else number, row.number if one.row is None else one.row
        return Thumb(given, row.prompt or [], answer[1] if answer else [], value, extras=extras)


@dataclass(frozen=True, kw_only=True)
class Format(Source):
    """Rows of one shape, and what they are called; a docstring after each shows its shape and names the source."""

    prompt: Prompt
    verdicts: tuple[Verdict, ...]
    wanted: str = ""
    """The shape in words, for messages; "": a row with the fields of `knows`."""
    holds: Callable[[Record], bool] | None = None
    """Whether a record can be read as a row, where that is less than what makes it certain."""
    scores: tuple[str, ...] | Callable[[Record], Iterable[str]] = ()
    """The scores that can be read, the usual one first, or what finds those of a record."""
    usual: tuple[str, ...] = ()
    """Of those that are found the ones that are read without `--score_name`, the first that is there."""
    grouped: str = ""
    """A field that rows which stand one after the other share where they are answers to one question."""
    tools: str = "tools"
    extras: Mapping[str, str] = field(default_factory=dict)
    """Our column -> the field whose value travels along."""
    note: str = ""
    """What is said of every file of this format."""
    no_prompt: Reason | None = None
    """Why a row without a prompt is left out; None where the answers may hold it."""

    def can_read(self, record: Record) -> bool:
        """Whether a record can be read as a row."""
        return self.holds(record) if self.holds else self.matches(record, Path())

    def records(self, paths: Sequence[Path]) -> Iterator[tuple[int, Record]]:
        """The records of files; rows of one question as one record, where that is the format."""
        if not self.grouped:
            yield from records_of(paths)
            return
        for _, group in groupby(records_of(paths), key=lambda numbered: numbered[1].get(self.grouped)):
            rows = list(group)
            yield rows[0][0], {**rows[0][1], ROWS: rows}

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Item]:
        """Thumbs, pairs and contests, in the order of the file."""
        score = self._score_name(paths, options)
        report.notes += [self.note] if self.note else []
        wanted = self.wanted or f"a row with {', '.join(self.knows) if isinstance(self.knows, tuple) else 'answers'}"
        for number, record in records_like(paths, self.can_read, wanted, report, self.records):
            prompt, tools = self.prompt.of(record), unpacked(first_of(record, self.tools)) or []
            extras = filled(tools=tools, **{ours: inside(record, theirs) for ours, theirs in self.extras.items()})
            row = Row(number, prompt, record, options, extras, score)
            said: Iterable[Item | Reason] = [Reason("answer_missing")]
            if not prompt and self.no_prompt:
                said = [self.no_prompt]
            elif any(unpacked(record.get(name)) for name in PICTURES):
                said = [Reason("pictures")]
            elif not isinstance(tools, list):
                said = [Reason("no_tool_list")]
            else:
                said = next((found for verdict in self.verdicts if (found := verdict(row)) is not None), said)
            for one in said:
                if isinstance(one, Reason):
                    report.drop(one, number)
                else:
                    yield one

    def _score_name(self, paths: Sequence[Path], options: Options) -> str:
        """The score that is read, of those that there are.

        Raises:
            BadInput: If no record has it.
        """
        if isinstance(self.scores, tuple):
            seen, usual = Counter(self.scores), self.scores
        else:
            read = (record for _, record in self.records(paths) if self.can_read(record))
            seen = Counter(name for record in read for name in self.scores(record))
            usual = tuple(name for name in self.usual if name in seen) or self.usual
        name = options.score_name if options.score_name and seen else next(iter(usual), "")
        if seen and name not in seen:
            listed = ", ".join(f"{name} ({count:,})" for name, count in seen.most_common(20))
            raise BadInput(f"No completion has a score `{name}`. There are: {listed}. Name one with --score_name NAME")
        return name
