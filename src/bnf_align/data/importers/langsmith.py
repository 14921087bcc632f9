"""LangSmith: feedback, and the runs it speaks of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bnf_align.data.importers.files import Record, first_record, records_of, unpacked
from bnf_align.data.importers.importer import Importer, Options, Thumb
from bnf_align.data.importers.langsmith_feedback import is_feedback, read_scores
from bnf_align.data.importers.scores import THUMBS
from bnf_align.data.importers.shape import mapping
from bnf_align.data.importers.spans import Span, rated
from bnf_align.records import BadInput, DataReport

MEANS = {"1": "up", "true": "up", "0": "down", "-1": "down", "false": "down"}


class LangSmith(Importer):
    """LangSmith: runs (a bulk export, or `client.list_runs`) and feedback (`client.list_feedback`), a file of each.

        {"id": "r1", "trace_id": "r1", "parent_run_id": null, "run_type": "llm", "start_time": "...",
         "inputs": {"messages": [{"role": "user", "content": "Hi"}]}, "outputs": {"messages": [...]}}
        {"id": "f1", "run_id": "r1", "key": "user_score", "score": 1.0, "value": null, "comment": null,
         "feedback_source": {"type": "api", "user_id": null}, "created_at": "2026-05-05T23:23:11"}

    Inputs and outputs may be messages of OpenAI, Anthropic or LangChain, `generations`, `choices`, one text, or JSON
    text of these, as in the bulk export's Parquet. A score of 1, 0 or -1 under a key of `scores.THUMBS` is a thumb, as
    is `user_disliked`, upside down. The meaning of any other score is asked for.

    A `correction` with a rewritten answer (`corrections.rewritten`) is chosen over the run's answer where its score is
    a down, or there is no score, and nobody rated that answer up. A correction of the score ({"score": 1} on a score
    of 0) disputes it: the rating is left out. One of another shape says nothing here, and is counted.

    Source: docs.langchain.com/langsmith/feedback-data-format, run-data-format, log-llm-trace, data-export; for 1 and
    -1 and the keys user_liked and user_disliked agent-server-feedback; for corrections of a score
    audit-evaluator-scores; read in 2026.
    """

    name = "langsmith"
    title = "a LangSmith export"
    VALUES: ClassVar = {f"{key}:{value}": meaning for key in THUMBS for value, meaning in MEANS.items()} | {
        "user_disliked:1": "down",
        "user_disliked:true": "down",
        # Not to dislike is not to like.
        "user_disliked:0": "drop",
        "user_disliked:false": "drop",
    }

    def matches(self, record: Any, path: Path) -> bool:
        """Feedback speaks of a run by `run_id`; a run has a type and a place in its trace."""
        return isinstance(record, dict) and _kind(record) != "other"

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb]:
        """Ratings as thumbs, in the order of the runs."""
        files: dict[str, list[Path]] = {"feedback": [], "runs": []}
        for path in paths:
            files.get(_kind(first_record(path)), []).append(path)
        if not files["feedback"] or not files["runs"]:
            missing = "feedback" if files["runs"] else "runs"
            raise BadInput(
                f"LangSmith keeps runs and feedback apart, and these files hold no {missing}: write both, a JSON "
                "object a line, from client.list_runs(...) and client.list_feedback(run_ids=...). A bulk export has "
                "the runs only."
            )
        scores = read_scores(files["feedback"], self.VALUES, options, report)
        yield from rated(scores, lambda: _spans(files["runs"]), report, "run")


def _kind(record: Record) -> str:
    if is_feedback(record):
        return "feedback"
    return "runs" if {"run_type", "inputs", "outputs", "trace_id"} <= record.keys() else "other"


def _spans(paths: Sequence[Path]) -> Iterator[Span]:
    for _, record in records_of(paths):
        run, trace = str(record.get("id")), str(record.get("trace_id") or record.get("id"))
        metadata = mapping(mapping(unpacked(record.get("extra"))).get("metadata"))
        yield Span(
            id=run,
            trace=trace,
            model_call=record.get("run_type") == "llm",
            root=run == trace,
            given=unpacked(record.get("inputs")),
            produced=unpacked(record.get("outputs")),
            model=metadata.get("ls_model_name"),
        )
