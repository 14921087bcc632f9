"""Annotation products: what people answered to questions about one answer, or which of several they preferred."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport
from bnf_align.sources.fields import dicts, filled, mapping
from bnf_align.sources.files import records_like, records_of, unpacked
from bnf_align.sources.ratings import Choice, settled
from bnf_align.sources.scores import chosen_score
from bnf_align.sources.source import Item, Message, Options, Pair, Record, Source, Thumb
from bnf_align.sources.turns import assistant, messages, user

PROMPTS = ("prompt", "instruction")
ANSWERS = ("completion", "response")

Keys = dict[str, None]
"""The names that the texts of any record have: a name that is none of them is unknown, not missing."""


class Answer(NamedTuple):
    """What one person answered to a question about a record."""

    question: str
    value: Any
    """A rating, or which text is the better one; a `Reason` where it is no single answer."""
    compares: bool
    about: Mapping[str, Any]
    """Who answered, and when."""
    targets: Sequence[str] = ()
    """What the question is about, by the names of the labelling interface."""


@dataclass(frozen=True, kw_only=True)
class Annotation(Source):
    """An annotation product: where its records keep texts, questions and what people answered."""

    records: Callable[[Sequence[Path]], Iterator[tuple[int, Record]]]
    """The records in files, each with all answers about its texts."""
    texts: Callable[[Record], Record]
    questions: Callable[[Record], Iterable[str]]
    """The questions that were answered, as often as they were."""
    answers: Callable[[Record, str], Iterable[Answer]]
    """The finished answers to a question."""
    choice: Callable[[Answer, Record, Keys, Options, DataReport], Choice | Reason | None]
    """The better and the worse text by an answer; None where it prefers none, a reason where it does not say."""
    fits: Callable[[Record, str], bool]
    """Whether a record has answers to a question."""
    wanted: str
    """Such a record in words."""
    unasked: str
    """What to say of files without any answer."""
    unanswered: Reason
    undecided: Reason

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Item]:
        """Ratings as thumbs and comparisons as pairs, in the order of the records."""
        asked: Counter[str] = Counter()
        keys: Keys = {}
        for _, record in self.records(paths):
            asked.update(self.questions(record))
            keys |= dict.fromkeys(self.texts(record))
        if not asked:
            raise BadInput(self.unasked)
        question = chosen_score(asked, options, report)
        wanted = self.wanted.format(question=question)
        for row, record in records_like(paths, lambda one: self.fits(one, question), wanted, report, self.records):
            given, texts, key = list(self.answers(record, question)), self.texts(record), record.get("id")
            if not given:
                report.drop(self.unanswered, row)
            elif any(one.compares for one in given):
                choices = [self.choice(one, record, keys, options, report) for one in given]
                said = [choice for choice in choices if not isinstance(choice, Reason)]
                found = settled(said, options.raters, self.undecided) if said else Reason("no_ranks")
                prompt = _key(texts, "prompt", PROMPTS, keys, options)
                if prompt is None or any(side not in texts for choice in said if choice for side in choice):
                    report.drop(Reason("task_incomplete"), row)
                elif isinstance(found, Reason):
                    report.drop(found, row)
                else:
                    for better, worse in found:
                        sides = [assistant(texts[better])], [assistant(texts[worse])]
                        yield Pair(row, _prompt(texts[prompt]), *sides, filled(id=key))
            else:
                for one in given:
                    if isinstance(one.value, Reason):
                        report.drop(one.value, row)
                        continue
                    answer = _key(texts, "completion", (*one.targets, *ANSWERS), keys, options)
                    prompt = _key(texts, "prompt", PROMPTS, keys, options)
                    if prompt is None or answer is None:
                        report.drop(Reason("task_incomplete"), row)
                        continue
                    # All answers about a text stand in its record; ids repeat from one project to the next.
                    parts = _prompt(texts[prompt]), [assistant(texts[answer])]
                    extras = filled(id=key, **one.about)
                    yield Thumb(row, *parts, one.value, answer=str(row), extras=extras)


def _prompt(value: Any) -> list[Message]:
    """A text is one user turn, a dialogue its messages."""
    value = unpacked(value)
    return messages(value) or ([user(value)] if isinstance(value, str) else [])


def _key(texts: Record, ours: str, known: Sequence[str], keys: Keys, options: Options) -> str | None:
    """What a record calls a part, as `--map` says or by a `known` name; None where others have it and this one not.

    Raises:
        BadInput: If no record has it: then a name is wrong.
    """
    mapped = options.column_map.get(ours)
    names = [mapped] if mapped else known
    if not any(name in keys for name in names):
        what = f"`{mapped}`, which --map names as the {ours}" if mapped else " or ".join(f"`{one}`" for one in known)
        listed = ", ".join(map(str, keys))
        raise BadInput(f"There is no field {what}. The fields are {listed}: say --map {ours}=FIELD")
    return next((name for name in names if name in texts), None)


# Argilla

RESPONSES = ".responses"
OWN = ("id", "_server_id", "status", "inserted_at", "updated_at")
"""Columns that are Argilla's, and no field."""


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


