"""Raw rows from where they lie: a JSON, JSON Lines or Parquet file, a folder, or a name on the hub.

JSON and JSON Lines are read with the standard library, a line at a time: Arrow would want one type for every value of
a column, and so fail on, or rewrite, rows whose columns differ or whose labels are 1 here and "true" there.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from bnf_align.records import BadInput

KINDS = (".json", ".json.gz", ".jsonl", ".jsonl.gz", ".parquet")
ROW_COLUMNS = {"prompt", "chosen", "completion", "messages", "conversations", "input"}
SPLIT_NAMES = {
    "train": "train",
    "test": "test",
    "validation": "validation",
    "valid": "validation",
    "dev": "validation",
}

Row = dict[str, Any]


def iter_rows(source: str | Path, split: str = "train") -> Iterator[Row]:
    """The rows of `source`, one after the other, as they are.

    Args:
        source: A .json (list), .jsonl or .parquet file, the first two also .gz; a folder written by
            `datasets.save_to_disk` or one of such files; or the name of a dataset on the hub.
        split: Which split, where the source has several. A single file is its own train split.

    Raises:
        BadInput: If there is no such source or split, it is empty, or a line of it cannot be read.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        rows = _folder_rows(path, split)
    elif path.is_file():
        _only_train(path, split)
        rows = _file_rows(path)
    elif _looks_like_a_file(str(source)):
        raise BadInput(_missing(path))
    else:
        rows = _hub_rows(str(source), split)
    return _at_least_one(rows, source)


def dataset_rows(dataset: datasets.Dataset) -> Iterator[Row]:
    """The rows of an Arrow dataset as their author wrote them.

    Arrow gives every struct of a column the same keys, so a message without `name` comes back with `name: None`, and
    a `ClassLabel` comes back as a number whose meaning is in the schema alone: with names ("up", "down"), 0 is an up.
    """
    classes = {name: kind for name, kind in dataset.features.items() if isinstance(kind, datasets.ClassLabel)}
    for row in dataset.with_format(None):
        for name, kind in classes.items():
            row[name] = None if row[name] is None else kind.int2str(row[name])
        yield {name: _without_none(value) for name, value in row.items()}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(part) for key, part in value.items() if part is not None}
    return [_without_none(part) for part in value] if isinstance(value, list) else value


def _at_least_one(rows: Iterator[Row], source: str | Path) -> Iterator[Row]:
    count = 0
    for count, row in enumerate(rows, start=1):  # noqa: B007 (the count is what is wanted after the loop)
        yield row
    if count == 0:
        raise BadInput(f"{source} is empty: it has 0 rows.")


def _only_train(path: Path, split: str) -> None:
    # A file asked for its test split must not answer with the rows it is trained on.
    if split != "train":
        raise BadInput(
            f"{path} has no split {split!r}: all its rows are train. Hold some of them out with --eval_fraction."
        )


# Files


def _kind(path: Path) -> str | None:
    return next((kind for kind in KINDS if path.name.lower().endswith(kind)), None)


def _file_rows(path: Path) -> Iterator[Row]:
    kind = _kind(path)
    if kind is None:
        raise BadInput(f"{path}: this kind of file is not read. Known: {', '.join(KINDS)}.")
    if kind == ".parquet":
        return _parquet_rows(path)
    return _json_lines(path) if kind.startswith(".jsonl") else _json_rows(path)


def _parquet_rows(path: Path) -> Iterator[Row]:
    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise BadInput(f"{path} cannot be read as Parquet: {error}") from error
    yield from dataset_rows(datasets.Dataset(table))


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, gzip or not."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    number = 0
    try:
        with opened(path, "rt", encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):  # noqa: B007 (for the messages below)
                yield str(line)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{path}: the gzip file is broken or cut short after line {number} ({error}).") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text near line {number + 1} ({error.reason}).") from error


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise BadInput(
                f"{path}, line {number}: not valid JSON ({error.msg}, column {error.colno}): {_excerpt(line)}. "
                "Every line must be one JSON object."
            ) from error
        yield _object(row, f"{path}, line {number}")


