"""Annotation products: what people answered to questions about one answer, or which of several they preferred."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport
from bnf_align.sources.fields import ANSWERS, PROMPTS, dicts, field_named, filled, mapping
from bnf_align.sources.files import records_like, records_of, unpacked
from bnf_align.sources.ratings import Choice, settled
from bnf_align.sources.scores import chosen_score
from bnf_align.sources.source import Item, Message, Options, Pair, Record, Source, Thumb
from bnf_align.sources.turns import assistant, messages, user


def _prompt(value: Any) -> list[Message]:
    """A text is one user turn, a dialogue its messages."""
    value = unpacked(value)
    return messages(value) or ([user(value)] if isinstance(value, str) else [])


def _pairs(row: int, texts: Record, prompt: str, choices: Sequence[Choice], key: Any) -> Iterator[Pair]:
    """The choices between texts of a record, each a pair."""
    for better, worse in choices:
        answers = [assistant(texts[better])], [assistant(texts[worse])]
        yield Pair(row, _prompt(texts[prompt]), *answers, filled(id=key))


# Argilla

RESPONSES = ".responses"


class Argilla(Source):
    """Argilla 2: `dataset.records.to_datasets()` as Parquet or JSON, or `to_list(flatten=True)`; or its API's records.

        {"id": "1", "prompt": "Hi", "response": "Hello",
         "thumb.responses": ["good"], "thumb.responses.users": ["u1"], "thumb.responses.status": ["submitted"]}
        {"id": "2", "fields": {"prompt": "Hi", "response1": "Hello", "response2": "What?"}, "responses": [
          {"status": "submitted", "user_id": "u1", "values": {"preference": {"value": [
            {"value": "response1", "rank": 2}, {"value": "response2", "rank": 1}]}}}]}

    A label or rating question rates the field `completion` or `response`; a ranking question, or a label question
    whose labels are names of fields, compares fields. Rankings come with their ranks from the API alone (GET
    /api/v1/datasets/ID/records?include=responses): the Python export drops the ranks and keeps the options in the
    order of the interface, so it says nothing, and is left out. Only responses with the status `submitted` count:
    drafts and discarded ones do not, nor do suggestions, which are a model's. Several annotators' choices between two
    fields are merged as thumbs are. Other field names are given with `--map prompt=FIELD completion=FIELD`, one of
    several questions with `--score_name`.

    Source: argilla 2, argilla/records/_io/_generic.py and argilla/responses.py (`__ranking_from_model_value`); for the
    order of rankings github.com/argilla-io/argilla/issues/5712.
    """

    name = "argilla"
    title = "an Argilla export"
    values: Mapping[str, str] = {
        **dict.fromkeys(("up", "thumbs_up", "good", "like"), "up"),
        **dict.fromkeys(("down", "thumbs_down", "bad", "dislike"), "down"),
    }
    OWN = ("id", "_server_id", "status", "inserted_at", "updated_at")
    """Columns that are Argilla's, and no field."""

    def matches(self, record: Record, path: Path) -> bool:
        """Responses come with their users and status, under the name of their question."""
        if _is_of_the_api(record):
            return "suggestions" in record
        return any(f"{key}.status" in record for key in _questions(record))

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Item]:
        """Ratings as thumbs and comparisons as pairs, in the order of the records."""
        question = self._question(paths, options, report)
        answered = f"{question}{RESPONSES}"
        wanted = f"a record with answers to `{question}`"
        for row, record in records_like(paths, lambda record: answered in record, wanted, report, _flat_records):
            given = list(_submitted(record, answered))
            if not given:
                report.drop(Reason("no_submitted"), row)
            elif any(isinstance(value, list) or (isinstance(value, str) and value in record) for value, _ in given):
                yield from self._compared(row, record, [value for value, _ in given], options, report)
            else:
                completion = [assistant(record[field_named(record, "completion", ANSWERS, options)])]
                prompt = _prompt(record[field_named(record, "prompt", PROMPTS, options)])
                for value, who in given:
                    extras = filled(id=record.get("id"), rater=who)
                    # All responses to an answer stand in its record; ids repeat from one dataset to the next.
                    yield Thumb(row, prompt, completion, value, answer=str(row), extras=extras)

    def _question(self, paths: Sequence[Path], options: Options, report: DataReport) -> str:
        counts: Counter[str] = Counter()
        nested = False
        for _, record in _flat_records(paths):
            counts.update(key.removesuffix(RESPONSES) for key in _questions(record) if record[key])
            nested = nested or {"fields", "responses"} <= record.keys()
        if counts:
            return chosen_score(counts, options, report)
        if nested:
            raise BadInput(
                "These are Argilla's nested records, which do not say which responses were submitted and which are "
                "drafts or discarded. Write them with dataset.records.to_datasets().to_parquet(FILE) instead."
            )
        raise BadInput("No record has a response to a question (a column NAME.responses that is not empty).")

    def _compared(
        self, row: int, record: Record, values: Sequence[Any], options: Options, report: DataReport
    ) -> Iterator[Pair]:
        """The better and the worse field, as the raters together have it; or a reason in the report."""
        bare = [isinstance(value, list) and len(value) > 1 and not dicts(value) for value in values]
        choices = [self._choice(value, record, options) for value, no in zip(values, bare, strict=True) if not no]
        found = settled(choices, options.raters, Reason("prefers_no_field")) if choices else Reason("no_ranks")
        if isinstance(found, Reason):
            report.drop(found, row)
        else:
            key = field_named(record, "prompt", PROMPTS, options)
            yield from _pairs(row, record, key, found, record.get("id"))

    def _choice(self, value: Any, record: Record, options: Options) -> Choice | None:
        """The best and the worst field of one response; None where it prefers none."""
        if isinstance(value, list):
            ranks = [(part["rank"], str(part.get("value"))) for part in dicts(value) if type(part.get("rank")) is int]
            if len(ranks) < 2 or len(ranks) != len(value) or any(name not in record for _, name in ranks):
                return None
            best, worst = min(ranks), max(ranks)
            return (best[1], worst[1]) if best[0] < worst[0] else None
        # A label that names a field: all text but the prompt, Argilla's own columns and those of questions.
        others = {options.column_map.get("prompt"), *PROMPTS, *self.OWN}
        texts = [name for name, text in record.items() if isinstance(text, str) and "." not in name]
        fields = [name for name in texts if name not in others]
        against = [name for name in fields if name != value]
        return (value, against[0]) if value in fields and len(against) == 1 else None


