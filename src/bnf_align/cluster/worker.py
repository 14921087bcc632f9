"""What runs on a worker: units in, and for each its answer or how it failed."""

from __future__ import annotations

import os
import pickle
import platform
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from bnf_align.records import BadInput

Answer = TypeVar("Answer")


class Worker:
    """An actor of `map_batches`.

    Args:
        load: Gives what answers a unit.
    """

    def __init__(self, load: Callable[[], Callable[[Any], Any]]) -> None:
        self._work = answer(load)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Numbered units to numbered answers."""
        return packed([(number, self._of(unit)) for number, unit in unpacked(table)])

    def _of(self, unit: Any) -> Any:
        return self._work if isinstance(self._work, Failure) else answer(partial(self._work, unit), of_unit=True)


@dataclass(frozen=True)
class Failure:
    """Travels as an answer: Ray would wrap an exception in its own and print the traceback of every layer."""

    error: BadInput
    traceback: str
    ends_all: bool
    """Other units would fail in the same way."""


def answer(question: Callable[[], Answer], of_unit: bool = False) -> Answer | Failure:
    """What `question` returns, or how it failed."""
    try:
        return question()
    except BadInput as error:
        return Failure(BadInput(f"{error} (on {platform.node()})"), "", ends_all=True)
    except Exception as error:  # any may come, and not every one can be pickled
        text = f"{type(error).__name__}: {error} (on {platform.node()})"
        return Failure(BadInput(text), traceback.format_exc(), ends_all=not of_unit)


def from_here(question: Callable[[], Answer]) -> Callable[[], Answer]:
    """`question`, asked in this process's folder wherever that is: relative paths mean there what they mean here."""
    return partial(_in_folder, os.getcwd(), question)


def _in_folder(folder: str, question: Callable[[], Answer]) -> Answer:
    if os.path.isdir(folder):
        os.chdir(folder)
    return question()


def packed(values: Sequence[Any]) -> pa.Table:
    """`values` as an Arrow table, because Ray never cuts or joins those it is given; each is a row of bytes."""
    return pa.table({"data": pa.array([pickle.dumps(value) for value in values], pa.binary())})


def unpacked(table: pa.Table) -> list[Any]:
    """The values of `packed`."""
    return [pickle.loads(data) for data in table.column("data").to_pylist()]
