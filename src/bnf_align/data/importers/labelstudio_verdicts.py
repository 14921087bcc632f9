"""What people said of a task of Label Studio's: the results of its annotations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from bnf_align.data.importers.files import Record
from bnf_align.data.importers.json_min import READ
from bnf_align.data.importers.shape import dicts, mapping


class Verdict(NamedTuple):
    """One result of one annotation."""

    control: str
    kind: str
    targets: list[str]
    value: Record
    annotation: Record


def answered(task: Record) -> list[Record]:
    """The annotations of a task that hold results."""
    return [annotation for annotation in dicts(task.get("annotations")) if isinstance(annotation.get("result"), list)]


def verdicts(task: Record) -> Iterator[Verdict]:
    """What people said of a task, annotation by annotation; cancelled ones are not read."""
    for annotation in answered(task):
        if annotation.get("was_cancelled") is True:
            continue
        for result in dicts(annotation["result"]):
            if result.get("type") in tuple(READ):
                targets = [name.strip() for name in str(result.get("to_name") or "").split(",")]
                control = str(result.get("from_name") or result["type"])
                yield Verdict(control, result["type"], targets, mapping(result.get("value")), annotation)
