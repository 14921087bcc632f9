"""Label Studio's export JSON-MIN, a row per annotation, as the tasks of its full export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from bnf_align.data.importers.files import Record, records_of
from bnf_align.data.importers.shape import dicts

COLUMNS = ("id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement")
"""What Label Studio writes beside the data and the controls."""
READ = {"pairwise": "selected", "choices": "choices", "rating": "rating"}
"""Type of a control -> where its value stands."""


def is_json_min(record: Record) -> bool:
    """Whether a record has the columns that JSON-MIN adds to the data, in its order; CSV sorts them."""
    names = list(record)
    return {*COLUMNS[:-1]} <= record.keys() and names.index("id") < names.index("annotator")


def tasks(paths: Sequence[Path]) -> Iterator[tuple[int, Record]]:
    """The tasks of files of both exports; in JSON-MIN the annotations of a task stand one after the other."""
    for key, group in groupby(records_of(paths), key=_task):
        if key is None:
            yield from group
        else:
            rows = list(group)
            yield rows[0][0], _as_task([record for _, record in rows])


def _task(numbered: tuple[int, Record]) -> Any:
    """What the annotations of one task share: its number, and its data, as numbers repeat from project to project."""
    record = numbered[1]
    if not is_json_min(record):
        return None
    controls = _controls(record)
    return {name: value for name, value in record.items() if name not in controls and name not in COLUMNS[1:]}


def _controls(record: Record) -> list[str]:
    """The names of the controls, which the converter writes between the task's number and the annotator's."""
    names = list(record)
    return names[names.index("id") + 1 : names.index("annotator")]


def _as_task(records: Sequence[Record]) -> Record:
    first = records[0]
    data = {name: value for name, value in first.items() if name not in COLUMNS}
    return {"id": first["id"], "data": data, "annotations": [_annotation(record) for record in records]}


def _annotation(record: Record) -> Record:
    results = [result for name in _controls(record) for result in _results(name, record[name])]
    who = {"completed_by": record["annotator"], "created_at": record.get("created_at")}
    return {"id": record["annotation_id"], "was_cancelled": False, "result": results, **who}


def _results(control: str, value: Any) -> Iterator[Record]:
    """The results of a control: one choice is its bare text, all else an object or a list of objects."""
    if isinstance(value, str) and value:
        value = {"choices": [value]}
    for part in dicts(value if isinstance(value, list) else [value]):
        yield from ({"from_name": control, "type": kind, "value": part} for kind, key in READ.items() if key in part)
