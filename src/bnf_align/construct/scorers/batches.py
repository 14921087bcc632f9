"""All texts of all rows through a model in batches of like length, always the same ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import torch

logger = logging.getLogger(__name__)


Forward = Callable[[list[Any]], list[float]]
"""Texts, of any kind with a `length` in tokens -> a number each."""


class Limits(NamedTuple):
    """Of one forward pass."""

    rows: int = 64
    tokens: int = 2**18
    """Padding included: bounds the memory. A batch that runs out of memory all the same is halved."""

    def allow(self, rows: int, longest: int) -> bool:
        """Whether so many texts of that length go at a time; one always does."""
        return rows <= 1 or (rows <= self.rows and rows * longest <= self.tokens)


def values_in_batches(
    work: Sequence[tuple[str, Sequence[Any]]], done: Collection[str], limits: Limits, forward: Forward
) -> Iterator[list[tuple[str, list[float]]]]:
    """A number for every text, a batch of rows at a time, the longest first: what does not fit shows at once.

    The batches follow from the texts alone. One with all of its rows in `done` is left out, another is computed
    whole: so a resumed job gives, to the last bit in float32, what an uninterrupted one gives.

    Args:
        work: Row ids with their texts.
        done: Ids of finished rows.
        limits: Of a batch.
        forward: A batch of texts -> their numbers.
    """
    finished = set(done)
    for batch in _batches(work, limits):
        if finished.issuperset(name for name, _ in batch):
            continue
        values = iter(_values([text for _, texts in batch for text in texts], limits, forward))
        yield [(name, [next(values) for _ in texts]) for name, texts in batch]


def planned(work: Sequence[tuple[str, Sequence[Any]]], limits: Limits) -> list[list[str]]:
    """Ids of the rows of each batch of `values_in_batches`."""
    return [[name for name, _ in batch] for batch in _batches(work, limits)]


def _batches(work: Sequence[tuple[str, Sequence[Any]]], limits: Limits) -> Iterator[list[tuple[str, Sequence[Any]]]]:
    batch: list[tuple[str, Sequence[Any]]] = []
    texts = longest = 0
    for row in sorted(work, key=lambda row: -_longest(row[1])):
        longest = longest or _longest(row[1])
        texts += len(row[1])
        if batch and not limits.allow(texts, longest):
            yield batch
            batch, texts, longest = [], len(row[1]), _longest(row[1])
        batch.append(row)
    if batch:
        yield batch


def _longest(texts: Sequence[Any]) -> int:
    return max((text.length for text in texts), default=0)


def _values(texts: Sequence[Any], limits: Limits, forward: Forward) -> list[float]:
    """Numbers of the texts of one batch; a row with many candidates may take several passes."""
    values = [0.0] * len(texts)
    order = sorted(range(len(texts)), key=lambda number: -texts[number].length)
    while order:
        rows = len(order)
        while not limits.allow(rows, texts[order[0]].length):
            rows -= 1
        chunk, order = order[:rows], order[rows:]
        for number, value in zip(chunk, _halved([texts[number] for number in chunk], forward), strict=True):
            values[number] = value
    return values


def _halved(texts: list[Any], forward: Forward) -> list[float]:
    try:
        return forward(texts)
    except torch.OutOfMemoryError:
        if len(texts) == 1:
            raise
    # After the handler, whose traceback holds the batch's tensors.
    logger.warning(f"Out of memory with {len(texts)} texts at a time: they are done in two halves.")
    half = len(texts) // 2
    return _halved(texts[:half], forward) + _halved(texts[half:], forward)
