"""Column access to tokenised responses, and from rows to padded tensors."""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import numpy as np
import torch
from torch import Tensor

MicroBatch = dict[str, Tensor]
"""What `Responses.collate` and `packed` make."""


class Responses:
    """Column access to a tokenised dataset: one response by number, without copying the others.

    Args:
        dataset: Columns `input_ids`, `completion_mask`, `label`, `end`, and `ref_logps` (one float32 per scored
            token) where the loss needs a reference.

    Raises:
        ValueError: If a row's reference does not have one value per scored token.
    """

    def __init__(self, dataset: datasets.Dataset) -> None:
        self.ids, self.starts = ragged_column(dataset, "input_ids")
        self.masks, _ = ragged_column(dataset, "completion_mask")
        self.labels = np.asarray(dataset["label"], dtype=bool)
        self.ends = np.asarray(dataset["end"], dtype=np.int64)
        self.rows = np.asarray(dataset["row"], dtype=np.int64)
        self.lengths = np.diff(self.starts)
        self.scored = np.add.reduceat(self.masks, self.starts[:-1], dtype=np.int64) if len(self) else self.lengths
        """(n,) scored tokens of each."""
        self.ref_logps: np.ndarray | None = None
        if "ref_logps" in dataset.column_names:
            self.ref_logps, self.ref_starts = ragged_column(dataset, "ref_logps")
            values = np.diff(self.ref_starts)
            if len(wrong := np.flatnonzero(values != self.scored)):
                row = wrong[0]
                raise ValueError(
                    f"Response {row} has {values[row]} reference values for {self.scored[row]} scored tokens "
                    f"({len(wrong)} such responses): the reference was computed on other tokens."
                )

    def __len__(self) -> int:
        return len(self.labels)

    def tokens(self, row: int) -> np.ndarray:
        """Token ids of `row`."""
        return self.ids[self.starts[row] : self.starts[row + 1]]

    def mask(self, row: int) -> np.ndarray:
        """Which tokens of `row` are scored."""
        return self.masks[self.starts[row] : self.starts[row + 1]]

    def reference(self, row: int) -> np.ndarray:
        """One float32 per scored token of `row`."""
        assert self.ref_logps is not None
        return self.ref_logps[self.ref_starts[row] : self.ref_starts[row + 1]]

    def collate(self, rows: Sequence[int], pad_token_id: int | None) -> MicroBatch:
        """Tensors of `rows`, padded on the right to the longest; any token does, for it is masked.

        Without rows it is one row with nothing scored: a rank that has no share of a step joins with it.
        """
        lengths = torch.tensor([int(self.lengths[row]) for row in rows] or [2])
        inside = torch.arange(int(lengths.max())) < lengths[:, None]
        ids, scored = torch.full(inside.shape, pad_token_id or 0), torch.zeros_like(inside)
        if rows:
            ids[inside] = torch.from_numpy(np.concatenate([self.tokens(row) for row in rows]).astype(np.int64))
            scored[inside] = torch.from_numpy(np.concatenate([self.mask(row) for row in rows]))
        batch = {"input_ids": ids, "attention_mask": inside.long(), "completion_mask": scored}
        for name, values, none in (("label", self.labels, False), ("end", self.ends, -1), ("row", self.rows, -1)):
            batch[name] = torch.tensor([values[row].item() for row in rows] or [none])
        if self.ref_logps is not None:
            batch["ref_logps"] = torch.zeros(inside.shape)
            if rows:
                references = np.concatenate([self.reference(row) for row in rows])
                batch["ref_logps"][scored] = torch.from_numpy(references.astype(np.float32))
        return batch


def packed(batch: MicroBatch) -> MicroBatch:
    """The responses of a padded `batch` one after another in one row, without padding, as the model shall see them.

    Returns:
        `input_ids`, `attention_mask` (all ones) and `position_ids` (1, N), positions starting at 0 in each response;
        `starts` (B,), where the responses begin. What is said of a response stays in its own row: `completion_mask`
        and `ref_logps` (B, T), `label` and `end` (B,).
    """
    inside = batch["attention_mask"].bool()
    columns = torch.arange(inside.shape[1], device=inside.device).expand_as(inside)
    row = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"], "position_ids": columns}
    lengths = inside.sum(1)
    starts = lengths.cumsum(0) - lengths
    return batch | {name: values[inside][None] for name, values in row.items()} | {"starts": starts}


def ragged_column(dataset: datasets.Dataset, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A list column as (values of all rows, offsets (rows + 1,)), without copying where Arrow allows it."""
    column = dataset.with_format("arrow")[:].column(name).combine_chunks()
    offsets = column.offsets.to_numpy()
    values = column.values.slice(offsets[0], offsets[-1] - offsets[0]) if len(offsets) else column.values
    return values.to_numpy(zero_copy_only=False), offsets.astype(np.int64) - int(offsets[0])