def _json_rows(path: Path) -> Iterator[Row]:
    """A .json file: a list of rows, an object with one list of them, or (as many are) JSON Lines by another name."""
    text = "".join(_lines(path))
    try:
        value = json.loads(text) if text.strip() else []
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("{"):
            yield from _json_lines(path)
            return
        raise BadInput(f"{path}, line {error.lineno}: not valid JSON ({error.msg}, column {error.colno}).") from error
    for number, row in enumerate(_list_of_rows(value)):
        yield _object(row, f"{path}, row {number}")


def _list_of_rows(value: Any) -> list[Any]:
    if isinstance(value, list):
        return value
    if isinstance(value, dict) and not ROW_COLUMNS & value.keys():  # {"version": 1, "data": [...]}
        lists = [part for part in value.values() if isinstance(part, list)]
        return lists[0] if len(lists) == 1 else [value]
    return [value]


def _object(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        raise BadInput(f"{place}: a row must be a JSON object with named columns, not {type(row).__name__}.")
    return row


def _excerpt(line: str) -> str:
    line = line.strip()
    return line if len(line) <= 60 else f"{line[:30]} ... {line[-25:]}"


# Folders


def _folder_rows(folder: Path, split: str) -> Iterator[Row]:
    if (folder / "dataset_dict.json").is_file():
        splits = datasets.load_from_disk(str(folder))
        if split not in splits:
            raise BadInput(_no_split(folder, split, list(splits)))
        return dataset_rows(splits[split])
    if (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file():
        _only_train(folder, split)
        return dataset_rows(datasets.load_from_disk(str(folder)))
    return (row for file in _files_of_split(folder, split) for row in _file_rows(file))


def _files_of_split(folder: Path, split: str) -> list[Path]:
    """Data files whose name starts with the split's, or all of them (as train) where none is named after a split."""
    files = [path for path in sorted(folder.rglob("*")) if _kind(path) and not path.name.startswith(".")]
    if not files:
        raise BadInput(f"{folder} holds no data file. Looked for {', '.join(KINDS)}; it holds {_holds(folder)}.")
    names = {
        path: next((name for key, name in SPLIT_NAMES.items() if path.name.startswith(key)), None) for path in files
    }
    if not any(names.values()):
        _only_train(folder, split)
        return files
    chosen = [path for path in files if path.name.startswith(split) or names[path] == split]
    if not chosen:
        raise BadInput(_no_split(folder, split, sorted({name for name in names.values() if name})))
    return chosen


def _no_split(source: str | Path, split: str, splits: list[str]) -> str:
    return (
        f"{source} has no split {split!r}. It has: {', '.join(splits)}. "
        "Name one with --dataset_train_split (or --dataset_test_split for the evaluation)."
    )


# What is not there


def _looks_like_a_file(source: str) -> bool:
    """Whether `source` cannot be a hub name, which is `name` or `owner/name`."""
    return _kind(Path(source)) is not None or source.startswith((".", "/", "~")) or source.count("/") > 1


def _holds(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"


def _missing(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"There is no file {path}: its folder {folder} does not exist. Mend --dataset_name."
    near = get_close_matches(path.name, [other.name for other in folder.iterdir()], n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(near)}?" if near else f"{folder.resolve()} holds {_holds(folder)}."
    return f"There is no file {path}. {hint} Mend --dataset_name."


def _hub_rows(name: str, split: str) -> Iterator[Row]:
    """Rows of a dataset on the hub, downloaded into the usual cache of `datasets`."""
    try:
        dataset = datasets.load_dataset(name, split=split)
    except Exception as error:  # the hub client raises a dozen unrelated types: offline, gated, unknown, no such split
        raise BadInput(
            f"--dataset_name {name}: there is no such file or folder in {Path.cwd()}, and as a dataset of the hub "
            f"(split {split!r}) it cannot be had: {type(error).__name__}: {error}"
        ) from error
    return dataset_rows(dataset)