def _is_of_the_api(record: Record) -> bool:
    return isinstance(record.get("fields"), dict) and isinstance(record.get("responses"), list)


def _questions(record: Record) -> list[str]:
    return [key for key in record if isinstance(key, str) and key.endswith(RESPONSES)]


def _flat_records(paths: Sequence[Path]) -> Iterator[tuple[int, Record]]:
    """The records, those of the API as the Python export has them."""
    for number, record in records_of(paths):
        if not _is_of_the_api(record):
            yield number, record
            continue
        flat = {**record["fields"], "id": record.get("id")}
        for response in dicts(record["responses"]):
            for question, answer in mapping(response.get("values")).items():
                key = f"{question}{RESPONSES}"
                flat.setdefault(key, []).append(mapping(answer).get("value"))
                flat.setdefault(f"{key}.users", []).append(response.get("user_id"))
                flat.setdefault(f"{key}.status", []).append(response.get("status"))
        yield number, flat


def _submitted(record: Record, key: str) -> Iterator[tuple[Any, Any]]:
    """The submitted responses to a question, each with its user."""
    values, status, users = (unpacked(record.get(name)) for name in (key, f"{key}.status", f"{key}.users"))
    if not isinstance(values, list) or not isinstance(status, list) or len(status) != len(values):
        return
    users = users if isinstance(users, list) and len(users) == len(values) else [None] * len(values)
    for value, state, who in zip(values, status, users, strict=True):
        if str(state).rpartition(".")[2] == "submitted":
            yield value, who


# Label Studio

READ = {"pairwise": "selected", "choices": "choices", "rating": "rating"}
"""Type of a control -> where its value stands."""
TEMPLATES = (("left", "right"), ("text1", "text2"))
"""Keys of two answers in Label Studio's own templates, where the names on the page are the same."""

Keys = dict[str, None]
"""The keys that the data of any task have: a name that is none of them is unknown, not missing."""


class _Verdict(NamedTuple):
    """One result of one annotation."""

    control: str
    kind: str
    targets: list[str]
    value: Record
    annotation: Record


