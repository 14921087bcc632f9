"""The rows of a method as Parquet: what stands in them, written and read piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bnf_align.analysis.shifts import MEASURES
from bnf_align.outputs import replacing

NUMBERS = pa.list_(pa.float32())
SCHEMA = pa.schema(
    {
        "id": pa.string(),  # row and side
        "item": pa.int64(),  # the row of the file, from 0
        "side": pa.string(),  # chosen, rejected, up, down; answer where the rows have no labels
        "label": pa.bool_(),  # null where the rows have no labels
        "prompt": pa.string(),  # all that stands before the first scored token
        "token_ids": pa.list_(pa.int32()),
        "pieces": pa.list_(pa.string()),  # the text of each token
        "tokens": pa.int64(),  # scored ones
        "logps": NUMBERS,  # nats, of the method's model, at temperature 1
        "ref_logps": NUMBERS,  # nats, of the reference
        "logits": NUMBERS,
        "ref_logits": NUMBERS,
        "weights": NUMBERS,  # BNF weight, 0 to 1
        **dict.fromkeys(MEASURES, pa.float64()),  # null where there is none
    }
)
"""The columns of `methods/NAME.parquet`; lists have one entry for each scored token."""

ROWS = 256
"""Rows of a group: what is in memory at a time."""


def write_table(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write `rows`, a group at a time; the file appears when it is whole."""
    rows = iter(rows)
    with replacing(path) as (temporary,), pq.ParquetWriter(temporary, SCHEMA) as writer:
        while group := list(islice(rows, ROWS)):
            writer.write_table(pa.Table.from_pylist(group, schema=SCHEMA))
    return path


def read_rows(path: str | Path, *columns: str) -> Iterator[dict[str, Any]]:
    """The rows of a file, or these columns of them, a group in memory at a time."""
    with pq.ParquetFile(path) as file:
        for group in file.iter_batches(ROWS, columns=list(columns) or None):
            yield from group.to_pylist()


def column(path: str | Path, name: str) -> np.ndarray:
    """All values of a column of numbers, (responses,), without nulls."""
    return pq.read_table(path, columns=[name]).column(0).drop_null().to_numpy()


def token_columns(path: str | Path, *names: str) -> Iterator[list[np.ndarray]]:
    """Columns of lists, each flat, (tokens,); a group of responses in memory at a time."""
    with pq.ParquetFile(path) as file:
        for group in file.iter_batches(ROWS, columns=list(names)):
            yield [group.column(name).flatten().to_numpy() for name in names]
