"""Rows of Arrow tables as their author wrote them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from bnf_align.records import BadInput

BATCH = 1000


def dataset_rows(dataset: datasets.Dataset) -> Iterator[dict[str, Any]]:
    """The rows of an Arrow dataset as their author wrote them.

    Arrow gives every struct of a column the same keys, so a message without `name` comes back with `name: None`, and
    a `ClassLabel` comes back as a number whose meaning is in the schema alone: with names ("up", "down"), 0 is an up.
    """
    classes = {name: kind for name, kind in dataset.features.items() if isinstance(kind, datasets.ClassLabel)}
    for row in dataset.with_format(None):
        for name, kind in classes.items():
            row[name] = None if row[name] is None else kind.int2str(row[name])
        yield {name: _without_none(value) for name, value in row.items()}


def parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, a thousand in memory at a time; BadInput if it is not a whole Parquet file."""
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(BATCH):
                yield from dataset_rows(datasets.Dataset(pa.Table.from_batches([batch])))
    # The last three: texts that are no UTF-8, and a description of the columns that is none.
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        raise BadInput(f"{path} cannot be read as Parquet: {error}") from error


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(part) for key, part in value.items() if part is not None}
    return [_without_none(part) for part in value] if isinstance(value, list) else value