class LabelStudio(Source):
    """Label Studio: the exports named JSON and JSON-MIN; those named CSV and TSV are a `table`.

        [{"id": 1, "data": {"prompt": "Hi", "answer1": "Hello", "answer2": "What?"},
          "annotations": [{"id": 7, "was_cancelled": false, "completed_by": 10, "created_at": "...", "result": [
            {"from_name": "pw", "to_name": "answer1,answer2", "type": "pairwise", "value": {"selected": "left"}}]}]}]
        [{"prompt": "Hi", "answer1": "Hello", "answer2": "What?", "id": 1, "pw": [{"selected": "left"}],
          "annotator": 10, "annotation_id": 7, "created_at": "...", "updated_at": "...", "lead_time": 4.2}]

    `pairwise` chooses the first or the second name of `to_name`; `choices` ({"choices": ["good"]}) and `rating`
    ({"rating": 4}) rate the answer in `to_name`. The export does not say which data a name in the labelling interface
    shows: names that are keys of `data` too, as in its own templates, are read as these, which is said; any other is
    given as `--map left=KEY right=KEY`, or `--map completion=KEY`; the prompt, where it is not `prompt` or
    `instruction`, as `--map prompt=KEY`. JSON-MIN has no `to_name`. One of several controls is chosen with
    `--score_name`. Cancelled annotations and the model's `predictions` are not read. Choices other than those in
    `values`, and all ratings, whose scale only the labelling interface knows, are asked for.

    Source: labelstud.io/guide/task_format, /tags/pairwise, /tags/choices, /tags/rating and
    /templates/pairwise_comparison, read in 2026; for JSON-MIN HumanSignal/label-studio-sdk, converter/converter.py
    (`convert_to_json_min`, `annotation_result_from_task`) and converter/utils.py (`prettify_result`).
    """

    name = "labelstudio"
    title = "a Label Studio export"
    values: Mapping[str, str] = {
        **dict.fromkeys(("up", "thumbs up", "good", "Good"), "up"),
        **dict.fromkeys(("down", "thumbs down", "bad", "Bad"), "down"),
    }

    def matches(self, record: Record, path: Path) -> bool:
        """A task has data, and annotations with results; an annotation of JSON-MIN the columns it adds."""
        results = (one.get("result") for one in dicts(record.get("annotations")))
        return _is_json_min(record) or (
            isinstance(record.get("data"), dict) and any(isinstance(result, list) for result in results)
        )

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Item]:
        """Ratings as thumbs and choices between two answers as pairs, in the order of the tasks."""
        controls: Counter[str] = Counter()
        keys: Keys = {}
        for _, task in _tasks(paths):
            controls.update(verdict.control for verdict in _verdicts(task))
            keys |= dict.fromkeys(mapping(task.get("data")))
        if not controls:
            raise BadInput(
                f"No annotation with a result of type {', '.join(READ)}. Read are the exports named JSON, a list of "
                "tasks with data and annotations, and JSON-MIN."
            )
        control = chosen_score(controls, options, report)
        fits = "a task with data and annotations"
        for row, task in records_like(
            paths, lambda task: {"data", "annotations"} <= task.keys(), fits, report, _tasks
        ):
            given = [verdict for verdict in _verdicts(task) if verdict.control == control]
            if not given:
                report.drop(Reason("no_completed"), row)
            elif given[0].kind == "pairwise":
                yield from self._compared(row, task, given, keys, options, report)
            else:
                yield from self._rated(row, task, given, keys, options, report)

    def _compared(
        self, row: int, task: Record, given: list[_Verdict], keys: Keys, options: Options, report: DataReport
    ) -> Iterator[Pair]:
        data = mapping(task["data"])
        choices: list[Choice | None] = []
        for verdict in given:
            side = verdict.value.get("selected")
            left, right = self._sides(keys, verdict, options) if side in ("left", "right") else ("", "")
            choices.append({"left": (left, right), "right": (right, left)}.get(str(side)))
            note = f"`{verdict.control}`: left is `{left}` and right is `{right}`, the data of these names; another "
            note += "meaning? --map left=KEY right=KEY"
            if left and note not in report.notes and not options.column_map.keys() & {"left", "right"}:
                report.notes.append(note)
        key = self._key(data, "prompt", PROMPTS, keys, options)
        if key is None or any(side not in data for choice in choices if choice for side in choice):
            report.drop(Reason("task_incomplete"), row)
            return
        found = settled(choices, options.raters, Reason("prefers_no_side"))
        if isinstance(found, Reason):
            report.drop(found, row)
        else:
            yield from _pairs(row, data, key, found, task.get("id"))

    def _sides(self, keys: Keys, verdict: _Verdict, options: Options) -> tuple[str, str]:
        """The keys of the data that a control compares.

        Raises:
            BadInput: If that is not certain.
        """
        named = [options.column_map.get(side) for side in ("left", "right")]
        own = [pair for pair in TEMPLATES if set(pair) <= keys.keys()]
        targets = verdict.targets or (own[0] if len(own) == 1 else ())  # JSON-MIN does not say what it compares
        left, right = named if any(named) else [*targets, None, None][:2]
        if left is None or right is None or left not in keys or right not in keys or left == right:
            raise BadInput(
                f"`{verdict.control}` compares {', '.join(verdict.targets) or 'two answers'}, and it is not certain "
                f"which data these names show. The data are {', '.join(map(str, keys))}: say --map left=KEY right=KEY"
            )
        return left, right

    def _rated(
        self, row: int, task: Record, given: list[_Verdict], keys: Keys, options: Options, report: DataReport
    ) -> Iterator[Thumb]:
        data = mapping(task["data"])
        for verdict in given:
            value = verdict.value.get(verdict.kind)
            if isinstance(value, list):
                value = value[0] if len(value) == 1 else None
            if value is None:
                report.drop(Reason("not_one_choice"), row)
                continue
            prompt = self._key(data, "prompt", PROMPTS, keys, options)
            answer = self._key(data, "completion", (*verdict.targets, *ANSWERS), keys, options)
            if prompt is None or answer is None:
                report.drop(Reason("task_incomplete"), row)
                continue
            note = verdict.annotation
            who = note.get("completed_by")  # a number, in some exports an object with the address and the name too
            rater = who.get("id") if isinstance(who, dict) else who
            extras = filled(id=task.get("id"), created_at=note.get("created_at"), rater=rater)
            # All annotations of an answer stand in its task; task ids repeat from one project to the next.
            texts = _prompt(data[prompt]), [assistant(data[answer])]
            yield Thumb(row, *texts, value, answer=str(row), extras=extras)

    def _key(self, data: Record, ours: str, known: Sequence[str], keys: Keys, options: Options) -> str | None:
        """What the task's data call a part; None where this task has none, which must not stop all others."""
        try:
            return field_named(data, ours, known, options)
        except BadInput:
            field_named(keys, ours, known, options)  # raises where no task has it: then a name is wrong
            return None


