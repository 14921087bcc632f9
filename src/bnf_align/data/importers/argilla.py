"""Argilla: the answers of annotators to the questions of a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from bnf_align.data.importers.files import Record, records_of, unpacked
from bnf_align.data.importers.importer import Importer, Message, Options, Pair, Thumb
from bnf_align.data.importers.rankings import chosen_fields, compares
from bnf_align.data.importers.scores import chosen_score
from bnf_align.data.importers.shape import ANSWERS, PROMPTS, dicts, field_named, filled, mapping, records_like
from bnf_align.data.importers.turns import assistant, messages, user
from bnf_align.records import BadInput, DataReport

RESPONSES = ".responses"


class Argilla(Importer):
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
    VALUES: ClassVar = {
        "up": "up",
        "down": "down",
        "thumbs_up": "up",
        "thumbs_down": "down",
        "good": "up",
        "bad": "down",
        "like": "up",
        "dislike": "down",
    }

    def matches(self, record: Any, path: Path) -> bool:
        """Responses come with their users and status, under the name of their question."""
        if _is_of_the_api(record):
            return "suggestions" in record
        return any(f"{key}.status" in record for key in _questions(record))

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb | Pair]:
        """Ratings as thumbs and comparisons as pairs, in the order of the records."""
        question = _question(paths, options, report)
        wanted = f"a record with answers to `{question}`"
        answered = f"{question}{RESPONSES}"
        for row, record in records_like(paths, lambda record: answered in record, wanted, report, _records):
            given = list(_submitted(record, question))
            if not given:
                report.drop("no submitted response", row)
            elif any(compares(answer.value, record) for answer in given):
                yield from _compared(row, record, given, options, report)
            else:
                yield from _rated(row, record, given, options)


class _Answer(NamedTuple):
    value: Any
    user: Any


def _records(paths: Sequence[Path]) -> Iterator[tuple[int, Record]]:
    return ((number, _flat(record)) for number, record in records_of(paths))


def _is_of_the_api(record: Record) -> bool:
    return isinstance(record.get("fields"), dict) and isinstance(record.get("responses"), list)


def _flat(record: Record) -> Record:
    """A record of the API as the Python export has it."""
    if not _is_of_the_api(record):
        return record
    flat = {**record["fields"], "id": record.get("id")}
    for response in dicts(record["responses"]):
        for question, answer in mapping(response.get("values")).items():
            for name, value in (
                ("", mapping(answer).get("value")),
                (".users", response.get("user_id")),
                (".status", response.get("status")),
            ):
                flat.setdefault(f"{question}{RESPONSES}{name}", []).append(value)
    return flat


def _questions(record: Record) -> list[str]:
    return [key for key in record if isinstance(key, str) and key.endswith(RESPONSES)]


def _question(paths: Sequence[Path], options: Options, report: DataReport) -> str:
    counts: Counter[str] = Counter()
    nested = False
    for _, record in _records(paths):
        counts.update(key.removesuffix(RESPONSES) for key in _questions(record) if record[key])
        nested = nested or {"fields", "responses"} <= record.keys()
    if counts:
        return chosen_score(counts, options, report)
    if nested:
        raise BadInput(
            "These are Argilla's nested records, which do not say which responses were submitted and which are drafts "
            "or discarded. Write them with dataset.records.to_datasets().to_parquet(FILE) instead."
        )
    raise BadInput("No record has a response to a question (a column NAME.responses that is not empty).")


def _submitted(record: Record, question: str) -> Iterator[_Answer]:
    key = f"{question}{RESPONSES}"
    values, status, users = (unpacked(record.get(name)) for name in (key, f"{key}.status", f"{key}.users"))
    if not isinstance(values, list) or not isinstance(status, list) or len(status) != len(values):
        return
    users = users if isinstance(users, list) and len(users) == len(values) else [None] * len(values)
    for value, state, who in zip(values, status, users, strict=True):
        if str(state).rpartition(".")[2] == "submitted":
            yield _Answer(value, who)


def _compared(row: int, record: Record, given: list[_Answer], options: Options, report: DataReport) -> Iterator[Pair]:
    for best, worst in chosen_fields(row, record, [answer.value for answer in given], options, report):
        prompt, extras = _prompt(record, options), filled(id=record.get("id"))
        yield Pair(row, prompt, [assistant(record[best])], [assistant(record[worst])], extras)


def _rated(row: int, record: Record, given: list[_Answer], options: Options) -> Iterator[Thumb]:
    completion = record[field_named(record, "completion", ANSWERS, options)]
    prompt = _prompt(record, options)
    for answer in given:
        extras = filled(id=record.get("id"), rater=answer.user)
        # All responses to an answer stand in its record; ids repeat from one dataset to the next.
        yield Thumb(row, prompt, [assistant(completion)], answer.value, answer=str(row), extras=extras)


def _prompt(record: Record, options: Options) -> list[Message]:
    """A text field is one user turn; a chat field is its messages."""
    value = unpacked(record[field_named(record, "prompt", PROMPTS, options)])
    return messages(value) or ([user(value)] if isinstance(value, str) else [])
