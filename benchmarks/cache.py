"""The reference cache: bytes on disk per scored token, and the time to get a row back.

    python benchmarks/cache.py

A cache of random log-probabilities with lognormal numbers of scored tokens is written, in shards as a reference pass
writes them, and read as a training run reads it: from disk by key with every shard checked, then row by row out of the
data set into tensors. Files are in the page cache. Writes the rows cache-bytes and cache-read of `results/claims.csv`.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import datasets
import numpy as np
import torch
from protocol import Estimate, bootstrap, one_thread, write_claim

from bnf_align.data.responses import Responses
from bnf_align.reference.cache import ReferenceCache, row_key

ROWS, ROUNDS = 10_000, 30
ROWS_PER_SHARD = (30, 1_000, ROWS)
"""From a large model on a slow machine (a shard holds 30 seconds of work) to a whole pass in one."""
CLAIMED_SHARD = 1_000


def random_responses(random: np.random.Generator) -> datasets.Dataset:
    """Responses with about 350 scored tokens, half as many tokens of prompt before them, and their reference."""
    scored = np.clip(random.lognormal(5.6, 0.75, ROWS), 4, 2048).astype(int)
    prompts = scored // 2
    return datasets.Dataset.from_dict(
        {
            "input_ids": [random.integers(0, 128_000, total) for total in scored + prompts],
            "completion_mask": [np.arange(p + s) >= p for p, s in zip(prompts, scored, strict=True)],
            "label": random.random(ROWS) < 0.5,
            "end": scored + prompts - 1,
            "row": np.arange(ROWS),
            "ref_logps": [-random.exponential(1.0, count).astype(np.float32) for count in scored],
        },
        features=datasets.Features(
            input_ids=datasets.List(datasets.Value("int32")),
            completion_mask=datasets.List(datasets.Value("bool")),
            label=datasets.Value("bool"),
            end=datasets.Value("int64"),
            row=datasets.Value("int64"),
            ref_logps=datasets.List(datasets.Value("float32")),
        ),
    )


def write_cache(root: Path, responses: Responses, rows_per_shard: int) -> tuple[ReferenceCache, list[bytes]]:
    """A cache that holds all responses, and their keys."""
    cache = ReferenceCache(root, {"weights": "random", "rows_per_shard": rows_per_shard})
    keys = [row_key(responses.tokens(row), responses.mask(row)) for row in range(ROWS)]
    for start in range(0, ROWS, rows_per_shard):
        rows = range(start, min(start + rows_per_shard, ROWS))
        cache.write({keys[row]: responses.reference(row) for row in rows})
    return cache, keys


def bytes_on_disk(cache: ReferenceCache) -> int:
    """Every file of the namespace, the manifest included."""
    return sum(path.stat().st_size for path in cache.folder.iterdir())


def milliseconds_per_row(cache: ReferenceCache, keys: list[bytes], responses: Responses) -> np.ndarray:
    """(rounds, 2): from disk by key; from the data set to a tensor, in random order."""
    order = np.random.default_rng(1).permutation(ROWS).tolist()
    milliseconds = np.zeros((ROUNDS, 2))
    with one_thread():
        for number in range(ROUNDS):
            start = time.process_time()
            found = cache.read(keys)
            read = time.process_time()
            for row in order:
                torch.tensor(responses.reference(row), dtype=torch.float32)
            milliseconds[number] = np.diff([start, read, time.process_time()]) * 1e3 / ROWS
            assert len(found) == ROWS
    return milliseconds


def main() -> None:
    """Write, read and put the two rows into the table."""
    responses = Responses(random_responses(np.random.default_rng(0)))
    tokens = int(responses.masks.sum())
    sizes = {}
    with tempfile.TemporaryDirectory() as folder:
        for rows_per_shard in ROWS_PER_SHARD:
            cache, keys = write_cache(Path(folder), responses, rows_per_shard)
            sizes[rows_per_shard] = bytes_on_disk(cache) / tokens
            if rows_per_shard == CLAIMED_SHARD:
                milliseconds = milliseconds_per_row(cache, keys, responses)
    size = Estimate(sizes[CLAIMED_SHARD], min(sizes.values()), max(sizes.values()))
    read = bootstrap(milliseconds, lambda rounds: float(np.median(rounds.sum(axis=1))))
    parts = np.median(milliseconds, axis=0)

    mean = tokens / ROWS
    claim = f"bytes on disk per scored token, {mean:.0f} a row, shards of {CLAIMED_SHARD} rows"
    shards = f"; low and high: shards of {ROWS_PER_SHARD[-1]} and of {ROWS_PER_SHARD[0]}"
    print(claim + shards, size, write_claim("cache-bytes", claim + shards, size, "3.8 <= figure <= 4.2"), sep="\n")
    claim = f"CPU milliseconds to read a row of {mean:.0f} scored tokens of {ROWS}, from disk to a tensor"
    split = f": {parts[0]:.4f} from checked shards, {parts[1]:.4f} from the data set to a tensor"
    print(claim + split, read, write_claim("cache-read", claim + split, read, "high < 0.3"), sep="\n")


if __name__ == "__main__":
    main()
