"""Langfuse: scores, and the observations or traces they speak of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from bnf_align.data.importers.files import Record, first_record, records_of
from bnf_align.data.importers.importer import Importer, Options, Thumb
from bnf_align.data.importers.scores import chosen_score, is_thumb, number_of
from bnf_align.data.importers.shape import filled
from bnf_align.data.importers.spans import Score, Span, rated
from bnf_align.records import BadInput, DataReport


class Langfuse(Importer):
    r"""Langfuse: the folder of a blob storage export, or what its API answers.

    Scores (`scores/`, GET /api/public/v2/scores) are joined to enriched or legacy observations (`observations_v2/`,
    `observations/`) and to traces (`traces/`); JSON, JSON Lines, CSV or Parquet, in snake_case or camelCase:

        {"id": "s1", "trace_id": "t1", "observation_id": "o1", "name": "user-feedback", "data_type": "BOOLEAN",
         "value": 1, "string_value": null, "source": "API", "comment": "Helpful", "timestamp": "2026-05-29 13:46:19"}
        {"id": "o1", "trace_id": "t1", "parent_observation_id": "", "type": "GENERATION", "start_time": "...",
         "input": "[{\"role\": \"user\", ...}]", "output": "{\"role\": \"assistant\", ...}"}

    A BOOLEAN score under a name of `scores.THUMBS` is a thumb. The meaning of any other, of every NUMERIC one (1 may
    be the top of a scale of 0 to 1 or the bottom of one of 1 to 5) and of categories is asked for with `--label_map`,
    or `--up_from` and `--down_to`. TEXT scores are no ratings.

    Source: langfuse.com/docs/api-and-data-platform/features/blob-storage-export-fields and langfuse.com/docs/
    observability/features/user-feedback, read in 2026.
    """

    name = "langfuse"
    title = "a Langfuse export"
    VALUES: ClassVar = {"true": "up", "false": "down"}

    def matches(self, record: Any, path: Path) -> bool:
        """Scores have a data type, observations a trace and a start, both with names of Langfuse's own."""
        return isinstance(record, dict) and _kind(record) in ("scores", "observations")

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb]:
        """Ratings as thumbs, in the order of the observations."""
        files: dict[str, list[Path]] = {"scores": [], "observations": [], "traces": []}
        for path in paths:
            files.get(_kind(first_record(path)), []).append(path)  # a manifest is none of them
        steps = files["observations"] + files["traces"]
        if not files["scores"] or not steps:
            missing = "scores" if steps else "observations or traces" if files["scores"] else "scores or observations"
            raise BadInput(
                f"Langfuse keeps scores and observations apart, and these files hold no {missing}: give the folder "
                "of the whole export, with scores/ and observations_v2/."
            )
        scores = _scores(files["scores"], options, report)
        yield from rated(scores, lambda: _spans(steps), report, "observation or trace")


def _get(record: Record, name: str) -> Any:
    """A field under its name in the export, or under the API's."""
    return record[name] if name in record else record.get(_in_the_api(name))


@cache
def _in_the_api(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(part.title() for part in rest)


def _kind(record: Record) -> str:
    if _get(record, "data_type") is not None and "value" in record and "name" in record:
        return "scores"
    if _get(record, "trace_id") and _get(record, "start_time") and "input" in record:
        return "observations"
    return "traces" if {"id", "timestamp", "input", "output"} <= record.keys() else "other"


def _scores(paths: Sequence[Path], options: Options, report: DataReport) -> list[Score]:
    names = Counter(str(record["name"]) for _, record in records_of(paths) if _kind(record) == "scores")
    wanted = chosen_score(names, options, report)
    scores = []
    for row, record in records_of(paths):
        if _kind(record) != "scores" or str(record["name"]) != wanted:
            continue
        target = _get(record, "observation_id") or _get(record, "trace_id")
        if _get(record, "data_type") == "TEXT":
            report.drop("a score that is free text", row)
        elif not target:
            report.drop("a score of a session or a run, not of an answer", row)
        else:
            scores.append(Score(row, str(target), _value(record), _extras(record)))
    return scores


def _value(record: Record) -> Any:
    kind, value, text = _get(record, "data_type"), record["value"], _get(record, "string_value")
    if kind == "CATEGORICAL":
        return text if text not in (None, "") else value
    number = number_of(value)
    if kind == "BOOLEAN" and is_thumb(str(record["name"])) and number in (0, 1):
        return number == 1
    return None if value == "" else value


def _extras(record: Record) -> dict[str, Any]:
    return filled(
        id=record.get("id"),
        created_at=record.get("timestamp"),
        rater=_get(record, "author_user_id"),
        reason=record.get("comment"),
    )


def _spans(paths: Sequence[Path]) -> Iterator[Span]:
    for _, record in records_of(paths):
        trace = _get(record, "trace_id")
        yield Span(
            id=str(record.get("id")),
            trace=str(trace or record.get("id")),
            model_call=record.get("type") == "GENERATION",
            root=not trace or not _get(record, "parent_observation_id"),
            given=record.get("input"),
            produced=record.get("output"),
            model=_get(record, "provided_model_name") or record.get("model"),
        )
