"""LangSmith: feedback under several keys, corrections beside it, and the runs that both speak of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport, rows_text
from bnf_align.sources.fields import has, inside
from bnf_align.sources.files import unpacked
from bnf_align.sources.scores import THUMBS, chosen_score, number_of
from bnf_align.sources.source import Message, Options, Record
from bnf_align.sources.spans import Score, Trace
from bnf_align.sources.turns import assistant, message, messages

_BUTTONS = frozenset({"user_liked", "user_disliked"})


class _LangSmith(Trace):
    """Feedback under several keys, with corrections beside it."""

    def scores(self, paths: Sequence[Path], options: Options, report: DataReport) -> list[Score]:
        """The scores under the key that is the thumb, or the two buttons' keys, and corrections that stand alone."""
        scored = Counter(mark.name for mark in self.marks(paths) if mark.value is not None)
        buttons = scored.keys() <= _BUTTONS and not options.score_name
        wanted = _BUTTONS if buttons else {chosen_score(scored, options, report)}
        found: dict[str, Score] = {}
        foreign: list[int] = []
        for mark in self.marks(paths):
            mine = not scored or mark.name in wanted
            if not mine and (mark.better is None or mark.value is not None):
                foreign += [mark.row] if mark.better else []  # what that score means is not known
            elif mark.refused:
                report.drop(mark.refused, mark.row)
            else:
                foreign += [mark.row] if mark.corrected and mark.better is None else []
                found[repr(mark.extras.get("id", (mark.row,)))] = mark
        if foreign:
            report.notes.append(f"corrections that are no new answer, or beside another score: {rows_text(foreign)}")
        scores = list(found.values())
        keyed = [_keyed(mark) for mark in scores]
        known = all(value is None or value in self.values for value in keyed)
        if len(wanted) == 1 and (not known or options.places_a_scale):
            return scores  # a 1 among other numbers is a place on their scale, and no thumbs up
        self._refuse_two_scales(Counter(value for value in keyed if value is not None), options)
        return [mark._replace(value=value) for mark, value in zip(scores, keyed, strict=True)]

    def _refuse_two_scales(self, seen: Counter[str], options: Options) -> None:
        """Where 0 and -1 stand side by side, one may mean no opinion."""
        for value in seen:
            name, _, number = value.rpartition(":")
            zero = f"{name}:0"
            if number == "-1" and zero in seen and not {zero, value} <= options.label_map.keys():
                raise BadInput(
                    f"The scores hold both 0 ({seen[zero]:,}) and -1 ({seen[value]:,}): one may mean down and the "
                    f"other no opinion. Say what each means, for example --label_map {name}:1=up {value}=down "
                    f"{zero}=drop"
                )


def _keyed(mark: Score) -> str | None:
    """A score with its key, as `values` has it; None where there is no score."""
    number = number_of(mark.value)
    text = str(mark.value).lower() if number is None else f"{number:g}"
    return None if mark.value is None else f"{mark.name.lower().replace('-', '_').replace(' ', '_')}:{text}"


def _langsmith_score(record: Record) -> Any:
    return next((record[name] for name in ("score", "value") if record.get(name) not in (None, "")), None)


def _disputed(record: Record) -> Reason | None:
    """Why a score does not count: its correction is another one, as an audit of evaluators writes it."""
    better, score = inside(unpacked(record.get("correction")), "score"), number_of(_langsmith_score(record))
    other = better is not None and (number_of(better) is None or number_of(better) != score)
    return Reason("score_corrected") if other else None


LANGSMITH = _LangSmith(
    "langsmith",
    "a LangSmith export",
    what="run",
    halves=("feedback", "runs"),
    hint="LangSmith keeps them apart. Write both, a JSON object a line, from client.list_runs(...) and "
    "client.list_feedback(run_ids=...). A bulk export has the runs only.",
    rates=lambda record: has("run_id", "key")(record) and ("score" in record or "value" in record),
    steps=has("run_type", "inputs", "outputs", "trace_id"),
    rating={
        "name": "key",
        "value": _langsmith_score,
        "target": "run_id",
        "refused": _disputed,
        "better": lambda record: rewritten(record.get("correction")),
        "corrected": lambda record: record.get("correction") not in (None, "", "null", {}, "{}"),
        "rater": "feedback_source.user_id",
        "reason": "comment",
    },
    span={
        "parent": "parent_run_id",
        "call": lambda record: record.get("run_type") == "llm",
        "given": lambda record: unpacked(record.get("inputs")),
        "produced": lambda record: unpacked(record.get("outputs")),
        "model": "extra.metadata.ls_model_name",
    },
    values={f"{key}:{value}": "up" for key in THUMBS for value in ("1", "true")}
    | {f"{key}:{value}": "down" for key in THUMBS for value in ("0", "-1", "false")}
    | {"user_disliked:1": "down", "user_disliked:true": "down"}
    | {"user_disliked:0": "drop", "user_disliked:false": "drop"},  # not to dislike is not to like
)
"""LangSmith: runs (a bulk export, or `client.list_runs`) and feedback (`client.list_feedback`), a file of each.

    {"id": "r1", "trace_id": "r1", "parent_run_id": null, "run_type": "llm", "start_time": "...",
     "inputs": {"messages": [{"role": "user", "content": "Hi"}]}, "outputs": {"messages": [...]}}
    {"id": "f1", "run_id": "r1", "key": "user_score", "score": 1.0, "value": null, "comment": null,
     "feedback_source": {"type": "api", "user_id": null}, "created_at": "2026-05-05T23:23:11"}

Inputs and outputs may be messages of OpenAI, Anthropic or LangChain, `generations`, `choices`, one text, or JSON text
of these. A score of 1, 0 or -1 under a key of `scores.THUMBS` is a thumb, as is
`user_disliked`, upside down. The meaning of any other score is asked for.

A `correction` with a rewritten answer (`rewritten`) is chosen over the run's answer where its score is a down or
missing, and nobody rated that answer up. A correction of the score ({"score": 1} on a score of 0) disputes it: the
rating is left out. One of another shape says nothing, and is counted. Source: docs.langchain.com/langsmith,
feedback-data-format, run-data-format, log-llm-trace, data-export, agent-server-feedback, audit-evaluator-scores.
"""


_SHORT = ("output", "answer", "response", "completion", "text", "message", "messages", "desired", "desired_output")
BETTER = (*_SHORT, "expected", "expected_output", "expected_response", "corrected", "correction", "ground_truth")
"""Under which of its names a correction holds the better answer. A `comment` or `explanation` is about an answer."""


def rewritten(correction: Any, depth: int = 3) -> list[Message] | None:
    """The better answer in a correction: a text, a turn, the last of several, or one of these under one of `BETTER`.

    Example:
        >>> rewritten({"answer": "Paris."}), rewritten({"score": 1, "explanation": "It is right."})
        ([{'role': 'assistant', 'content': 'Paris.'}], None)
    """
    value = unpacked(correction)
    if isinstance(value, str):
        return [assistant(value)] if value.strip() else None
    turn = message(value)
    turns = messages(value) if turn is None else [turn]
    if turns is not None:
        return turns[-1:] if turns[-1]["role"] == "assistant" and turns[-1].get("content") else None
    named = [value[name] for name in BETTER if value.get(name)] if isinstance(value, dict) else []
    return rewritten(named[0], depth - 1) if len(named) == 1 and depth else None
