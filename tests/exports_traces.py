"""Exports of tracing and annotation products as they write them, with given thumbs in them.

`values` is how the product writes an up and a down.
"""

import csv
import json
from pathlib import Path

Thumb = tuple[str, str, bool]

TIME = "2026-05-29 13:46:19.963000"


def lines(path: Path, records: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


# ------------------------------------------------------------------------------------------------------------ Langfuse


def observation(key: str, trace: str, given, produced, **fields) -> dict:
    """One row of Langfuse's enriched observations; objects are JSON text there."""
    return {
        "id": key,
        "trace_id": trace,
        "project_id": "project-1",
        "environment": "production",
        "type": "GENERATION",
        "parent_observation_id": "",
        "start_time": TIME,
        "end_time": TIME,
        "name": "chat",
        "metadata": {},
        "level": "DEFAULT",
        "input": given if isinstance(given, str) else json.dumps(given),
        "output": produced if isinstance(produced, str) else json.dumps(produced),
        "provided_model_name": "llama",
        "user_id": "user-7",
        "session_id": None,
        **fields,
    }


def score(number: int, trace: str | None, value, *, observation_id: str | None = None, **fields) -> dict:
    """One row of Langfuse's scores."""
    return {
        "id": f"score-{number}",
        "timestamp": TIME,
        "project_id": "project-1",
        "environment": "production",
        "trace_id": trace,
        "observation_id": observation_id,
        "session_id": None,
        "dataset_run_id": None,
        "name": "user-feedback",
        "value": value,
        "source": "API",
        "comment": None,
        "data_type": "BOOLEAN",
        "string_value": None,
        "created_at": TIME,
        "updated_at": TIME,
        **fields,
    }


def chat(*texts: str) -> list[dict]:
    """User and assistant in turn."""
    return [
        {"role": "assistant" if n % 2 else "user", "content": [{"type": "text", "text": text}] if not n else text}
        for n, text in enumerate(texts)
    ]


def langfuse(thumbs: list[Thumb], folder: Path, values: tuple = (1, 0)) -> list[Path]:
    observations = [
        observation(f"o{n}", f"t{n}", chat(prompt), {"role": "assistant", "content": answer})
        for n, (prompt, answer, _) in enumerate(thumbs)
    ]
    # Half of the scores are of the whole trace.
    scores = [
        score(n, f"t{n}", values[not up], observation_id=f"o{n}" if n % 2 else None)
        for n, (_, _, up) in enumerate(thumbs)
    ]
    return [
        lines(folder / "observations_v2" / "2026-05-29.jsonl", observations),
        lines(folder / "scores" / "2026-05-29.jsonl", scores),
    ]


# ----------------------------------------------------------------------------------------------------------- LangSmith


def run(key: str, inputs, outputs, *, trace: str | None = None, kind: str = "llm", **fields) -> dict:
    """One run as `client.list_runs` gives it."""
    return {
        "id": key,
        "name": "ChatOpenAI",
        "run_type": kind,
        "inputs": inputs,
        "outputs": outputs,
        "start_time": "2026-05-05T23:23:11.077838",
        "trace_id": trace or key,
        "parent_run_id": None if trace in (None, key) else trace,
        "session_id": "project-1",
        "status": "success",
        "error": None,
        "extra": {"metadata": {"ls_model_name": "llama"}},
        **fields,
    }


def feedback(number: int, run_id: str, points, key: str = "user_score", **fields) -> dict:
    """One record of `client.list_feedback`."""
    return {
        "id": f"feedback-{number}",
        "created_at": "2026-05-05T23:23:11.077838",
        "modified_at": "2026-05-05T23:23:11.077838",
        "session_id": "project-1",
        "run_id": run_id,
        "key": key,
        "score": points,
        "value": None,
        "comment": None,
        "correction": None,
        "feedback_source": {"type": "api", "metadata": None, "user_id": None},
        **fields,
    }


def lc(kind: str, text: str) -> dict:
    """A message as LangChain serialises it."""
    names = {"human": "HumanMessage", "ai": "AIMessage", "system": "SystemMessage"}
    name = ["langchain", "schema", "messages", names[kind]]
    return {"lc": 1, "type": "constructor", "id": name, "kwargs": {"content": text, "type": kind}}


def langsmith(thumbs: list[Thumb], folder: Path, values: tuple = (1.0, -1.0)) -> list[Path]:
    """A value may come with its key, as ("user_disliked", 1)."""
    points = [value if isinstance(value, tuple) else ("user_score", value) for value in values]
    runs = [
        run(
            f"r{n}",
            {"messages": [[lc("human", prompt)]]},
            {"generations": [[{"text": answer, "message": lc("ai", answer), "type": "ChatGeneration"}]]},
        )
        for n, (prompt, answer, _) in enumerate(thumbs)
    ]
    votes = [feedback(n, f"r{n}", *points[not up][::-1]) for n, (_, _, up) in enumerate(thumbs)]
    return [lines(folder / "feedback.jsonl", votes), lines(folder / "runs.jsonl", runs)]


# ------------------------------------------------------------------------------------------- Phoenix, MLflow and Opik


def phoenix_span(
    key: str, prompt: str, answer: str, *, trace: str = "t0", parent: str | None = None, **fields
) -> dict:
    """One span as Phoenix's API gives it."""
    attributes = {
        "llm.input_messages": [{"message.role": "user", "message.content": prompt}],
        "llm.output_messages": [{"message": {"role": "assistant", "content": answer}}],
        "llm.model_name": "llama",
    }
    context = {"trace_id": trace, "span_id": key}
    return {
        "name": "chat",
        "context": context,
        "span_kind": "LLM",
        "parent_id": parent,
        "attributes": attributes,
    } | fields


def phoenix_annotation(number: int, span: str, points, label=None, name: str = "user feedback", **fields) -> dict:
    """One annotation as Phoenix's API gives it."""
    result = {"label": label, "score": points, "explanation": None}
    return {"id": f"n{number}", "span_id": span, "name": name, "annotator_kind": "HUMAN", "result": result} | fields


def phoenix(thumbs: list[Thumb], folder: Path, values: tuple = (1, 0)) -> list[Path]:
    spans = [phoenix_span(f"s{n}", prompt, answer, trace=f"t{n}") for n, (prompt, answer, _) in enumerate(thumbs)]
    notes = [
        phoenix_annotation(n, f"s{n}", None if label else value, value if label else None)
        for n, (_, _, up) in enumerate(thumbs)
        for value in [values[not up]]
        for label in [isinstance(value, str)]
    ]
    return [lines(folder / "annotations.jsonl", notes), lines(folder / "spans.jsonl", spans)]


def assessment(number: int, value, name: str = "user_feedback", **fields) -> dict:
    """One assessment of an MLflow trace."""
    source = {"source_type": "HUMAN", "source_id": "ann"}
    named = {"assessment_id": f"a{number}", "assessment_name": name, "trace_id": "t", "source": source}
    return named | {"feedback": {"value": value}, "rationale": None, "valid": True} | fields


def mlflow_span(key: str, given, produced, *, parent: str | None = None, kind: str = "CHAT_MODEL") -> dict:
    """One span of an MLflow trace, with its attributes as JSON text."""
    attributes = {"mlflow.spanType": kind, "mlflow.spanInputs": given, "mlflow.spanOutputs": produced}
    return {
        "span_id": key,
        "trace_id": "t",
        "parent_span_id": parent,
        "attributes": {name: json.dumps(value) for name, value in attributes.items()},
    }


def mlflow_trace(key: str, assessments: list[dict], *spans: dict, **data) -> dict:
    """One trace as MLflow's `to_dict` has it."""
    return {"info": {"trace_id": key, "assessments": assessments}, "data": {"spans": list(spans), **data}}


def mlflow(thumbs: list[Thumb], folder: Path, values: tuple = (True, False)) -> list[Path]:
    traces = [
        mlflow_trace(
            f"t{n}",
            [assessment(n, values[not up])],
            mlflow_span(f"s{n}", {"messages": [{"role": "user", "content": prompt}]}, answer),
        )
        for n, (prompt, answer, up) in enumerate(thumbs)
    ]
    return [lines(folder / "traces.jsonl", traces)]


def opik_trace(key: str, given, produced, *scores: dict, **fields) -> dict:
    """One trace as Opik's `search_traces` gives it."""
    return {"id": key, "name": "chat", "input": given, "output": produced, "feedback_scores": list(scores), **fields}


def opik(thumbs: list[Thumb], folder: Path, values: tuple = (1.0, 0.0)) -> list[Path]:
    traces = [
        opik_trace(
            f"t{n}", {"question": prompt}, {"answer": answer}, {"name": "user_feedback", "value": values[not up]}
        )
        for n, (prompt, answer, up) in enumerate(thumbs)
    ]
    return [lines(folder / "traces.jsonl", traces)]


# -------------------------------------------------------------------------------------------------------------- Gradio

HEADER = ["conversation", "index", "value", "flag", "timestamp"]


def flagged(path: Path, clicks: list[tuple]) -> Path:
    """Gradio's log: five names, and four fields below them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for conversation, index, rating in clicks:
            writer.writerow([json.dumps(conversation), index, rating, TIME])
    return path


def bubble(role: str, text: str, title: str | None = None) -> dict:
    """A message of Gradio 6."""
    metadata = {"title": title} if title else None
    return {"role": role, "metadata": metadata, "content": [{"text": text, "type": "text"}], "options": None}


def gradio(thumbs: list[Thumb], folder: Path, values: tuple = ("Like", "Dislike")) -> list[Path]:
    clicks = [
        ([bubble("user", prompt), bubble("assistant", answer)], 1, values[not up]) for prompt, answer, up in thumbs
    ]
    return [flagged(folder / "log.csv", clicks)]


# ------------------------------------------------------------------------------------------------------------- Argilla


def record(number: int, asked: str, values: list, *, status=None, users=None, **fields) -> dict:
    """One record of Argilla's `to_list(flatten=True)`."""
    return {
        "id": f"record-{number}",
        "status": "completed",
        "_server_id": f"server-{number}",
        **fields,
        f"{asked}.responses": values,
        f"{asked}.responses.users": users or [f"user-{n}" for n in range(len(values))],
        f"{asked}.responses.status": status or ["submitted"] * len(values),
        f"{asked}.suggestion": None,
        f"{asked}.suggestion.score": None,
        f"{asked}.suggestion.agent": None,
    }


def ranked(*names: str) -> list[dict]:
    """A ranking as Argilla's API has it: the best first, which is not how the interface lists them."""
    ranks = [{"value": name, "rank": rank} for rank, name in enumerate(names, start=1)]
    return sorted(ranks, key=lambda part: part["value"])


def argilla_of_the_api(number: int, asked: str, values: list, *, status=None, **fields) -> dict:
    """One record of `GET /api/v1/datasets/ID/records?include=responses`."""
    status = status or ["submitted"] * len(values)
    return {
        "id": f"record-{number}",
        "external_id": None,
        "status": "completed",
        "fields": fields,
        "metadata": {"source": "web"},
        "responses": [
            {"id": f"r{n}", "user_id": f"user-{n}", "status": state, "values": {asked: {"value": value}}}
            for n, (value, state) in enumerate(zip(values, status, strict=True))
        ],
        "suggestions": [],
        "inserted_at": TIME,
    }


def argilla(thumbs: list[Thumb], folder: Path, values: tuple = ("good", "bad")) -> list[Path]:
    records = [
        record(n, "thumb", [values[not up]], prompt=prompt, response=answer)
        for n, (prompt, answer, up) in enumerate(thumbs)
    ]
    return [lines(folder / "records.jsonl", records)]


# -------------------------------------------------------------------------------------------------------- Label Studio


def task(number: int, data: dict, *annotations: dict) -> dict:
    """One task of Label Studio's JSON export."""
    return {
        "id": number,
        "data": data,
        "annotations": list(annotations),
        "predictions": [],
        "created_at": "2026-03-09T21:52:49.513742Z",
        "project": 83,
    }


def annotation(kind: str, value, *, control: str, target: str, by=10, cancelled: bool = False) -> dict:
    """One person's annotation of a task, with one result."""
    result = {"id": "Dx", "from_name": control, "to_name": target, "type": kind, "value": value, "origin": "manual"}
    return {
        "id": f"annotation-{by}",
        "completed_by": by,
        "result": [result],
        "was_cancelled": cancelled,
        "ground_truth": False,
        "created_at": "2026-03-09T22:16:08.728353Z",
    }


def json_min(number: int, data: dict, *, by=10, **controls) -> dict:
    """One annotation of Label Studio's JSON-MIN export."""
    return {
        **data,
        "id": number,
        **controls,
        "annotator": by,
        "annotation_id": f"{number}-{by}",
        "created_at": "2026-03-09T22:16:08.728353Z",
        "updated_at": "2026-03-09T22:16:08.728353Z",
        "lead_time": 4.288,
    }


def labelstudio(thumbs: list[Thumb], folder: Path, values: tuple = ("good", "bad")) -> list[Path]:
    tasks = [
        task(
            n,
            {"prompt": prompt, "answer": answer},
            annotation("choices", {"choices": [values[not up]]}, control="verdict", target="answer"),
        )
        for n, (prompt, answer, up) in enumerate(thumbs)
    ]
    path = folder / "project-83.json"
    path.write_text(json.dumps(tasks), encoding="utf-8")
    return [path]


EXPORTS = {
    "langfuse": langfuse,
    "langsmith": langsmith,
    "phoenix": phoenix,
    "mlflow": mlflow,
    "opik": opik,
    "gradio": gradio,
    "argilla": argilla,
    "labelstudio": labelstudio,
}
