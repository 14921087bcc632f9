"""From outcomes to `compare.json`: values, ranks, which differences are real, the tax, and what each method cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from bnf_align.compare.config import Plan
from bnf_align.compare.evaluations import BASE
from bnf_align.compare.runs import Run
from bnf_align.evaluation.paired import compare
from bnf_align.evaluation.ranks import average_rank, half_up, rank_table
from bnf_align.stats import crossed_bootstrap, crossed_test, holm

REAL = 0.05
"""A difference is real below this, corrected for all differences of the record."""

Found = Mapping[str, Mapping[str, Any]]
Values = Mapping[str, Mapping[str, np.ndarray]]
"""Measure -> method -> (seeds, prompts)."""


def record_of(
    plan: Plan,
    grids: Mapping[str, Sequence[Sequence[Run]]],
    winners: Mapping[str, Sequence[Run]],
    base: Run,
    trained: Found,
    tested: Found,
) -> dict[str, Any]:
    """What is written of a comparison.

    `grids` are the points of each method, each with its runs; `winners` the runs of the point that was chosen, one a
    seed, where not all have diverged. `trained` and `tested` are what `runs.train` and `runs.test` returned, by the
    key of a run.
    """
    whole = {name: own for name, own in winners.items() if not any(trained[run.key]["failed"] for run in own)}
    runs = {BASE: [base], **whole}
    asked = tested[base.key]["outcomes"]
    measures = [_measure(plan, name, len(prompts)) for name, prompts in asked.items()]
    values: Values = {
        measure: {
            name: np.array([[tested[run.key]["outcomes"][measure][prompt] for prompt in prompts] for run in own])
            for name, own in runs.items()
        }
        for measure, prompts in asked.items()
    }
    shown: dict[str, dict[str, Any]] = {name: {} for name in (BASE, *plan.methods)}
    for one in measures:
        for name, of in values[one["name"]].items():
            by_seed = [one["scale"] * mean for mean in of.mean(axis=1).tolist()]
            shown[name][one["name"]] = _numbers(one, of.mean(), crossed_bootstrap(of), "mean") | {"by_seed": by_seed}
    digits = {one["name"]: one["digits"] for one in measures}
    printed = {
        name: {m: float(half_up(of[m]["mean"], digits[m])) if of else None for m in digits}
        for name, of in shown.items()
    }
    ranks = rank_table(printed)  # of the printed numbers, as in the paper
    methods = {
        name: {"values": of, "ranks": ranks[name], "average_rank": average_rank(ranks[name])}
        | {"answers": _answers([tested[run.key]["answers"] for run in runs.get(name, ())])}
        | (_tuned(plan, name, grids[name], winners.get(name, ()), trained) if name != BASE else {})
        for name, of in shown.items()
    }
    methods[BASE]["validation"] = mean_of_first([{"failed": None, **tested[base.key]}])
    return {
        "seeds": list(plan.seeds),
        "tuning_seeds": plan.tuning_seeds,
        "chosen_by": plan.choose_by,
        "chosen_on": len(next(iter(tested[base.key]["validation"].values()))),
        "measures": measures,
        "methods": methods,
        "differences": _differences(values, measures),
        "tax": _tax(plan, values, [one for one in measures if one["tax"]]),
    }


def mean_of_first(results: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean over seeds and prompts of the first measure on the validation split; None where a run has diverged."""
    if any(result["failed"] for result in results):
        return None
    first = [next(iter(result["validation"].values())) for result in results]
    return float(np.mean([np.mean(list(values.values())) for values in first]))


def _measure(plan: Plan, name: str, prompts: int) -> dict[str, Any]:
    """How a measure is printed, and whether a loss in it is tax."""
    in_nats = name.endswith("logp_per_token")
    unit, scale, digits = ("nats", 1, 3) if in_nats else ("%", 100, 1)
    tax = plan.evaluations[name.partition(" ")[0]].tax
    return {"name": name, "unit": unit, "scale": scale, "digits": digits, "prompts": prompts, "tax": tax}


def _numbers(measure: Mapping[str, Any], mean: float, interval: Sequence[float], name: str) -> dict[str, float]:
    named = {name: mean, "low": interval[0], "high": interval[1]}
    return {key: float(measure["scale"] * number) for key, number in named.items()}


def _answers(found: Sequence[Found]) -> dict[str, dict[str, float]]:
    """Evaluation -> what its answers are like, the mean over seeds."""
    return {
        name: {what: float(np.mean([one[name][what] for one in found])) for what in of}
        for name, of in (found[0] if found else {}).items()
    }


def _tuned(
    plan: Plan, name: str, grid: Sequence[Sequence[Run]], winners: Sequence[Run], trained: Found
) -> dict[str, Any]:
    """The grid with its validation means, what was chosen, and the cost of all of it."""
    runs = {run.key: trained[run.key] for own in [*grid, winners] for run in own}
    tried = [(dict(own[0].point), mean_of_first([trained[run.key] for run in own])) for own in grid]
    return {
        "loss_type": plan.methods[name].loss_type,
        "chosen": dict(winners[0].point) if winners else None,
        "grid": [{"settings": settings, "validation": validation} for settings, validation in tried],
        "diverged": [found["failed"] for found in runs.values() if found["failed"]],
        "runs": len(runs),
        "seconds": round(sum(found["seconds"] for found in runs.values()), 3),
        "tokens": sum(found["tokens"] for found in runs.values()),
        "tokens_of_a_run": [trained[run.key]["tokens"] for run in winners],
        "steps_of_a_run": [trained[run.key]["steps"] for run in winners],
    }


def _differences(values: Values, measures: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Every two methods in every measure, the later minus the earlier one; the base's row is taken for each seed."""
    return _corrected(
        {"measure": one["name"], "first": first, "second": second}
        | _numbers(one, (after - before).mean(), crossed_bootstrap(after - before), "difference")
        | {"p_value": crossed_test(after - before)}
        for one in measures
        for (second, before), (first, after) in combinations(values[one["name"]].items(), 2)
    )


def _tax(plan: Plan, values: Values, measures: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each trained model against the base, prompt by prompt: McNemar's exact test where answers are right or wrong."""
    return _corrected(
        {"measure": one["name"], "method": name, "seed": seed}
        | _numbers(one, found.difference, found.interval, "difference")
        | {key: getattr(found, key) for key in ("p_value", "test", "wins", "losses", "ties")}
        for one in measures
        for base in [_numbered(values[one["name"]][BASE][0])]
        for name, of in values[one["name"]].items()
        if name != BASE
        for seed, own in zip(plan.seeds, of, strict=True)
        for found in [compare(_numbered(own), base)]
    )


def _numbered(values: np.ndarray) -> dict[str, float]:
    return {str(prompt): float(value) for prompt, value in enumerate(values)}


def _corrected(found: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """With Holm's correction for all of them."""
    listed = list(found)
    p_values = holm([one["p_value"] for one in listed]) if listed else []
    return [one | {"p_holm": p, "real": p < REAL} for one, p in zip(listed, p_values, strict=True)]
