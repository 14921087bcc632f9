"""Ratings joined to the calls of a trace: what the model was given, what it produced, and what someone thought of it.

A rating of a whole trace is a rating of its only model call, whose messages are all that the model saw; where a trace
has several, of the trace's own input and output, or of its only step that stands under no other: of several such steps
(a search, the answer, a title for the chat) nobody knows which one was rated. What is not certain is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport
from bnf_align.sources.fields import Where, filled, mapping, part
from bnf_align.sources.files import first_record, records_of, unpacked
from bnf_align.sources.scores import chosen_score, thumb_values
from bnf_align.sources.source import Extras, Message, Options, Record, Source, Thumb
from bnf_align.sources.turns import assistant, message, messages, user, with_system

SEVERAL = ""
TRAVELLING = ("id", "created_at", "rater", "reason")
RATING: Mapping[str, Where] = {"name": "name", "value": "value", "id": "id", "created_at": "created_at"}
SPAN: Mapping[str, Where] = {"id": "id", "trace": "trace_id", "given": "input", "produced": "output", "model": "model"}
"""Where parts stand unless a product says something else."""


class Score(NamedTuple):
    """One rating."""

    row: int
    target: str
    """Id of a span, or of a trace for the whole of it."""
    value: Any
    extras: Extras
    name: str = ""
    """What is rated, where a trace is rated under several names."""
    refused: Reason | None = None
    """Why it can be no rating of an answer."""
    better: list[Message] | None = None
    """The answer as the person rewrote it."""
    corrected: bool = False
    """Whether there is a correction of any shape."""


class Span(NamedTuple):
    """One step of a trace."""

    id: str
    trace: str
    model_call: bool
    root: bool
    """Whether it stands under no other."""
    given: Any
    produced: Any
    model: Any = None


@dataclass(frozen=True, kw_only=True)
class Trace(Source):
    """A tracing product: where a rating and a step keep their parts, in records of their own or in those of traces."""

    what: str
    """What the source calls a step, for messages."""
    halves: tuple[str, str]
    """What it calls ratings and what they are of, for messages."""
    hint: str
    """How one gets both, for messages."""
    rates: Callable[[Record], bool]
    """Whether a record holds ratings."""
    steps: Callable[[Record], bool]
    """Whether a record holds steps."""
    rating: Mapping[str, Where]
    """Where a rating has its name, value, target, refused, better, corrected (see `Score`), and `TRAVELLING`."""
    span: Mapping[str, Where]
    """Where a step has its id, trace, parent, call (whether of a model), given, produced and model."""
    ratings: Callable[[Record], Iterable[Record]] = lambda record: [record]
    """The ratings in a record."""
    spans: Callable[[Record], Iterable[Record]] = lambda record: [record]
    """The steps in a record."""
    typed: bool = False
    """Whether ratings say what they are; else a 1 and a 0 under a thumb's name are thumbs."""
    certain: Callable[[Record], bool] | None = None
    """Whether a record is certainly of this product, where `rates` and `steps` are not enough."""
    alone: Trace | None = None
    """What reads the files where none of them holds ratings."""

    def matches(self, record: Record, path: Path) -> bool:
        """Whether a record holds ratings or steps of this product."""
        return self.rates(record) or (self.certain or self.steps)(record)

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb]:
        """Ratings as thumbs, in the order of the steps.

        Raises:
            BadInput: If the ratings or what they speak of are not in the files.
        """
        first = [(path, first_record(path)) for path in paths]
        rated, steps = ([path for path, one in first if holds(one)] for holds in (self.rates, self.steps))
        if not rated and self.alone is not None and any(self.alone.rates(one) for _, one in first):
            yield from self.alone.read(steps, options, report)
            return
        if not rated or not steps:
            lacking = " and no ".join(
                half for half, found in zip(self.halves, (rated, steps), strict=True) if not found
            )
            raise BadInput(f"{self.title}: these files hold no {lacking}: {self.hint}")

        def spans() -> Iterator[Span]:
            for _, record in records_of(steps):
                for one in self.spans(record):
                    get = {name: part(one, where) for name, where in {**SPAN, **self.span}.items()}
                    key, trace = str(get["id"]), str(get.get("trace") or get["id"])
                    texts = get.get("given"), get.get("produced")
                    yield Span(key, trace, bool(get.get("call")), not get.get("parent"), *texts, get.get("model"))

        yield from joined_with_steps(self.scores(rated, options, report), spans, report, self.what)

    def marks(self, paths: Sequence[Path]) -> Iterator[Score]:
        """All ratings in files."""
        for row, record in records_of(paths):
            for one in self.ratings(record) if self.rates(record) else ():
                get = {name: part(one, where) for name, where in {**RATING, **self.rating}.items()}
                extras = filled(**{name: get[name] for name in TRAVELLING if name in get})
                told = str(get["name"]), get.get("refused"), get.get("better"), bool(get.get("corrected"))
                yield Score(row, str(get["target"]), get["value"], extras, *told)

    def scores(self, paths: Sequence[Path], options: Options, report: DataReport) -> list[Score]:
        """The ratings under the name that is the thumb; of a rating that was exported twice the later one.

        Raises:
            BadInput: If it is not certain which name that is.
        """
        names = Counter(mark.name for mark in self.marks(paths))
        if not names:
            raise BadInput(f"{self.title}: these files hold no {self.halves[0]}: {self.hint}")
        wanted = chosen_score(names, options, report)
        found: dict[str, Score] = {}
        for mark in self.marks(paths):
            if mark.name == wanted and mark.refused:
                report.drop(mark.refused, mark.row)
            elif mark.name == wanted:
                found[repr(mark.extras.get("id", (mark.row, len(found))))] = mark
        marks = list(found.values())
        values = [mark.value for mark in marks]
        values = values if self.typed else thumb_values(wanted, values)
        return [mark._replace(value=value) for mark, value in zip(marks, values, strict=True)]


