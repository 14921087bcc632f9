"""LangSmith's feedback: which of its keys is the thumb, what a score under it is called, and what was rewritten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bnf_align.data.importers.corrections import corrects_the_score, rewritten
from bnf_align.data.importers.files import Record, records_of, unpacked
from bnf_align.data.importers.importer import Options
from bnf_align.data.importers.scores import chosen_score, number_of
from bnf_align.data.importers.shape import filled, mapping
from bnf_align.data.importers.spans import Score
from bnf_align.records import BadInput, DataReport, rows_text

NOTHING: tuple[Any, ...] = (None, "", "null", {}, "{}")
"""What stands where there is no correction."""


def is_feedback(record: Record) -> bool:
    """Whether a record is feedback on a run."""
    return "run_id" in record and "key" in record and ("score" in record or "value" in record)


def read_scores(paths: Sequence[Path], table: Mapping[str, str], options: Options, report: DataReport) -> list[Score]:
    """The scores under the key that is the thumb, and corrections that stand alone.

    Args:
        paths: Files of feedback.
        table: The importer's values, with their key: "user_score:1".
        options: Which key is the thumb, and the scale of its scores.
        report: Where what is left out is counted.

    Raises:
        BadInput: If the key, or the scale of its scores, is not certain.
    """
    wanted = _wanted(paths, options, report)
    scores, thumbs, foreign = [], [], []
    for row, record in records_of(paths):
        correction, mine = record.get("correction"), is_feedback(record) and str(record["key"]) in wanted
        better = rewritten(correction)
        if not is_feedback(record) or not (mine or better):
            continue
        if not mine and _score(record) is not None:
            foreign.append(row)  # what its score means is not known
        elif corrects_the_score(correction, _score(record)):
            report.drop("a score that was corrected to another one", row)
        else:
            foreign += [row] if correction not in NOTHING and better is None else []
            scores.append(Score(row, str(record["run_id"]), _score(record), _extras(record), better))
            thumbs.append(_thumb(record))
    if foreign:
        report.notes.append(f"corrections that are no new answer, or beside another score: {rows_text(foreign)}")
    known = all(value is None or value in table for value in thumbs)
    if len(wanted) == 1 and (not known or _has_threshold(options)):
        return scores  # a 1 among other numbers is a place on their scale, and no thumbs up
    _refuse_two_scales(thumbs, options)
    return [score._replace(value=value) for score, value in zip(scores, thumbs, strict=True)]


def _wanted(paths: Sequence[Path], options: Options, report: DataReport) -> set[str]:
    """The keys that are read: the two buttons of one pair of thumbs, or else one; all where none has a score."""
    keys: set[str] = set()
    scored: Counter[str] = Counter()
    for _, record in records_of(paths):
        if is_feedback(record):
            keys.add(str(record["key"]))
            scored[str(record["key"])] += _score(record) is not None
    scored = +scored
    buttons = {"user_liked", "user_disliked"}
    if not scored and options.score_name is None:
        return keys
    return buttons if scored.keys() <= buttons and not options.score_name else {chosen_score(scored, options, report)}


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
