"""Ratings joined to the calls of a trace: what the model was given, what it produced, and what someone thought of it.

A rating of a whole trace is a rating of its only model call, whose messages are all that the model saw; where a trace
has several, of the trace's own input and output, or of its only step that stands under no other: of several such steps
(a search, the answer, a title for the chat) nobody knows which one was rated. What is not certain is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from bnf_align.data.importers.files import unpacked
from bnf_align.data.importers.importer import Message, Thumb
from bnf_align.data.importers.shape import filled, mapping
from bnf_align.data.importers.turns import assistant, message, messages, user, with_system
from bnf_align.records import DataReport

SEVERAL = ""


class Score(NamedTuple):
    """One rating."""

    row: int
    target: str
    """Id of a span, or of a trace for the whole of it."""
    value: Any
    extras: Mapping[str, Any]
    better: list[Message] | None = None
    """The answer as the person rewrote it."""


class Span(NamedTuple):
    """One step of a trace."""

    id: str
    trace: str
    model_call: bool
    root: bool
    """Whether it stands for the whole trace."""
    given: Any
    produced: Any
    model: Any


def rated(
    scores: Sequence[Score], spans: Callable[[], Iterator[Span]], report: DataReport, what: str
) -> Iterator[Thumb]:
    """The rated steps as thumbs, in the order of the spans.

    Args:
        scores: All ratings.
        spans: Reads the spans anew; texts are never kept.
        report: Where ratings that find no text are counted.
        what: What the source calls a span, for the report.
    """
    waiting: dict[str, list[Score]] = {}
    for score in scores:
        waiting.setdefault(score.target, []).append(score)
    calls = _only(spans(), waiting, lambda span: span.model_call)
    roots = _only(spans(), waiting, lambda span: span.root and span.id != span.trace)
    seen: set[str] = set()
    for span in spans():
        targets = _targets(span, calls, roots) & waiting.keys()
        seen |= targets
        if targets and (texts := exchange(span.given, span.produced, span.model_call)) is not None:
            met = [score for target in targets for score in waiting.pop(target)]
            yield from (_thumb(score, span, texts) for score in sorted(met, key=lambda score: score.row))
    for target, unmet in waiting.items():
        why = "holds no messages and no text" if target in seen else "is not in the files"
        if target not in seen and roots.get(target) == SEVERAL:
            why = "has several steps side by side, and which one was rated is not certain"
        for score in unmet:
            report.drop(f"the rated {what} {why}", score.row)


def _only(spans: Iterator[Span], waiting: Mapping[str, Any], fits: Callable[[Span], bool]) -> dict[str, str]:
    """Trace -> its only span that fits, or `SEVERAL`, for the traces that are rated as a whole."""
    only: dict[str, str] = {}
    for span in spans:
        if span.trace in waiting and fits(span):
            only[span.trace] = SEVERAL if span.trace in only else span.id
    return only


def _targets(span: Span, calls: Mapping[str, str], roots: Mapping[str, str]) -> set[str]:
    """Of what a rating of this span is the rating."""
    alone = calls.get(span.trace, SEVERAL)
    whole = span.id in (span.trace, roots.get(span.trace)) if alone == SEVERAL else span.id == alone
    own = {span.id} if alone == SEVERAL or span.id != span.trace else set()
    return own | ({span.trace} if whole else set())


def _thumb(score: Score, span: Span, texts: tuple[list[Message], list[Message]]) -> Thumb:
    tools = mapping(unpacked(span.given)).get("tools")
    extras = {**score.extras, **filled(model=span.model, tools=tools if isinstance(tools, list) else None)}
    return Thumb(score.row, *texts, score.value, answer=span.id, extras=extras, better=score.better)


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
        if (first := _first(produced.get(name))) is not None:
            return _said(first, depth - 1)
    return _said(_alone(produced), depth - 1) if "output" in produced else None


def _first(value: Any) -> Any:
    while isinstance(value, list):
        value = value[0] if value else None
    return value


def _alone(value: Any) -> Any:
    """The only value that is there, as in {"question": ...}; None where there are several."""
    if not isinstance(value, dict):
        return None
    there = [part for part in value.values() if part not in (None, "", [], {})]
    return there[0] if len(there) == 1 else None
