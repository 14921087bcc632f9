"""Tracing products: where each keeps a rating, and the input and output of the step that is rated."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from bnf_align.reasons import Reason
from bnf_align.sources.fields import Where, dicts, first_of, has, inside, mapping
from bnf_align.sources.files import unpacked
from bnf_align.sources.langsmith import LANGSMITH
from bnf_align.sources.scores import TRUE_FALSE, is_thumb, number_of
from bnf_align.sources.source import Record, Source
from bnf_align.sources.spans import Trace
from bnf_align.sources.turns import messages

_FOLDER = "give the folder of the whole export, with scores/ and observations_v2/, or traces with score columns."
_NO_SCORES = ("tags", "scores", "observations", "input", "output", "metadata", "labels")
"""Columns of a trace of Langfuse's that may hold a list and are no score."""
_LANGFUSE_SPAN: Mapping[str, Where] = {
    "trace": "trace_id|traceId",
    "parent": "parent_observation_id|parentObservationId",
    "call": lambda record: record.get("type") == "GENERATION",
    "model": "provided_model_name|providedModelName|model",
}
_is_trace = has("id", "timestamp", "input", "output")


def _langfuse_value(record: Record) -> Any:
    kind, value = first_of(record, "data_type|dataType"), record["value"]
    if kind == "CATEGORICAL":
        return first_of(record, "string_value|stringValue") or value
    if kind == "BOOLEAN" and is_thumb(str(record["name"])) and number_of(value) in (0, 1):
        return number_of(value) == 1
    return None if value == "" else value


def _langfuse_target(record: Record) -> Any:
    names = ("observation_id", "observationId", "trace_id", "traceId")
    return next((record[name] for name in names if record.get(name)), None)


def _langfuse_refusal(record: Record) -> Reason | None:
    if first_of(record, "data_type|dataType") == "TEXT":
        return Reason("score_text")
    return None if _langfuse_target(record) else Reason("score_of_session")


def _is_observation(record: Record) -> bool:
    return (
        bool(first_of(record, "trace_id|traceId") and first_of(record, "start_time|startTime")) and "input" in record
    )


def _score_columns(record: Record) -> Iterator[Record]:
    """The columns of a trace that hold a list of scores."""
    for name, cell in record.items():
        values = unpacked(cell) if name not in _NO_SCORES else None
        if isinstance(values, list) and all(isinstance(value, int | float | str) for value in values):
            yield from ({**record, "name": name, "value": value} for value in values)


LANGFUSE = Trace(
    "langfuse",
    "a Langfuse export",
    what="observation or trace",
    halves=("scores", "observations or traces"),
    hint=_FOLDER,
    rates=lambda record: has("value", "name")(record) and first_of(record, "data_type|dataType") is not None,
    steps=lambda record: _is_trace(record) or _is_observation(record),
    certain=lambda record: (
        _is_observation(record) or (_is_trace(record) and not {"tags", "sessionId"}.isdisjoint(record))
    ),
    rating={
        "value": _langfuse_value,
        "target": _langfuse_target,
        "refused": _langfuse_refusal,
        "created_at": "timestamp",
        "rater": "author_user_id|authorUserId",
        "reason": "comment",
    },
    span=_LANGFUSE_SPAN,
    values=TRUE_FALSE,
    typed=True,
    alone=Trace(
        "langfuse",
        "a Langfuse export",
        what="trace",
        halves=("scores", "traces"),
        hint=_FOLDER,
        rates=_is_trace,
        steps=_is_trace,
        ratings=_score_columns,
        rating={"id": "", "target": "id", "rater": "userId", "created_at": "timestamp"},
        span=_LANGFUSE_SPAN,
    ),
)
"""Langfuse: the folder of a blob storage export, what its API answers, or the traces that its pages export.

    {"id": "s1", "trace_id": "t1", "observation_id": "o1", "name": "user-feedback", "data_type": "BOOLEAN",
     "value": 1, "string_value": null, "source": "API", "comment": "Helpful", "timestamp": "2026-05-29 13:46:19"}
    {"id": "o1", "trace_id": "t1", "parent_observation_id": "", "type": "GENERATION", "start_time": "...",
     "input": JSON text of messages, "output": JSON text of a message}
    {"id": "t1", "timestamp": "...", "userId": "u", "input": {...}, "output": {...}, "tags": [], "user-feedback": [1]}

Scores (`scores/`, GET /api/public/v2/scores) are joined to enriched or legacy observations (`observations_v2/`,
`observations/`) and to traces (`traces/`), in snake_case or camelCase; the pages' export has a column for each score.
A BOOLEAN score under a name of `scores.THUMBS`, or a column of 1 and 0 alone under one, is a thumb. The meaning of any
other, of every NUMERIC one (1 may be the top of a scale of 0 to 1 or the bottom of one of 1 to 5) and of categories is
asked for. TEXT scores are no ratings. Source: langfuse.com/docs/api-and-data-platform/features/
blob-storage-export-fields and langfuse.com/docs/observability/features/user-feedback, read in 2026.
"""

