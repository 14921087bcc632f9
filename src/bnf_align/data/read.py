"""Raw rows from where they lie: a JSON, JSON Lines, CSV or Parquet file, a folder, or a name on the hub.

Text is read row by row with the standard library: Arrow would want one type for every value of a column, and so fail
on, or rewrite, rows whose columns differ or whose labels are 1 here and "true" there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import datasets

from bnf_align.data.arrow import dataset_rows
from bnf_align.records import BadInput, did_you_mean
from bnf_align.sources import SOURCES, ImportedRows, Options, hold_own_rows, matching
from bnf_align.sources.files import KINDS, files_in, kind_of, records_of

logger = logging.getLogger(__name__)

SPLIT_NAMES = {
    "train": "train",
    "test": "test",
    "validation": "validation",
    "valid": "validation",
    "dev": "validation",
}
"""How the name of a split's file begins."""


def iter_rows(source: str | Path, split: str = "train", options: Options | None = None) -> Iterable[dict[str, Any]]:
    """The rows of `source`, one after the other, as they are.

    Args:
        source: A .json (list), .jsonl, .csv or .parquet file, all but the last also .gz; a folder written by
            `datasets.save_to_disk` or one of such files; or the name of a dataset on the hub.
        split: Which split, where the source has several. A single file is its own train split.
        options: If given, the export of a product that an importer knows for certain comes as `ImportedRows`.

    Raises:
        BadInput: If there is no such source or split, it is empty, or a line of it cannot be read.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _folder_rows(path, split, options)
    if path.is_file():
        _only_train(path, split)
        if kind_of(path) is None:
            raise BadInput(f"{path}: this kind of file is not read. Known: {', '.join(KINDS)} (also .gz).")
        return _file_rows([path], options)
    # A name on the hub is `name` or `owner/name`.
    if kind_of(path) is not None or str(source).startswith((".", "/", "~")) or str(source).count("/") > 1:
        raise BadInput(_missing(path))
    try:
        dataset = datasets.load_dataset(str(source), split=split)
    except Exception as error:  # the hub client raises a dozen unrelated types: offline, gated, unknown, no such split
        raise BadInput(
            f"{source}: there is no such file or folder in {Path.cwd()}, and as a dataset of the hub (split "
            f"{split!r}) it cannot be had: {type(error).__name__}: {error}"
        ) from error
    return _rows_of(dataset, source)


def _file_rows(files: Sequence[Path], options: Options | None) -> Iterable[dict[str, Any]]:
    """The rows of files, through an importer where that is wanted and the one that knows them is certain."""
    if options is not None and not options.column_map:
        try:
            names = [] if hold_own_rows(files) else matching(files)
        except BadInput:  # a file that cannot be read is named when its rows are
            names = []
        if len(names) == 1:
            return ImportedRows(SOURCES[names[0]], files, options)
    return (row for _, row in records_of(files))


def _rows_of(dataset: datasets.Dataset, source: str | Path) -> Iterator[dict[str, Any]]:
    if not len(dataset):
        raise BadInput(f"{source} is empty: it has 0 rows.")
    return dataset_rows(dataset)


def _only_train(path: Path, split: str) -> None:
    # A file asked for its test split must not answer with the rows it is trained on.
    if split != "train":
        raise BadInput(
            f"{path} has no split {split!r}: all its rows are train. Name a file of its own for those of {split}, or "
            "hold some of these out with train's --eval_fraction."
        )


def _no_split(source: str | Path, split: str, splits: Iterable[str]) -> str:
    return (
        f"{source} has no split {split!r}. It has: {', '.join(splits)}. "
        "Name one with --dataset_train_split (or --dataset_test_split for the evaluation)."
    )


def _folder_rows(folder: Path, split: str, options: Options | None) -> Iterable[dict[str, Any]]:
    if (folder / "dataset_dict.json").is_file():
        splits = datasets.load_from_disk(str(folder))
        if split not in splits:
            raise BadInput(_no_split(folder, split, splits))
        return _rows_of(splits[split], folder)
    if (folder / "dataset_info.json").is_file() and (folder / "state.json").is_file():
        _only_train(folder, split)
        return _rows_of(datasets.load_from_disk(str(folder)), folder)
    return _file_rows(_files_of_split(folder, split), options)


def _files_of_split(folder: Path, split: str) -> list[Path]:
    """Data files whose name starts with the split's, or all of them (as train) where none is named after a split."""
    files = files_in(folder)
    if not files:
        raise BadInput(f"{folder} holds no data file. Looked for {', '.join(KINDS)}; it holds {_holds(folder)}.")
    names = {
        path: next((name for key, name in SPLIT_NAMES.items() if path.name.startswith(key)), None) for path in files
    }
    if not any(names.values()):
        _only_train(folder, split)
        return files
    chosen = [path for path in files if path.name.startswith(split) or names[path] == split]
    others = [path.name for path in files if names[path] is None and path not in chosen]
    unread = f" Not read, as named after no split: {_listed(others)}" if others else ""
    if not chosen:
        raise BadInput(_no_split(folder, split, sorted({name for name in names.values() if name})) + unread)
    if others:
        _warn_once(f"{folder}: {len(chosen):,} of its files are the split {split!r}.{unread}")
    return chosen


@cache
def _warn_once(text: str) -> None:
    """Say it the first time only: a source is read several times."""
    logger.warning(text)


def _missing(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"There is no file {path}: its folder {folder} does not exist."
    return f"There is no file {path}. {did_you_mean(path) or f'{folder.resolve()} holds {_holds(folder)}.'}"


def _holds(folder: Path) -> str:
    return _listed(sorted(path.name for path in folder.iterdir())) or "nothing"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
