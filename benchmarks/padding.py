"""How much of the computed tokens is padding, and how long ranks wait for the slowest.

    python benchmarks/padding.py

Steps of 128 pairs with lognormal lengths are planned by `plan_step` and, for comparison, by a greedy cut: longest
first, a new micro-batch wherever the budget is full, dealt by cost in a snake. Nothing is trained; all but the
planning time is counted exactly. Writes `results/padding.md`, and the rows padding-1-rank and padding-8-ranks of
`results/claims.csv`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from protocol import RESULTS, bootstrap, machine, one_thread, write_claim

from bnf_align.data.micro_batches import OVERHEAD, Item, plan_step

STEPS, PAIRS, LONGEST = 100, 128, 4096
BUDGETS = (2048, 4096, 8192, 16384, 32768)
RANKS = (1, 8)
CLAIMED_BUDGET = 8192
PLANNED_BUDGETS = (CLAIMED_BUDGET, BUDGETS[-1])
PROMPT = {"median": 95, "sigma": 1.0}
RESPONSE = {"median": 242, "sigma": 0.75, "within_pair": 0.45}
"""The two responses of a pair share a length, and each has its own factor around it."""

Plan = list[list[list[Item]]]
Planner = Callable[[Sequence[Item], int, int], Plan]


class Measured(NamedTuple):
    """One step under one plan."""

    useful: int
    """Tokens of the responses and their prompts."""
    computed: int
    """The same with padding."""
    micro_batches: int
    """On each rank."""
    slowest: float
    """The slowest rank's cost over the mean rank's, where ranks meet once a step."""
    waiting: float
    """The same where they meet in every micro-batch (FSDP)."""


def lengths_of_a_step(random: np.random.Generator) -> np.ndarray:
    """Tokens of both sequences of each pair, (pairs, 2)."""
    prompts = random.lognormal(np.log(PROMPT["median"]), PROMPT["sigma"], (PAIRS, 1))
    responses = random.lognormal(np.log(RESPONSE["median"]), RESPONSE["sigma"], (PAIRS, 1))
    responses = responses * random.lognormal(0, RESPONSE["within_pair"], (PAIRS, 2))
    return np.clip(prompts + responses, 8, LONGEST).astype(int)


def items_of(lengths: np.ndarray, loss: str) -> list[Item]:
    """A step's items: responses for a pointwise loss, pairs for a pairwise one."""
    if loss == "pointwise":
        return [Item((row,), int(length)) for row, length in enumerate(lengths.ravel())]
    return [Item((2 * pair, 2 * pair + 1), int(length)) for pair, length in enumerate(lengths.max(axis=1))]


