"""Argilla: the answers of annotators to the questions of a dataset."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from bnf_align.data.importers.choices import settled
from bnf_align.data.importers.files import Record, records_of, unpacked
from bnf_align.data.importers.importer import Importer, Message, Options, Pair, Thumb
from bnf_align.data.importers.scores import chosen_score
from bnf_align.data.importers.shape import ANSWERS, PROMPTS, field_named, filled, records_like
from bnf_align.data.importers.turns import assistant, messages, user
from bnf_align.records import BadInput, DataReport

RESPONSES = ".responses"


class Argilla(Importer):
    """Argilla 2: `dataset.records.to_datasets()` as Parquet or JSON, or `to_list(flatten=True)`.

        {"id": "1", "prompt": "Hi", "response": "Hello",
         "thumb.responses": ["good"], "thumb.responses.users": ["u1"], "thumb.responses.status": ["submitted"]}
        {"id": "2", "prompt": "Hi", "response1": "Hello", "response2": "What?",
         "preference.responses": [["response1", "response2"]], "preference.responses.users": ["u1"], ...}

    A label or rating question rates the field `completion` or `response`; a ranking question, or a label question
    whose labels are names of fields, compares fields, the best of which stands first. Only responses with the status
    `submitted` count: drafts and discarded ones do not, nor do suggestions, which are a model's. Several annotators'
    choices between two fields are merged as thumbs are. Other field names are given with `--map prompt=FIELD
    completion=FIELD`, one of several questions with `--score_name`.

    Source: argilla 2, argilla/records/_io/_generic.py and argilla/responses.py.
    """

    name = "argilla"
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
        return isinstance(record, dict) and any(f"{key}.status" in record for key in _questions(record))

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb | Pair]:
        """Ratings as thumbs and comparisons as pairs, in the order of the records."""
        question = _question(paths, options, report)
        wanted = f"a record with answers to `{question}`"
        for row, record in records_like(paths, lambda record: f"{question}{RESPONSES}" in record, wanted, report):
            given = list(_submitted(record, question))
            if not given:
                report.drop("no submitted response", row)
            elif any(_compares(answer.value, record) for answer in given):
                yield from _compared(row, record, given, options, report)
            else:
                yield from _rated(row, record, given, options)


class _Answer(NamedTuple):
    value: Any
    user: Any


def _questions(record: Record) -> list[str]:
    return [key for key in record if isinstance(key, str) and key.endswith(RESPONSES)]


def _question(paths: Sequence[Path], options: Options, report: DataReport) -> str:
    counts: Counter[str] = Counter()
    nested = False
    for _, record in records_of(paths):
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
    if not isinstance(values, list) or not isinstance(status, list):
        return
    users = users if isinstance(users, list) and len(users) == len(values) else [None] * len(values)
    for value, state, who in zip(values, status, users, strict=False):
        if str(state).rpartition(".")[2] == "submitted":
            yield _Answer(value, who)


def _compares(value: Any, record: Record) -> bool:
    """Whether a response ranks, or names a field, rather than rate one."""
    return isinstance(value, list) or (isinstance(value, str) and value in record)


def _ranked(value: Any, record: Record, options: Options) -> list[str]:
    """The names of the fields that a response compares, the best first; none where it prefers none."""
    if isinstance(value, list):
        # Version 1 has ranks beside the names, version 2 the names alone.
        ranked = [part for part in value if isinstance(part, dict) and isinstance(part.get("rank"), int)]
        if value and len(ranked) == len(value):
            value = sorted(ranked, key=lambda part: part["rank"])
            value = value if value[0]["rank"] != value[-1]["rank"] else []
        names = [str(part.get("value") if isinstance(part, dict) else part) for part in value]
        return names if len(names) > 1 and all(name in record for name in names) else []
    if not isinstance(value, str) or value not in record:
        return []
    prompts = {options.column_map.get("prompt"), *PROMPTS}
    others = [name for name in _texts(record) if name != value and name not in prompts]
    return [value, others[0]] if len(others) == 1 else []


def _texts(record: Record) -> list[str]:
    """The fields that hold text; Argilla's own columns and those of questions do not count."""
    own = ("id", "_server_id", "status", "inserted_at", "updated_at")
    return [key for key, value in record.items() if isinstance(value, str) and key not in own and "." not in key]


def _compared(row: int, record: Record, given: list[_Answer], options: Options, report: DataReport) -> Iterator[Pair]:
    ranked = [names for answer in given if (names := _ranked(answer.value, record, options))]
    choices = settled([(names[0], names[-1]) for names in ranked], options.raters)
    if not choices:
        why = f"its raters disagree (--raters {options.raters})" if ranked else "a response that prefers no field"
        report.drop(why, row)
    for best, worst in choices:
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
