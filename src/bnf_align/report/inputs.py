"""What a report is made from: results, rankings, runs, plans and comparisons, told apart by what is in them."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, Literal

from bnf_align.records import BadInput

logger = logging.getLogger(__name__)

Kind = Literal["ranking", "result", "run", "plan", "comparison"]

# The keys that only this kind of object has, and what writes it.
SHAPES: dict[Kind, tuple[set[str], str]] = {
    "ranking": ({"task", "models"}, "`bnf-align eval rank --json`"),
    "result": ({"task", "version", "metrics"}, "`bnf-align eval score --json`"),
    "run": ({"loss_type", "train_seconds", "arguments"}, "`bnf-align train` (its run.json)"),
    "plan": ({"memory_bytes", "flops", "workload"}, "`bnf-align plan --json`"),
    "comparison": ({"methods", "measures", "differences"}, "`bnf-align compare` (its compare.json)"),
}
TYPES: dict[str, type | UnionType] = {
    **dict.fromkeys(
        ("metrics", "models", "provenance", "dropped", "arguments", "memory_bytes", "flops", "methods"), dict
    ),
    **dict.fromkeys(("items", "notes", "measures", "differences", "tax", "seeds"), list),
    **dict.fromkeys(("plan", "hours"), dict | None),
    **dict.fromkeys(("train_seconds", "devices"), int | float),
    "peak_memory_bytes": int | float | None,
    "loss_type": str,
}
"""What the keys hold that a report looks into, in documents of every kind."""
SOURCES = "what these write: " + ", ".join(source for _, source in SHAPES.values())


class Unread(BadInput):
    """A file that is broken, or of a kind that a report is made from and not as it should be."""


@dataclass(frozen=True)
class Document:
    """One JSON object of a known kind."""

    kind: Kind
    path: Path
    data: dict[str, Any]

    @cached_property
    def file(self) -> Path:
        """The file itself, however its path is written."""
        return self.path.resolve()

    @property
    def task(self) -> str:
        """The benchmark of a result or ranking; a run has none."""
        return str(self.data.get("task", ""))

    def provenance(self, model: str | None = None) -> dict[str, Any]:
        """Model, wording, judge, seed and command, as far as they are recorded; of one model of a ranking."""
        own = self.data["models"][model].get("provenance") if model is not None else None
        return (self.data.get("provenance") or {}) | (own or {})

    @property
    def models(self) -> dict[str, dict[str, Any]]:
        """Model -> metrics, of a ranking."""
        return {name: found.get("metrics", found) for name, found in self.data.get("models", {}).items()}

    def metric(self, name: str, model: str | None = None) -> float | None:
        """A number of a result, or of `model` in a ranking; None where it is missing.

        Raises:
            BadInput: If it is no finite number.
        """
        metrics = self.data["metrics"] if model is None else self.models[model]
        value = metrics.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise BadInput(f"{self.path}: {name} is {str(value)[:40]}, not a finite number. Score the answers again.")
        return float(value)


def read_documents(path: str | Path) -> list[Document]:
    """The documents of a JSON file, or of every JSON file of a folder and the folders in it.

    Other JSON files of a folder (configs, tokenizers) are passed over; a file that is named must be of a known kind.

    Raises:
        BadInput: If there is nothing to read, or a named file is broken or of no known kind.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(f"{path} does not exist. A report is made from {SOURCES}; or from folders of such files.")
    found = list(_folder(path) if path.is_dir() else _file(path))
    if not found:
        raise BadInput(f"{path} has no file that a report is made from: {SOURCES}.")
    return found


def _folder(folder: Path) -> Iterator[Document]:
    for path in sorted(folder.rglob("*.json")):
        try:
            yield from _file(path)
        except Unread as error:
            logger.warning(f"Left out of the report, where its numbers will read 'not measured': {error}")
        except BadInput as error:  # a model's folder holds many files that have nothing to do with a report
            logger.info(f"Passed over: {error}")


def _file(path: Path) -> Iterator[Document]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unread(f"{path} is not a JSON file ({error}): was it cut short?") from None
    keys = data.keys() if isinstance(data, dict) else set()
    kind = next((kind for kind, (needed, _) in SHAPES.items() if needed <= keys), None)
    if kind is None:
        raise BadInput(f"{path} is not what a report is made from: {SOURCES}.")
    if odd := _odd(data):
        raise Unread(f"{path}: {odd!r} is not what {SHAPES[kind][1]} writes there.")
    yield Document(kind, path, data)


def _odd(data: dict[str, Any]) -> str | None:
    """The first key that holds something of another type than it should."""
    odd = [name for name, type_ in TYPES.items() if name in data and not isinstance(data[name], type_)]
    if odd:
        return odd[0]
    inner = [one for name in ("models", "methods") for one in data.get(name, {}).items()]
    inner += [(name, one) for name in ("items", "measures", "differences", "tax") for one in data.get(name, [])]
    return next((name for name, value in inner if not isinstance(value, dict)), None)