def _verdicts(task: Record) -> Iterator[_Verdict]:
    """What people said of a task, annotation by annotation; cancelled ones are not read."""
    for annotation in dicts(task.get("annotations")):
        if annotation.get("was_cancelled") is True:
            continue
        for result in dicts(annotation.get("result")):
            if result.get("type") in tuple(READ):
                shown = result.get("to_name") or ""
                shown = shown if isinstance(shown, list) else str(shown).split(",")
                targets = [str(name).strip() for name in shown if str(name).strip()]
                control = str(result.get("from_name") or result["type"])
                yield _Verdict(control, result["type"], targets, mapping(result.get("value")), annotation)


COLUMNS = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement")
"""What Label Studio writes in JSON-MIN beside the data and the controls."""


def _is_json_min(record: Record) -> bool:
    """Whether a record has the columns that JSON-MIN adds to the data, in its order; CSV sorts them."""
    names = list(record)
    return {*COLUMNS[:-1]} <= record.keys() and names.index("id") < names.index("annotator")


def _tasks(paths: Sequence[Path]) -> Iterator[tuple[int, Record]]:
    """The tasks of files of both exports; in JSON-MIN the annotations of a task stand one after the other."""

    def task(numbered: tuple[int, Record]) -> Any:
        """What the annotations of one task share: its number, and its data, as numbers repeat between projects."""
        record = numbered[1]
        if not _is_json_min(record):
            return None
        controls = _controls(record)
        return {name: value for name, value in record.items() if name not in controls and name not in COLUMNS[1:]}

    for key, group in groupby(records_of(paths), key=task):
        if key is None:
            yield from group
        else:
            rows = list(group)
            first = rows[0][1]
            data = {name: value for name, value in first.items() if name not in COLUMNS}
            yield rows[0][0], {"id": first["id"], "data": data, "annotations": [_annotation(one) for _, one in rows]}


def _controls(record: Record) -> list[str]:
    """The names of the controls, which the converter writes between the task's number and the annotator's."""
    names = list(record)
    return names[names.index("id") + 1 : names.index("annotator")]


def _annotation(record: Record) -> Record:
    """A row of JSON-MIN as an annotation: one choice is its bare text, all else an object or a list of objects."""
    results: list[Record] = []
    for control in _controls(record):
        value = record[control]
        if isinstance(value, str) and value:
            value = {"choices": [value]}
        for part in dicts(value if isinstance(value, list) else [value]):
            found = (kind for kind, key in READ.items() if key in part)
            results += [{"from_name": control, "type": kind, "value": part} for kind in found]
    return {"id": record["annotation_id"], "result": results, "completed_by": record["annotator"]} | {
        "created_at": record.get("created_at")
    }


ANNOTATION: tuple[Source, ...] = (Argilla(), LabelStudio())