def _submitted(record: Record, question: str) -> Iterator[Answer]:
    """The submitted responses; drafts and discarded ones do not count."""
    key = f"{question}{RESPONSES}"
    values, status, users = (unpacked(record.get(name)) for name in (key, f"{key}.status", f"{key}.users"))
    if not isinstance(values, list) or not isinstance(status, list) or len(status) != len(values):
        return
    users = users if isinstance(users, list) and len(users) == len(values) else [None] * len(values)
    for value, state, who in zip(values, status, users, strict=True):
        if str(state).rpartition(".")[2] == "submitted":
            compares = isinstance(value, list) or (isinstance(value, str) and value in record)
            yield Answer(question, value, compares, {"rater": who})


def _preferred(
    one: Answer, record: Record, keys: Keys, options: Options, report: DataReport
) -> Choice | Reason | None:
    """The best and the worst field of a ranking, or the field that a label names and the only other one."""
    value = one.value
    if isinstance(value, list):
        if len(value) > 1 and not dicts(value):
            return Reason("no_ranks")
        ranks = [(part["rank"], str(part.get("value"))) for part in dicts(value) if type(part.get("rank")) is int]
        if len(ranks) < 2 or len(ranks) != len(value) or any(name not in record for _, name in ranks):
            return None
        best, worst = min(ranks), max(ranks)
        return (best[1], worst[1]) if best[0] < worst[0] else None
    # A label that names a field: all text but the prompt, Argilla's own columns and those of questions.
    others = {options.column_map.get("prompt"), *PROMPTS, *OWN}
    texts = [name for name, text in record.items() if isinstance(text, str) and "." not in name]
    fields = [name for name in texts if name not in others]
    against = [name for name in fields if name != value]
    return (value, against[0]) if value in fields and len(against) == 1 else None


ARGILLA = Annotation(
    "argilla",
    "an Argilla export",
    knows=lambda record: (
        "suggestions" in record
        if _is_of_the_api(record)
        else any(f"{key}.status" in record for key in _questions(record))
    ),
    records=_flat_records,
    texts=lambda record: {name: text for name, text in record.items() if "." not in str(name) and name not in OWN},
    questions=lambda record: [key.removesuffix(RESPONSES) for key in _questions(record) if record[key]],
    answers=_submitted,
    choice=_preferred,
    fits=lambda record, question: f"{question}{RESPONSES}" in record,
    wanted="a record with answers to `{question}`",
    unasked="No record has a response to a question (a column NAME.responses that is not empty). Argilla's nested "
    "records, with `fields` and `responses`, do not say which responses were submitted and which are drafts or "
    "discarded: write them with dataset.records.to_datasets().to_parquet(FILE) instead.",
    unanswered=Reason("no_submitted"),
    undecided=Reason("prefers_no_field"),
    values=dict.fromkeys(("up", "thumbs_up", "good", "like"), "up")
    | dict.fromkeys(("down", "thumbs_down", "bad", "dislike"), "down"),
)
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

