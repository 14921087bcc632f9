"""What a report is made from: the records that other verbs write, told apart by what is in them."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import UnionType
from typing import Any, Literal

from bnf_align.records import BadInput, is_number

logger = logging.getLogger(__name__)

Tabled = Literal["ranking", "result", "run", "plan", "comparison"]
Shown = Literal["quickstart", "health", "card", "analysis", "samples", "tokens", "claims"]
Kind = Tabled | Shown | Literal["unread", "unknown"]

# The keys that only this kind of object has, and what writes it.
SHAPES: dict[Kind, tuple[set[str], str]] = {
    "ranking": ({"task", "models"}, "`bnf-align eval rank --json`"),
    "result": ({"task", "version", "metrics"}, "`bnf-align eval score --json`"),
    "run": ({"loss_type", "train_seconds", "arguments"}, "`bnf-align train` (its run.json)"),
    "plan": ({"memory_bytes", "flops", "workload"}, "`bnf-align plan --json`"),
    "comparison": ({"methods", "measures", "differences"}, "`bnf-align compare` (its compare.json)"),
    "quickstart": ({"measures", "conclusion", "preferences"}, "`bnf-align quickstart` (its quickstart.json)"),
    "health": ({"colour", "text", "history"}, "`bnf-align train` (its health.json)"),
    "card": ({"candidates", "left_out", "pair_similarity"}, "`bnf-align select` (its data card)"),
    "analysis": ({"reference", "methods", "bins"}, "`bnf-align analyze` (its summary.json)"),
}
TYPES: dict[str, type | UnionType] = {
    **dict.fromkeys(
        ("metrics", "models", "provenance", "dropped", "arguments", "memory_bytes", "flops", "methods"), dict
    ),
    **dict.fromkeys(("items", "notes", "differences", "tax", "seeds", "history"), list),
    **dict.fromkeys(("left_out", "bins", "data", "versions"), dict),
    "measures": list | dict,
    **dict.fromkeys(("plan", "hours"), dict | None),
    **dict.fromkeys(("train_seconds", "devices"), int | float),
    "peak_memory_bytes": int | float | None,
    "loss_type": str,
}
"""What the keys hold that a report looks into, in documents of every kind."""
INNER: dict[Kind, tuple[str, ...]] = {
    "ranking": ("models",),
    "result": ("items",),
    "comparison": ("methods", "measures", "differences", "tax"),
    "quickstart": ("measures",),
    "health": ("history",),
    "analysis": ("methods",),
}
"""Keys that hold objects, in a list or by name."""
OF_MODELS = {
    *("config", "generation_config", "tokenizer", "tokenizer_config", "special_tokens_map", "added_tokens", "vocab"),
    *("trainer_state", "adapter_config", "model.safetensors.index", "preprocessor_config", "processor_config"),
}
"""JSON files of a model's folder, which say nothing that a report shows."""
LARGEST = 1e100
"""No record holds a larger number, and what is multiplied with another stays finite."""
SHOWN_TOKENS = 300
"""Responses of a method whose tokens are read."""
SOURCES = "what these write: " + ", ".join(source for _, source in SHAPES.values())


class NothingFound(BadInput):
    """A folder without a record, or without one yet."""


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
        models = self.data["models"] if self.kind == "ranking" else {}
        return {name: found.get("metrics", found) for name, found in models.items()}

    def metric(self, name: str, model: str | None = None) -> float | None:
        """A number of a result, or of `model` in a ranking; None where it is missing.

        Raises:
            BadInput: If it is no finite number.
        """
        metrics = self.data["metrics"] if model is None else self.models[model]
        value = metrics.get(name)
        if value is None:
            return None
        if not is_number(value):
            raise BadInput(f"{self.path}: {name} is {str(value)[:40]}, not a finite number. Score the answers again.")
        return float(value)


