"""From responses to optimizer steps: which rows meet in a step, and how each of its cuts becomes tensors.

A step holds `batch_size` units (a pair or a single response). Its content depends on the seed and the epoch alone;
the number of ranks and the memory only decide how it is cut into micro-batches. Every rank plans the whole step from
the lengths, without talking, and every rank runs the same number of micro-batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from bnf_align.data.micro_batches import items_of, plan_step
from bnf_align.data.responses import MicroBatch, Responses, packed
from bnf_align.records import BadInput


class Step(NamedTuple):
    """One rank's share of an optimizer step."""

    micro_batches: list[MicroBatch]
    kl_rows: list[MicroBatch]
    """KTO's `kl_rows` of the same responses, cut on their own; empty for other losses."""
    size: int
    """Responses (pairs for pairwise losses) in the step over all ranks: what its loss is the mean over."""


@dataclass(eq=False)
class StepDataset(Dataset[Step]):
    """Units in, steps out: indexed by a list of units, it returns this rank's micro-batches of that step.

    A unit is the numbers of the responses of a pair, or of a single one. `keep_pairs` keeps it in one micro-batch,
    chosen rows first (pairwise losses); `kl_rows` are KTO's, one for each response. `max_tokens` is the budget of a
    micro-batch, padding included; with `packing` it is one row, responses one after another.
    """

    responses: Responses
    units: Sequence[Sequence[int]]
    _: KW_ONLY
    keep_pairs: bool
    kl_rows: Responses | None
    max_tokens: int
    pad_token_id: int | None
    packing: bool = False
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return len(self.units)

    def __getitems__(self, units: Sequence[int]) -> Step:
        """The step made of `units`, this rank's share of it."""
        rows = [row for unit in units for row in self.units[unit]]
        groups = [tuple(self.units[unit]) for unit in units] if self.keep_pairs else [(row,) for row in rows]
        return Step(
            self._micro_batches(self.responses, groups, empty=2 if self.keep_pairs else 1),
            [] if self.kl_rows is None else self._micro_batches(self.kl_rows, [(row,) for row in rows], empty=1),
            size=len(groups),
        )

    def _micro_batches(self, responses: Responses, groups: Sequence[tuple[int, ...]], empty: int) -> list[MicroBatch]:
        items = items_of(groups, responses.lengths, self.packing)
        batches = []
        for cut in plan_step(items, self.max_tokens, self.world, self.packing)[self.rank]:
            rows = [item.rows[side] for side in range(len(cut[0].rows)) for item in cut] if cut else []
            batch = responses.collate(rows, self.pad_token_id)
            # A pairwise loss halves its rows, so an empty micro-batch needs two of them.
            batches.append(batch if rows or empty == 1 else {k: torch.cat([v, v]) for k, v in batch.items()})
        return [packed(batch) for batch in batches] if self.packing else batches


class StepSampler(Sampler[list[int]]):
    """Which units meet in which step: a permutation per epoch, from the seed alone; None keeps the order (evaluation).

    The last of the steps of `batch_size` units, over all ranks, may hold fewer, or is left out with `drop_last`.

    Raises:
        BadInput: If steps would be empty, or the seed is none.
    """

    def __init__(self, count: int, batch_size: int, seed: int | None, drop_last: bool = False) -> None:
        if batch_size < 1:
            raise BadInput(f"batch_size {batch_size}: an optimizer step holds at least one pair or response.")
        if seed is not None and seed < 0:
            raise BadInput(f"--data_seed {seed}: a seed is a whole number from 0 on (without it, --seed is taken).")
        self.count, self.batch_size, self.seed, self.drop_last = count, batch_size, seed, drop_last
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of `epoch`."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.count // self.batch_size if self.drop_last else -(-self.count // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(self.count)
        if self.seed is not None:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count)
        for step in range(len(self)):
            yield order[step * self.batch_size : (step + 1) * self.batch_size].tolist()


class StepLoader(DataLoader[Step]):
    """A DataLoader of steps; `set_epoch` reaches the sampler.

    `skip_first_batches` turns it into a plain DataLoader around the same sampler, which Trainer still reaches.
    """

    def __init__(self, dataset: StepDataset, sampler: StepSampler, **kwargs: Any) -> None:
        super().__init__(dataset, batch_sampler=sampler, collate_fn=_as_is, **kwargs)

    def set_epoch(self, epoch: int) -> None:
        """Choose the permutation of `epoch`."""
        self.batch_sampler.set_epoch(epoch)  # type: ignore[union-attr]


def _as_is(step: Any) -> Any:
    return step