# Label Studio

READ = {"pairwise": "selected", "choices": "choices", "rating": "rating"}
"""Type of a control -> where its value stands."""
TEMPLATES = (("left", "right"), ("text1", "text2"))
"""Keys of two answers in Label Studio's own templates, where the names on the page are the same."""


def _results(task: Record) -> Iterator[tuple[str, Record, Record]]:
    """Control, result and annotation of what people said of a task; cancelled annotations are not read."""
    for annotation in dicts(task.get("annotations")):
        for result in dicts(annotation.get("result")) if annotation.get("was_cancelled") is not True else ():
            if result.get("type") in tuple(READ):
                yield str(result.get("from_name") or result["type"]), result, annotation


def _completed(task: Record, control: str) -> Iterator[Answer]:
    for name, result, annotation in _results(task):
        if name == control:
            kind, shown = result["type"], result.get("to_name") or ""
            value = mapping(result.get("value")).get(READ[kind])
            if isinstance(value, list):
                value = value[0] if len(value) == 1 else None
            if value is None and kind != "pairwise":
                value = Reason("not_one_choice")
            # A number, in some exports an object with the address and the name too.
            who = annotation.get("completed_by")
            rater = who.get("id") if isinstance(who, dict) else who
            targets = [str(one).strip() for one in (shown if isinstance(shown, list) else str(shown).split(","))]
            about = {"created_at": annotation.get("created_at"), "rater": rater}
            yield Answer(control, value, kind == "pairwise", about, [one for one in targets if one])


def _sides(one: Answer, record: Record, keys: Keys, options: Options, report: DataReport) -> Choice | None:
    """The data that are the better and the worse side.

    Raises:
        BadInput: If it is not certain which data a control compares.
    """
    if one.value not in ("left", "right"):
        return None
    named = [options.column_map.get(side) for side in ("left", "right")]
    own = [pair for pair in TEMPLATES if set(pair) <= keys.keys()]
    targets = one.targets or (own[0] if len(own) == 1 else ())  # JSON-MIN does not say what it compares
    left, right = named if any(named) else [*targets, None, None][:2]
    if left is None or right is None or left not in keys or right not in keys or left == right:
        raise BadInput(
            f"`{one.question}` compares {', '.join(one.targets) or 'two answers'}, and it is not certain which data "
            f"these names show. The data are {', '.join(map(str, keys))}: say --map left=KEY right=KEY"
        )
    note = f"`{one.question}`: left is `{left}` and right is `{right}`, the data of these names; another meaning? "
    note += "--map left=KEY right=KEY"
    if note not in report.notes and not any(named):
        report.notes.append(note)
    return (left, right) if one.value == "left" else (right, left)


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


LABELSTUDIO = Annotation(
    "labelstudio",
    "a Label Studio export",
    knows=lambda record: (
        _is_json_min(record)
        or (
            isinstance(record.get("data"), dict)
            and any(isinstance(one.get("result"), list) for one in dicts(record.get("annotations")))
        )
    ),
    records=_tasks,
    texts=lambda task: mapping(task.get("data")),
    questions=lambda task: [control for control, *_ in _results(task)],
    answers=_completed,
    choice=_sides,
    fits=lambda task, _: {"data", "annotations"} <= task.keys(),
    wanted="a task with data and annotations",
    unasked=f"No annotation with a result of type {', '.join(READ)}. Read are the exports named JSON, a list of tasks "
    "with data and annotations, and JSON-MIN.",
    unanswered=Reason("no_completed"),
    undecided=Reason("prefers_no_side"),
    values=dict.fromkeys(("up", "thumbs up", "good", "Good"), "up")
    | dict.fromkeys(("down", "thumbs down", "bad", "Bad"), "down"),
)
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

ANNOTATION: tuple[Source, ...] = (ARGILLA, LABELSTUDIO)
