"""How a step is cut into micro-batches and how these are dealt to the ranks.

A pure function of the lengths, so every rank finds the same plan without talking. Time is counted in tokens: a
micro-batch costs its padded tokens and `OVERHEAD`. Ranks work in rounds of one micro-batch each; under FSDP they wait
for one another in every round, which therefore takes as long as its costliest micro-batch. Packed responses stand in
one row without padding, so there any of them may meet.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

OVERHEAD = 128
"""What a micro-batch costs besides its tokens, in tokens: adding its gradient to the step's moves three numbers per
weight, in bf16 on an H100 (6 bytes at 3.35 TB/s) the time of about 120 tokens' matmuls (6 FLOPs at 400 TFLOP/s)."""

TOLERATED_WAIT = 0.02
"""Share of the ranks' time spent waiting below which no other plan is looked for."""

TIGHTENING = 0.8
"""By how much each further plan lowers the ceiling of a micro-batch."""


class Item(NamedTuple):
    """What must stay in one micro-batch: a response, or the two of a pair (chosen, rejected)."""

    rows: tuple[int, ...]
    length: int
    """Tokens of its longest row; where rows are packed, of all its rows."""


def items_of(groups: Iterable[Sequence[int]], lengths: np.ndarray, packing: bool = False) -> list[Item]:
    """The items of `groups` of rows that must stay together, `lengths` (n,) being the tokens of each row."""
    size = sum if packing else max
    return [Item(tuple(group), int(size(lengths[row] for row in group))) for group in groups]


def batches(lengths: np.ndarray, max_tokens: int) -> list[list[int]]:
    """Rows that are looked at one by one, without a step: the same cuts on every run, the costliest first."""
    items = items_of([(row,) for row in range(len(lengths))], lengths)
    return [[item.rows[0] for item in cut] for cut in plan_step(items, max_tokens, world=1)[0]]


def plan_step(items: Sequence[Item], max_tokens: int, world: int, packing: bool = False) -> list[list[list[Item]]]:
    """Cut a step into micro-batches and deal them to the ranks: plan[rank][micro-batch] is a list of items.

    Ranks get equally many micro-batches: FSDP gathers weights in every forward, so a rank with one fewer would leave
    the others waiting for ever. Some are empty only where no cut within the budget gives equally many: with fewer
    items than ranks, or with so few that each must stand alone. The costliest come first, so that a budget too large
    for the memory fails at once.

    Args:
        items: The whole step's items, over all ranks.
        max_tokens: Ceiling for the tokens of one micro-batch, padding included; an item longer than that runs alone.
        world: Number of ranks.
        packing: The items are packed: see `items_of`.
    """
    ordered = sorted(items, key=lambda item: -item.length)
    costed = (_packed if packing else _padded)(ordered, max_tokens, world)
    costliest_first = sorted(costed, key=lambda cost_and_cut: -cost_and_cut[0])
    costliest_first += [(0, []) for _ in range(-len(costed) % world)]

    plan: list[list[list[Item]]] = [[] for _ in range(world)]
    loads = [0] * world
    for start in range(0, len(costliest_first), world):
        least_loaded_first = sorted(range(world), key=loads.__getitem__)
        for rank, (cost, cut) in zip(least_loaded_first, costliest_first[start : start + world], strict=True):
            plan[rank].append(cut)
            loads[rank] += cost
    return plan