_FLAT = re.compile(r"(?:attributes\.)?llm\.(input|output)_messages\.(\d+)\.message\.(role|content)")


def _phoenix_text(side: str) -> Any:
    """What a span was given or produced: its messages, flattened or not, or its value."""

    def text(record: Record) -> Any:
        flat: dict[int, Record] = {}
        for name, value in {**record, **mapping(unpacked(record.get("attributes")))}.items():
            if (found := _FLAT.fullmatch(str(name))) and found[1] == side:
                flat.setdefault(int(found[2]), {})[found[3]] = value
        turns = messages(first_of(record, f"attributes.llm.{side}_messages"))
        return turns or messages([flat[at] for at in sorted(flat)]) or inside(record, f"attributes.{side}.value")

    return text


PHOENIX = Trace(
    "phoenix",
    "a Phoenix export",
    what="span",
    halves=("annotations", "spans"),
    hint="write both, a JSON object a line, from its client's get_spans and get_span_annotations.",
    rates=lambda record: "annotator_kind" in record and first_of(record, "span_id|context.span_id") is not None,
    steps=lambda record: "span_kind" in record and inside(record, "context.span_id") is not None,
    rating={
        "name": "name|annotation_name",
        "value": "result.score|result.label",
        "target": "span_id|context.span_id",
        "rater": "user_id|identifier",
        "reason": "result.explanation",
    },
    span={
        "id": "context.span_id",
        "trace": "context.trace_id",
        "parent": "parent_id",
        "call": lambda record: record.get("span_kind") == "LLM",
        "given": _phoenix_text("input"),
        "produced": _phoenix_text("output"),
        "model": "attributes.llm.model_name",
    },
    values=TRUE_FALSE | {"thumbs-up": "up", "thumbs-down": "down"},
)
"""Arize Phoenix: spans and their annotations, from its API or its data frames, a file of each.

    {"name": "chat", "context": {"trace_id": "t1", "span_id": "s1"}, "span_kind": "LLM", "parent_id": null,
     "attributes": {"llm.input_messages": [{"message.role": "user", "message.content": "Hi"}],
                    "llm.output_messages": [...], "input.value": "...", "output.value": "..."}}
    {"id": "a1", "span_id": "s1", "name": "user feedback", "annotator_kind": "HUMAN",
     "result": {"label": "thumbs-up", "score": 1, "explanation": null}, "user_id": null, "created_at": "..."}

In data frames the names hold dots: `context.span_id`, `attributes.input.value`, `result.score`. The score is read, or
where there is none the label. Source: arize.com/docs/phoenix, capture-feedback, read in 2026.
"""


def _plain(value: Any) -> Any:
    """A value out of its JSON text, a quoted text too."""
    if isinstance(value, str) and value.startswith('"'):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return unpacked(value)


def _attribute(name: str) -> Any:
    return lambda span: _plain(mapping(unpacked(span.get("attributes"))).get(f"mlflow.{name}", span.get(name)))


