"""Responses looked at one by one, without training: what they are called, and in which batches they are scored."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import datasets

from bnf_align.data.responses import Responses


def response_ids(dataset: datasets.Dataset) -> list[tuple[int, str]]:
    """(row, side) of every tokenised response; pairs are "chosen" and "rejected", others "up" or "down"."""
    pair_ids = dataset["pair_id"]
    paired = {one for one, other in pairwise(pair_ids) if one == other}
    words = {(True, True): "chosen", (True, False): "rejected", (False, True): "up", (False, False): "down"}
    columns = zip(dataset["row"], pair_ids, dataset["label"], strict=True)
    return [(row, words[pair in paired, label]) for row, pair, label in columns]


def batches(responses: Responses, max_tokens: int) -> Iterator[list[int]]:
    """Rows by falling length under a budget of padded tokens: the same cut on every run."""
    batch: list[int] = []
    for row in sorted(range(len(responses)), key=lambda row: -responses.lengths[row]):
        if batch and (len(batch) + 1) * responses.lengths[batch[0]] > max_tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