def _packed(ordered: list[Item], max_tokens: int, world: int) -> list[tuple[int, list[Item]]]:
    """(cost, micro-batch) of items without padding: few rounds, filled evenly.

    There are no padded tokens to save, only overhead and waiting. So each item, the longest first, joins the
    micro-batch with the fewest tokens (LPT: the fullest has at most 4/3 of what the evenest split would give it;
    Graham, 1969, "Bounds on multiprocessing timing anomalies"), in as few rounds as this keeps to the ceiling with.
    """

    def spread(rounds: int) -> list[tuple[int, int, list[Item]]]:
        loads: list[tuple[int, int, list[Item]]] = [(0, number, []) for number in range(rounds * world)]
        for item in ordered:
            tokens, number, cut = loads[0]
            cut.append(item)
            heapq.heapreplace(loads, (tokens + item.length, number, cut))
        return loads

    def fits(rounds: int) -> bool:
        return all(tokens <= max_tokens or len(cut) == 1 for tokens, _, cut in spread(rounds))

    most = -(-len(ordered) // world)  # each item alone
    fewest = min(most, -(-sum(item.length for item in ordered) // (max_tokens * world)))
    rounds = fewest + bisect_left(range(fewest, most), True, key=fits)
    return [(tokens + OVERHEAD, cut) for tokens, _, cut in spread(rounds)]


def _padded(ordered: list[Item], max_tokens: int, world: int) -> list[tuple[int, list[Item]]]:
    """(cost, micro-batch) of items of like length, each padded to the longest of its micro-batch."""
    lengths = np.array([item.length for item in ordered], dtype=np.int64)
    rows = np.cumsum([0, *(len(item.rows) for item in ordered)])
    edges = _balanced_edges(lengths, rows, max_tokens, world) if ordered else np.zeros(1, dtype=np.int64)
    cuts = [ordered[start:end] for start, end in pairwise(edges)]
    return list(zip(_costs(lengths, rows, edges).tolist(), cuts, strict=True))


def _balanced_edges(lengths: np.ndarray, rows: np.ndarray, max_tokens: int, world: int) -> np.ndarray:
    """Where to cut so that the rounds together are shortest: the best of plans under ever lower ceilings.

    A lower ceiling pads less and makes the micro-batches of a round more alike, for the price of more of them. One
    rank waits for nobody: its first plan is the optimum.
    """
    edges, shortest, ceiling = np.arange(len(lengths) + 1), np.inf, max_tokens
    while (found := _cheapest_edges(lengths, rows, ceiling, world)) is not None:
        costs = np.sort(_costs(lengths, rows, found))[::-1]
        duration = costs[::world].sum()
        if duration < shortest:
            edges, shortest = found, duration
        ceiling = int(TIGHTENING * min(ceiling, costs[0]))
        if 1 - costs.sum() / (world * duration) <= TOLERATED_WAIT or ceiling < lengths[0] * rows[1]:
            break
    return edges


def _cheapest_edges(lengths: np.ndarray, rows: np.ndarray, ceiling: int, world: int) -> np.ndarray | None:
    """Where to cut items, sorted by falling length, for the least total cost in a multiple of `world` micro-batches.

    Dynamic programming over the ends of micro-batches and their number modulo `world`; O(items x items per micro-batch
    x world). None where no such number of micro-batches keeps to the ceiling. `lengths` are (n,), `rows` before each
    item (n + 1,).
    """
    items = len(lengths)
    reach = rows[:-1] + ceiling // np.maximum(lengths, 1)  # a micro-batch that starts here ends at this row at most
    first = np.minimum(np.searchsorted(reach, rows[1:]), np.arange(items))
    # Below half the ceiling a micro-batch saves nobody time: the others of its round are longer at theirs.
    least = ceiling // 2 if world > 1 else 0
    best = np.full((world, items + 1), np.inf)
    best[0, 0] = 0
    starts = np.zeros((world, items + 1), dtype=np.int64)
    number = np.arange(world)
    one_more = (number + 1) % world
    for end in range(1, items + 1):
        start = first[end - 1]
        cost = np.maximum(lengths[start:end] * (rows[end] - rows[start:end]), least) + OVERHEAD
        totals = best[:, start:end] + cost
        chosen = totals.argmin(axis=1)
        best[one_more, end] = totals[number, chosen]
        starts[one_more, end] = start + chosen
    if np.isinf(best[0, items]):
        return None
    edges = [items]
    while edges[-1]:
        edges.append(int(starts[-(len(edges) - 1) % world, edges[-1]]))
    return np.array(edges[::-1])


def _costs(lengths: np.ndarray, rows: np.ndarray, edges: np.ndarray) -> np.ndarray:
    return lengths[edges[:-1]] * np.diff(rows[edges]) + OVERHEAD
