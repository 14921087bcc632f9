"""LangSmith: feedback, and the runs it speaks of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bnf_align.data.importers.files import Record, first_record, records_of, unpacked
from bnf_align.data.importers.importer import Importer, Options, Thumb
from bnf_align.data.importers.scores import THUMBS, chosen_score, number_of
from bnf_align.data.importers.shape import filled, mapping
from bnf_align.data.importers.spans import Score, Span, rated
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

    Source: docs.langchain.com/langsmith/feedback-data-format, run-data-format, log-llm-trace, data-export and, for 1
    and -1 and the keys user_liked and user_disliked, agent-server-feedback; read in 2026.
    """

    name = "langsmith"
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
        scores = _scores(files["feedback"], options, report)
        yield from rated(scores, lambda: _spans(files["runs"]), report, "run")


def _kind(record: Record) -> str:
    if "run_id" in record and "key" in record and ("score" in record or "value" in record):
        return "feedback"
    return "runs" if {"run_type", "inputs", "outputs", "trace_id"} <= record.keys() else "other"


def _scores(paths: Sequence[Path], options: Options, report: DataReport) -> list[Score]:
    wanted = _wanted(paths, options, report)
    scores, thumbs = [], []
    for row, record in records_of(paths):
        if _kind(record) == "feedback" and str(record["key"]) in wanted:
            scores.append(Score(row, str(record["run_id"]), _score(record), _extras(record)))
            thumbs.append(_thumb(record))
    known = all(value is None or value in LangSmith.VALUES for value in thumbs)
    if len(wanted) == 1 and (not known or _has_threshold(options)):
        return scores  # a 1 among other numbers is a place on their scale, and no thumbs up
    _refuse_two_scales(thumbs, options)
    return [score._replace(value=value) for score, value in zip(scores, thumbs, strict=True)]


def _wanted(paths: Sequence[Path], options: Options, report: DataReport) -> set[str]:
    """The keys that are read: the two buttons of one pair of thumbs, or else one."""
    keys = Counter(str(record["key"]) for _, record in records_of(paths) if _kind(record) == "feedback")
    buttons = {"user_liked", "user_disliked"}
    return buttons if keys.keys() <= buttons and not options.score_name else {chosen_score(keys, options, report)}


def _has_threshold(options: Options) -> bool:
    return options.up_from is not None or options.down_to is not None


def _score(record: Record) -> Any:
    score = record.get("score") if record.get("score") not in (None, "") else record.get("value")
    return None if score == "" else score


def _thumb(record: Record) -> str | None:
    """A score with its key, as `VALUES` has it; None where there is no score."""
    score, number = _score(record), number_of(_score(record))
    key = str(record["key"]).lower().replace("-", "_").replace(" ", "_")
    text = str(score).lower() if number is None else f"{number:g}"
    return None if score is None else f"{key}:{text}"


def _refuse_two_scales(values: Sequence[Any], options: Options) -> None:
    """Where 0 and -1 stand side by side, one may mean no opinion."""
    seen = Counter(value for value in values if isinstance(value, str))
    for value in seen:
        name, _, number = value.rpartition(":")
        zero = f"{name}:0"
        if number == "-1" and zero in seen and not {zero, value} <= options.label_map.keys():
            raise BadInput(
                f"The scores hold both 0 ({seen[zero]:,}) and -1 ({seen[value]:,}): one may mean down and the other "
                f"no opinion. Say what each means, for example --label_map {name}:1=up {value}=down {zero}=drop"
            )


def _extras(record: Record) -> dict[str, Any]:
    source = mapping(unpacked(record.get("feedback_source")))
    return filled(
        id=record.get("id"),
        created_at=record.get("created_at"),
        rater=source.get("user_id"),
        reason=record.get("comment"),
    )


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