def read_documents(path: str | Path) -> list[Document]:
    """The documents of a file, or of every file of a folder and the folders in it.

    In a folder, a file that is broken is a document of the kind `unread`, a JSON file of no known kind one of the kind
    `unknown`; what a model's folder holds anyway (configs, tokenizers) is passed over.

    Raises:
        BadInput: If there is nothing to read, or a named file is broken or of no known kind.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(f"{path} does not exist. A report is made from {SOURCES}; or from folders of such files.")
    found = list(_folder(path)) if path.is_dir() else [_file(path)]
    if all(document.kind in ("unread", "unknown") for document in found):
        broken = "".join(f" {one.data['why']}" for one in found if one.kind == "unread")
        raise NothingFound(f"{path} has no file that a report is made from: {SOURCES}.{broken}")
    return found


def _folder(folder: Path) -> Iterator[Document]:
    for path in sorted(one for one in folder.rglob("*") if one.suffix in (".json", ".jsonl", ".parquet", ".csv")):
        try:
            if path.suffix == ".json" or _reader(path):
                yield _file(path)
        except Unread as error:
            logger.warning(f"Left out of the report, where its numbers will read 'not measured': {error}")
            yield Document("unread", path, {"why": str(error)})
        except BadInput as error:
            logger.debug(f"Passed over: {error}")
            if path.stem not in OF_MODELS and not path.name.endswith(".card.json"):
                yield Document("unknown", path, {})


def _file(path: Path) -> Document:
    if reader := _reader(path):
        kind, read = reader
        try:
            return Document(kind, path, read(path))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Unread(f"{path} cannot be read ({type(error).__name__}: {error}): was it cut short?") from None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Unread(f"{path} is not a JSON file ({error}): was it cut short?") from None
    keys = data.keys() if isinstance(data, dict) else set()
    known = next((kind for kind, (needed, _) in SHAPES.items() if needed <= keys), None)
    if known is None:
        raise BadInput(f"{path} is not what a report is made from: {SOURCES}.")
    if (odd := _odd(known, data)) is not None:
        raise Unread(f"{path}: {odd!r} is not what {SHAPES[known][1]} writes there.")
    return Document(known, path, data)


def _odd(kind: Kind, data: dict[str, Any]) -> str | None:
    """The first key that holds something of another type than it should."""
    odd = [name for name, type_ in TYPES.items() if name in data and not isinstance(data[name], type_)]
    odd += [name for name, value in _numbers(data) if abs(value) > LARGEST]
    odd += [name for name in ("train_seconds", "devices") if data.get(name) != data.get(name)]  # NaN
    parts = [part for part in (data, data.get("arguments"), data.get("provenance")) if isinstance(part, dict)]
    odd += [name for part in parts for name in ("model", "output_dir") if not isinstance(part.get(name), str | None)]
    if kind == "ranking":
        models = data["models"].values() if isinstance(data["models"], dict) else ()
        odd += ["models" for one in models if isinstance(one, dict) and not isinstance(one.get("metrics", {}), dict)]
    if odd or (kind == "comparison" and not isinstance(data["measures"], list)):
        return odd[0] if odd else "measures"
    inner = [
        (inner, one)
        for name in INNER.get(kind, ())
        for found in [data.get(name, [])]
        for inner, one in (found.items() if isinstance(found, dict) else ((name, one) for one in found))
    ]
    if kind == "quickstart" and not all({"before", "after", "change"} <= set(one) for _, one in inner):
        return "measures"
    return next((name for name, value in inner if not isinstance(value, dict)), None)


def _numbers(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number of a record, with the key that it stands under."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _numbers(one, key)
    elif isinstance(value, list):
        for one in value:
            yield from _numbers(one, name)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, value


def _reader(path: Path) -> tuple[Kind, Callable[[Path], dict[str, Any]]] | None:
    """What reads a file that is no JSON object, told by its name."""
    if path.name == "samples.jsonl":
        return "samples", _samples
    if path.suffix == ".parquet" and path.parent.name == "methods":
        return "tokens", _tokens
    return ("claims", _claims) if path.name == "claims.csv" else None


def _samples(path: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    for number, line in enumerate(lines):
        if "prompt" not in line or not isinstance(line.get("before", line.get("after")), str | None):
            raise ValueError(f"line {number + 1} has no prompt with texts before and after")
    whole = [line for line in lines if isinstance(line.get("before"), str) and isinstance(line.get("after"), str)]
    return {"rows": whole, "lacking": len(lines) - len(whole)}


def _tokens(path: Path) -> dict[str, Any]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    columns = ["id", "side", "label", "prompt", "pieces", "logps", "ref_logps", "weights"]
    try:
        file = ParquetFile(path)
        if missing := set(columns) - set(file.schema_arrow.names):
            raise ValueError(f"no column {', '.join(sorted(missing))}")
        rows = next(file.iter_batches(SHOWN_TOKENS, columns=columns)).to_pylist() if file.metadata.num_rows else []
    except ArrowException as error:
        raise ValueError(str(error)) from None
    return {"rows": rows, "total": file.metadata.num_rows}


def _claims(path: Path) -> dict[str, Any]:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = ("claim", "figure", "low", "high", "threshold", "holds")
    return {"rows": [{name: row[name] for name in names} for row in rows]}