def _mlflow_spans(record: Record) -> Iterator[Record]:
    """The spans of a trace, after the trace itself where it has texts of its own."""
    trace = first_of(record, _TRACE)
    asked, said = (first_of(record, f"data.{name}|{name}") for name in ("request", "response"))
    if asked is not None:
        yield {"span_id": trace, "trace": trace, "spanInputs": asked, "spanOutputs": said}
    for span in dicts(unpacked(first_of(record, "data.spans|spans"))):
        yield {**span, "trace": trace}


def _assessments(record: Record) -> Iterator[Record]:
    """The feedback on a trace. Expectations, errors and what a later assessment replaced are no ratings."""
    for one in dicts(unpacked(first_of(record, "info.assessments|assessments"))):
        if isinstance(one.get("feedback"), dict) and one.get("valid") is not False and not one.get("error"):
            yield {**one, "trace": first_of(record, _TRACE)}


def _is_mlflow(record: Record) -> bool:
    whole = inside(record, "data.spans") is not None and first_of(record, "info.trace_id|info.request_id") is not None
    return whole or {"trace_id", "assessments", "spans"} <= record.keys()


_TRACE = "info.trace_id|info.request_id|trace_id"
MLFLOW = Trace(
    "mlflow",
    "an MLflow export",
    what="span or trace",
    halves=("assessments", "traces"),
    hint="write them a JSON object a line, for example from trace.to_dict() of mlflow.search_traces.",
    rates=_is_mlflow,
    steps=_is_mlflow,
    ratings=_assessments,
    rating={
        "name": "assessment_name|name",
        "value": "feedback.value",
        "target": lambda one: one.get("span_id") or one["trace"],
        "id": "assessment_id",
        "created_at": "create_time|create_time_ms",
        "rater": "source.source_id",
        "reason": "rationale",
    },
    spans=_mlflow_spans,
    span={
        "id": "span_id|context.span_id",
        "trace": "trace",
        "parent": "parent_span_id|parent_id",
        "call": lambda span: _attribute("spanType")(span) in ("LLM", "CHAT_MODEL"),
        "given": _attribute("spanInputs"),
        "produced": _attribute("spanOutputs"),
    },
    values=TRUE_FALSE,
)
"""MLflow: traces with their assessments, as `trace.to_dict()` or the data frame of `search_traces` has them.

    {"info": {"trace_id": "t1", "assessments": [{"assessment_id": "a1", "assessment_name": "user_feedback",
       "feedback": {"value": true}, "source": {"source_type": "HUMAN", "source_id": "ann"}, "span_id": null}]},
     "data": {"spans": [{"span_id": "s1", "attributes": {"mlflow.spanInputs": JSON text, ...}}]}}

An assessment without `span_id` is of the whole trace. Source: mlflow/mlflow, mlflow/entities/assessment.py, span.py.
"""

OPIK = Trace(
    "opik",
    "an Opik export",
    what="trace or span",
    halves=("feedback scores", "traces or spans"),
    hint="write them a JSON object a line, for example from trace.dict() of client.search_traces(...).",
    rates=has("id", "input", "output", "feedback_scores"),
    steps=has("id", "input", "output", "feedback_scores"),
    ratings=lambda record: [{**one, "of": record["id"]} for one in dicts(unpacked(record["feedback_scores"]))],
    rating={"target": "of", "reason": "reason"} | {"created_at": "created_at", "rater": "created_by"},
    span={"parent": "parent_span_id", "call": lambda record: record.get("type") == "llm"},
    values=TRUE_FALSE,
)
"""Opik: traces with their feedback scores, and spans, as `search_traces` and `search_spans` give them.

    {"id": "t1", "input": {...}, "output": {...}, "feedback_scores": [{"name": "user_feedback", "value": 1.0, ...}]}
    {"id": "s1", "trace_id": "t1", "parent_span_id": null, "type": "llm", "input": {...}, "output": {...}, ...}

Source: comet.com/docs/opik, export-data and the schema of a trace, read in 2026.
"""

TRACES: tuple[Source, ...] = (LANGFUSE, LANGSMITH, PHOENIX, MLFLOW, OPIK)
