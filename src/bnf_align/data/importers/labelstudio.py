"""Label Studio: the annotations of tasks that show a prompt and one or two answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bnf_align.data.importers.choices import Choice, settled
from bnf_align.data.importers.files import Record
from bnf_align.data.importers.importer import Importer, Message, Options, Pair, Thumb
from bnf_align.data.importers.json_min import READ, is_json_min, tasks
from bnf_align.data.importers.labelstudio_verdicts import Verdict, answered, verdicts
from bnf_align.data.importers.scores import chosen_score
from bnf_align.data.importers.shape import ANSWERS, PROMPTS, field_named, filled, mapping, records_like
from bnf_align.data.importers.turns import assistant, messages, user
from bnf_align.records import BadInput, DataReport

SIDES = ("left", "right")
LACKING = "a task whose data lack the prompt or an answer that others have"


class LabelStudio(Importer):
    """Label Studio: the exports named JSON and JSON-MIN; those named CSV and TSV are a `table`.

        [{"id": 1, "data": {"prompt": "Hi", "answer1": "Hello", "answer2": "What?"},
          "annotations": [{"id": 7, "was_cancelled": false, "completed_by": 10, "created_at": "...", "result": [
            {"from_name": "pw", "to_name": "answer1,answer2", "type": "pairwise", "value": {"selected": "left"}}]}]}]
        [{"prompt": "Hi", "answer1": "Hello", "answer2": "What?", "id": 1, "pw": [{"selected": "left"}],
          "annotator": 10, "annotation_id": 7, "created_at": "...", "updated_at": "...", "lead_time": 4.2}]

    `pairwise` chooses the first or the second name of `to_name`; `choices` ({"choices": ["good"]}) and `rating`
    ({"rating": 4}) rate the answer in `to_name`. The export does not say which data a name in the labelling interface
    shows, and JSON-MIN has no `to_name`: a name that is no key of `data` is given as `--map left=KEY right=KEY`, or
    `--map completion=KEY`; the prompt, where it is not `prompt` or `instruction`, as `--map prompt=KEY`. One of
    several controls is chosen with `--score_name`. Cancelled annotations and the model's `predictions` are not read.
    Choices other than those in `VALUES`, and all ratings, whose scale only the labelling interface knows, are asked
    for.

    Source: labelstud.io/guide/task_format, /tags/pairwise, /tags/choices and /tags/rating, read in 2026; for JSON-MIN
    HumanSignal/label-studio-sdk, converter/converter.py (`convert_to_json_min`, `annotation_result_from_task`) and
    converter/utils.py (`prettify_result`).
    """

    name = "labelstudio"
    title = "a Label Studio export"
    VALUES: ClassVar = {
        "up": "up",
        "down": "down",
        "thumbs up": "up",
        "thumbs down": "down",
        "good": "up",
        "bad": "down",
        "Good": "up",
        "Bad": "down",
    }

    def matches(self, record: Any, path: Path) -> bool:
        """A task has data, and annotations with results; an annotation of JSON-MIN the columns it adds."""
        return is_json_min(record) or (isinstance(record.get("data"), dict) and bool(answered(record)))

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb | Pair]:
        """Ratings as thumbs and choices between two answers as pairs, in the order of the tasks."""
        control, keys = _control(paths, options, report)
        fits = "a task with data and annotations"
        for row, task in records_like(paths, lambda task: {"data", "annotations"} <= task.keys(), fits, report, tasks):
            given = [verdict for verdict in verdicts(task) if verdict.control == control]
            if not given:
                report.drop("no annotation that was completed", row)
            elif given[0].kind == "pairwise":
                yield from _compared(row, task, given, keys, options, report)
            else:
                yield from _rated(row, task, given, keys, options, report)


Keys = dict[str, None]
"""The keys that the data of any task have: a name that is none of them is unknown, not missing."""


def _control(paths: Sequence[Path], options: Options, report: DataReport) -> tuple[str, Keys]:
    controls: Counter[str] = Counter()
    keys: Keys = {}
    for _, task in tasks(paths):
        controls.update(verdict.control for verdict in verdicts(task))
        keys |= dict.fromkeys(mapping(task.get("data")))
    if not controls:
        raise BadInput(
            f"No annotation with a result of type {', '.join(READ)}. Read are the exports named JSON, a list of "
            "tasks with data and annotations, and JSON-MIN."
        )
    return chosen_score(controls, options, report), keys


def _compared(
    row: int, task: Record, given: list[Verdict], keys: Keys, options: Options, report: DataReport
) -> Iterator[Pair]:
    data = mapping(task["data"])
    choices = [_choice(keys, verdict, options) for verdict in given]
    prompt = _prompt(data, keys, options)
    if prompt is None or any(side not in data for choice in choices if choice for side in choice):
        report.drop(LACKING, row)
        return
    pairs = settled(choices, options.raters)
    if not pairs:
        disagree = f"its raters disagree (--raters {options.raters})"
        report.drop(disagree if len(set(choices)) > 1 else "a comparison that prefers neither side", row)
    for better, worse in pairs:
        yield Pair(row, prompt, [assistant(data[better])], [assistant(data[worse])], filled(id=task.get("id")))


def _choice(keys: Keys, verdict: Verdict, options: Options) -> Choice | None:
    """The better and the worse key of the data; None of a verdict that prefers neither."""
    side = verdict.value.get("selected")
    if side not in SIDES:
        return None
    left, right = _sides(keys, verdict, options)
    return (left, right) if side == "left" else (right, left)


def _sides(keys: Keys, verdict: Verdict, options: Options) -> tuple[str, str]:
    named = [options.column_map.get(side) for side in SIDES]
    left, right = named if any(named) else [*verdict.targets, None, None][:2]
    if left is None or right is None or left not in keys or right not in keys or left == right:
        raise BadInput(
            f"`{verdict.control}` compares {', '.join(verdict.targets) or 'two answers'}, and it is not certain which "
            f"data these names show. The data are {', '.join(map(str, keys))}: say --map left=KEY right=KEY"
        )
    return left, right


def _rated(
    row: int, task: Record, given: list[Verdict], keys: Keys, options: Options, report: DataReport
) -> Iterator[Thumb]:
    data = mapping(task["data"])
    for verdict in given:
        value = verdict.value.get(verdict.kind)
        if isinstance(value, list):
            value = value[0] if len(value) == 1 else None
        if value is None:
            report.drop("an annotation with no or several choices", row)
            continue
        prompt = _prompt(data, keys, options)
        answer = _key(data, "completion", (*verdict.targets, *ANSWERS), keys, options)
        if prompt is None or answer is None:
            report.drop(LACKING, row)
            continue
        note = verdict.annotation
        extras = filled(id=task.get("id"), created_at=note.get("created_at"), rater=_who(note.get("completed_by")))
        # All annotations of an answer stand in its task; task ids repeat from one project to the next.
        yield Thumb(row, prompt, [assistant(data[answer])], value, answer=str(row), extras=extras)


def _who(rater: Any) -> Any:
    """An annotator's number, which some exports give as an object with the address and the name too."""
    return rater.get("id") if isinstance(rater, dict) else rater


def _prompt(data: Record, keys: Keys, options: Options) -> list[Message] | None:
    """A text is one user turn; a dialogue is its messages; None where this task has none."""
    key = _key(data, "prompt", PROMPTS, keys, options)
    if key is None:
        return None
    return messages(data[key]) or ([user(data[key])] if isinstance(data[key], str) else [])


def _key(data: Record, ours: str, known: Sequence[str], keys: Keys, options: Options) -> str | None:
    """What the task's data call a part; None where this task has none, which must not stop all others."""
    try:
        return field_named(data, ours, known, options)
    except BadInput:
        field_named(keys, ours, known, options)  # raises where no task has it: then a name is wrong
        return None