def greedy_plan(items: Sequence[Item], max_tokens: int, world: int) -> Plan:
    """The plan without optimisation; the widest micro-batches are halved until ranks get equally many."""
    cuts: list[list[Item]] = []
    for item in sorted(items, key=lambda item: -item.length):
        if cuts and padded([*cuts[-1], item]) <= max_tokens:
            cuts[-1].append(item)
        else:
            cuts.append([item])
    while len(cuts) % world:
        widest = max(cuts, key=len)
        cuts.append(widest[-(-len(widest) // 2) :])
        del widest[-(-len(widest) // 2) :]
    cuts.sort(key=padded, reverse=True)
    rounds = [cuts[start : start + world] for start in range(0, len(cuts), world)]
    return [[dealt[::-1][rank] if n % 2 else dealt[rank] for n, dealt in enumerate(rounds)] for rank in range(world)]


def padded(cut: Sequence[Item]) -> int:
    """Tokens of a micro-batch, padding included."""
    return max((item.length for item in cut), default=0) * sum(len(item.rows) for item in cut)


def measure(lengths: np.ndarray, plan: Plan) -> Measured:
    """Count one step."""
    computed = np.array([[padded(cut) for cut in rank] for rank in plan])
    costs = computed + OVERHEAD
    mean = costs.sum() / len(plan)
    slowest, waiting = costs.sum(axis=1).max() / mean, costs.max(axis=0).sum() / mean
    return Measured(int(lengths.sum()), int(computed.sum()), computed.shape[1], slowest, waiting)


def share(measured: np.ndarray) -> float:
    """Useful over computed tokens of all steps together."""
    return measured[:, 0].sum() / measured[:, 1].sum()


def tables(steps: list[np.ndarray]) -> tuple[list[str], dict[tuple[str, int, int], np.ndarray]]:
    """A line per loss, number of ranks and budget; and what `plan_step` gave, (steps, 5)."""
    lines, found = [], {}
    for key in product(("pointwise", "pairwise"), RANKS, BUDGETS):
        loss, world, budget = key
        ours, theirs = (
            np.array([measure(step, planner(items_of(step, loss), budget, world)) for step in steps])
            for planner in (plan_step, greedy_plan)
        )
        found[key] = ours
        cells = [f"{share(ours):.3f}", f"{share(theirs):.3f}"]
        cells += [f"{side[:, 2].mean():.1f}" for side in (ours, theirs)]
        waits = [f"{side[:, column].mean():.3f}" for column in (3, 4) for side in (ours, theirs)]
        cells += waits if world > 1 else [""] * 4
        lines.append(f"| {loss} | {world} | {budget:,} | {' | '.join(cells)} |")
    return lines, found


def planning_seconds(random: np.random.Generator) -> list[str]:
    """A line per number of items: CPU milliseconds of one plan, the median of several."""
    lines = []
    for count, repeats in ((256, 15), (2048, 5), (120_000, 1)):
        lengths = np.concatenate([lengths_of_a_step(random).ravel() for _ in range(-(-count // (2 * PAIRS)))])[:count]
        items = [Item((row,), int(length)) for row, length in enumerate(lengths)]
        cells = []
        for world, budget in product(RANKS, PLANNED_BUDGETS):
            seconds = []
            for _ in range(repeats):
                start = time.process_time()
                plan_step(items, budget, world)
                seconds.append(time.process_time() - start)
            cells.append(f"{1e3 * statistics.median(seconds):,.0f}")
        lines.append(f"| {count:,} | {' | '.join(cells)} |")
    return lines


def table(headings: Sequence[str], lines: list[str]) -> str:
    """A Markdown table."""
    return "\n".join([f"| {' | '.join(headings)} |", "|---" * len(headings) + "|", *lines])


def report(lines: list[str], planning: list[str], mean: float) -> str:
    """`results/padding.md`."""
    counted = ["useful", "greedy", "micro-batches per rank", "greedy", "slowest / mean", "greedy", "waiting", "greedy"]
    timed = [f"{world} rank{'s' * (world > 1)}, {budget:,}" for world in RANKS for budget in PLANNED_BUDGETS]
    return f"""\
# Padding and waiting

{STEPS} steps of {PAIRS} pairs. A sequence is a prompt (lognormal, median {PROMPT["median"]}, sigma {PROMPT["sigma"]})
and a response (median {RESPONSE["median"]}, sigma {RESPONSE["sigma"]}, {RESPONSE["within_pair"]} more within a pair):
mean {mean:.0f} tokens, at most {LONGEST:,}. The lengths are simulated; all but the last table is counted, not timed.

* useful: tokens over tokens with padding, of all steps together.
* slowest / mean: the slowest rank's cost over the mean rank's, a micro-batch costing its padded tokens and {OVERHEAD}.
* waiting: the same where ranks wait for one another in every micro-batch, as under FSDP.
* greedy: longest first, cut wherever the budget is full, dealt by cost in a snake.

What is left of the padding is the price of fewer micro-batches: each is charged {OVERHEAD} tokens. With several ranks
some more is computed where that makes the micro-batches of a round alike. The rows of a pair stay together, so
pairwise losses pad the shorter one, whatever the plan.

{table(["loss", "ranks", "budget", *counted], lines)}

## CPU milliseconds of one plan

{machine()}; one thread.

{table(["responses", *timed], planning)}
"""


def main() -> None:
    """Count, time and write."""
    random = np.random.default_rng(0)
    steps = [lengths_of_a_step(random) for _ in range(STEPS)]
    mean = float(np.mean(steps))
    lines, found = tables(steps)
    with one_thread():
        planning = planning_seconds(random)
    text = report(lines, planning, mean)
    (RESULTS / "padding.md").write_text(text, encoding="utf-8")

    setting = f"pointwise loss, lognormal lengths (mean {mean:.0f}, max {LONGEST}), {PAIRS} pairs a step"
    one, eight = (found["pointwise", world, CLAIMED_BUDGET] for world in RANKS)
    claim = f"useful over all tokens, {setting}, {{}}, budget {CLAIMED_BUDGET}"
    write_claim("padding-1-rank", claim.format("1 rank"), bootstrap(one, share), "figure >= 0.97")
    waits = (
        f"; slowest over mean rank {eight[:, 3].mean():.3f}, with a wait in every micro-batch {eight[:, 4].mean():.3f}"
    )
    write_claim("padding-8-ranks", claim.format("8 ranks") + waits, bootstrap(eight, share))
    print(text)


if __name__ == "__main__":
    main()