def joined_with_steps(
    scores: Sequence[Score], spans: Callable[[], Iterator[Span]], report: DataReport, what: str
) -> Iterator[Thumb]:
    """The rated steps as thumbs, in the order of the spans."""
    waiting: dict[str, list[Score]] = {}
    for score in scores:
        waiting.setdefault(score.target, []).append(score)
    # Trace -> its only model call, and its only step under no other, or `SEVERAL`; of traces rated as a whole.
    calls: dict[str, str] = {}
    roots: dict[str, str] = {}
    for span in spans():
        for only, fits in ((calls, span.model_call), (roots, span.root and span.id != span.trace)):
            if fits and span.trace in waiting:  # a span that was exported twice is one
                only[span.trace] = span.id if only.get(span.trace, span.id) == span.id else SEVERAL
    seen: set[str] = set()
    for span in spans():
        targets = _targets(span, calls, roots) & waiting.keys()
        seen |= targets
        if targets and (texts := exchange(span.given, span.produced, span.model_call)) is not None:
            met = [score for target in targets for score in waiting.pop(target)]
            tools = mapping(unpacked(span.given)).get("tools")
            extras = filled(model=span.model, tools=tools if isinstance(tools, list) else None)
            for score in sorted(met, key=lambda score: score.row):
                both = {**score.extras, **extras}
                yield Thumb(score.row, *texts, score.value, answer=span.id, extras=both, better=score.better)
    for target, unmet in waiting.items():
        if target in seen:
            why = Reason("step_empty", what=what)
        elif roots.get(target) == SEVERAL:
            why = Reason("several_steps", what=what)
        else:
            why = Reason("step_missing", what=what)
        for score in unmet:
            report.drop(why, score.row)


def _targets(span: Span, calls: Mapping[str, str], roots: Mapping[str, str]) -> set[str]:
    """Of what a rating of this span is the rating."""
    alone = calls.get(span.trace, SEVERAL)
    whole = span.id in (span.trace, roots.get(span.trace)) if alone == SEVERAL else span.id == alone
    own = {span.id} if alone == SEVERAL or span.id != span.trace else set()
    return own | ({span.trace} if whole else set())


def exchange(given: Any, produced: Any, model_call: bool = False) -> tuple[list[Message], list[Message]] | None:
    """A step's input and output as all turns before the last one, and the last one; None if they are no conversation.

    Args:
        given: Messages, text, or an object around them; or JSON text of these.
        produced: The same. Of a model, JSON text of anything else is what it said.
        model_call: Whether a model produced it.

    Example:
        >>> exchange({"question": "1 + 1?"}, {"answer": "2"})
        ([{'role': 'user', 'content': '1 + 1?'}], [{'role': 'assistant', 'content': '2'}])
    """
    before, after = _asked(unpacked(given)), _said(unpacked(produced))
    if after is None and model_call and isinstance(produced, str) and produced.strip():
        after = [assistant(produced)]
    elif after is None:
        after = _said(_alone(unpacked(produced)))
    if not before or not after:
        return None
    # A graph (LangGraph) gives back the whole conversation, a model only its own turns.
    turns = after if after[: len(before)] == before else before + after
    return (turns[:-1], turns[-1:]) if turns[-1]["role"] == "assistant" and len(turns) > 1 else None


def _asked(given: Any) -> list[Message] | None:
    if isinstance(given, str):
        return [user(given)] if given.strip() else None
    if not isinstance(given, dict):
        return messages(given)
    if "messages" in given:  # beside them stand the model's settings, and Anthropic's system prompt
        turns = messages(given["messages"])
        return turns and with_system(turns, given.get("system"))
    if (turn := message(given)) is not None:
        return [turn]
    alone = _alone(given)
    alone = alone[0] if isinstance(alone, list) and len(alone) == 1 else alone  # LangChain's `prompts`
    return [user(alone)] if isinstance(alone, str) and alone.strip() else messages(alone)


def _said(produced: Any, depth: int = 4) -> list[Message] | None:
    """The turns that an output holds, in the wrappings of OpenAI, Anthropic, LangChain and LangGraph."""
    if isinstance(produced, str):
        return [assistant(produced)] if produced.strip() else None
    if isinstance(produced, list):
        return messages(produced)
    if not isinstance(produced, dict) or not depth:
        return None
    if (turn := message(produced)) is not None:
        return [turn]
    for name in ("message", "messages", "text"):
        if produced.get(name):
            return _said(produced[name], depth - 1)
    for name in ("choices", "generations"):  # the first one is the one that was shown
        first = produced.get(name)
        while isinstance(first, list):
            first = first[0] if first else None
        if first is not None:
            return _said(first, depth - 1)
    return _said(_alone(produced), depth - 1) if "output" in produced else None


def _alone(value: Any) -> Any:
    """The only value that is there, as in {"question": ...}; None where there are several."""
    if not isinstance(value, dict):
        return None
    there = [part for part in value.values() if part not in (None, "", [], {})]
    return there[0] if len(there) == 1 else None
