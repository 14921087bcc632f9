"""All texts of all rows through a model in batches of like length, always the same ones."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

from bnf_align.engines.local import Limits, in_halves

Forward = Callable[[list[Any]], list[float]]
"""Texts, of any kind with a `length` in tokens -> a number each."""


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
    for batch in batches(work, limits):
        if finished.issuperset(name for name, _ in batch):
            continue
        values = iter(_values([text for _, texts in batch for text in texts], limits, forward))
        yield [(name, [next(values) for _ in texts]) for name, texts in batch]


def batches(work: Sequence[tuple[str, Sequence[Any]]], limits: Limits) -> Iterator[list[tuple[str, Sequence[Any]]]]:
    """The rows of each batch of `values_in_batches`, with their texts."""
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
        found = in_halves(forward, [texts[number] for number in chunk], "texts")
        for number, value in zip(chunk, found, strict=True):
            values[number] = value
    return values
