"""From outcomes to `compare.json`: values, ranks, which differences are real, the tax, and what each method cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
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

Results = Mapping[str, Mapping[str, Any]]


def record_of(
    plan: Plan,
    splits: Mapping[str, Any],
    grids: Mapping[str, Sequence[Sequence[Run]]],
    winners: Mapping[str, Sequence[Run]],
    base: Run,
    trained: Results,
    tested: Results,
) -> dict[str, Any]:
    """What is written.

    Args:
        plan: The comparison.
        splits: Counts by split.
        grids: Method -> its points, each with its runs.
        winners: Method -> the runs of the point that was chosen, one a seed; a method is missing if all diverged.
        base: The model before training.
        trained: Key of a run -> what `runs.train` returned.
        tested: Key of a run -> what `runs.test` returned.
    """
    runs = {BASE: [base]} | {
        name: own for name, own in winners.items() if not any(trained[run.key]["failed"] for run in own)
    }
    measures = [
        {"name": name, "unit": "nats" if name.endswith("logp_per_token") else "%", "prompts": len(values)}
        | {"tax": plan.evaluations[name.split(" ")[0]].tax}
        for name, values in tested[base.key]["outcomes"].items()
    ]
    for one in measures:
        one["scale"], one["digits"] = (1, 3) if one["unit"] == "nats" else (100, 1)
    outcomes = {
        one["name"]: {
            name: np.array([_in_order(tested[run.key]["outcomes"], tested[base.key]["outcomes"], one["name"]) for run in of])
            for name, of in runs.items()
        }
        for one in measures
    }
    values = {name: {} for name in [BASE, *plan.methods]}
    for one in measures:
        for name, of in outcomes[one["name"]].items():
            low, high = crossed_bootstrap(of)
            values[name][one["name"]] = _scaled(one, mean=of.mean(), low=low, high=high) | {
                "by_seed": [float(one["scale"] * mean) for mean in of.mean(axis=1)]
            }
    ranks = _ranks(values, measures)
    methods = {
        name: {"values": values[name], "ranks": ranks[name], "average_rank": average_rank(ranks[name])}
        | ({"answers": _answers([tested[run.key] for run in runs[name]])} if name in runs else {})
        | (_tuned(plan, name, grids[name], winners.get(name, ()), trained) if name != BASE else {})
        for name in values
    }
    methods[BASE]["validation"] = mean_of_first([{"failed": None, **tested[base.key]}])
    return {
        "seeds": list(plan.seeds),
        "tuning_seeds": plan.tuning_seeds,
        "splits": splits,
        "chosen_by": plan.choose_by,
        "measures": measures,
        "methods": methods,
        "differences": _differences(outcomes, measures),
        "tax": _tax(outcomes, [one for one in measures if one["tax"]], runs, tested),
    }


def mean_of_first(results: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean over seeds and prompts of the first measure on the validation split; None where a run has diverged."""
    if any(result["failed"] for result in results):
        return None
    first = [next(iter(result["validation"].values())) for result in results]
    return float(np.mean([np.mean(list(values.values())) for values in first]))


def _in_order(own: Mapping[str, Any], base: Mapping[str, Any], name: str) -> list[float]:
    return [own[name][prompt] for prompt in base[name]]


def _scaled(measure: Mapping[str, Any], **numbers: float) -> dict[str, float]:
    return {name: float(measure["scale"] * number) for name, number in numbers.items()}


def _ranks(values: Mapping[str, Mapping[str, Any]], measures: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Ranks of the printed means, as in the paper; a method that was not measured has none."""
    printed = {
        method: {
            one["name"]: float(half_up(found[one["name"]]["mean"], one["digits"])) if found else None for one in measures
        }
        for method, found in values.items()
    }
    return rank_table(printed)


def _answers(tested: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Evaluation -> what its answers are like, the mean over seeds."""
    return {
        name: {what: float(np.mean([one["answers"][name][what] for one in tested])) for what in found}
        for name, found in tested[0]["answers"].items()
    }


def _tuned(
    plan: Plan, name: str, grid: Sequence[Sequence[Run]], winners: Sequence[Run], trained: Results
) -> dict[str, Any]:
    """The grid with its validation means, what was chosen, and the cost of all of it."""
    runs = {run.key: trained[run.key] for own in [*grid, winners] for run in own}
    diverged = [found["failed"] for found in runs.values() if found["failed"]]
    return {
        "loss_type": plan.methods[name].loss_type,
        "chosen": dict(winners[0].point) if winners else None,
        "grid": [
            {"settings": dict(own[0].point), "validation": mean_of_first([trained[run.key] for run in own])}
            for own in grid
        ],
        "diverged": diverged,
        "runs": len(runs),
        "seconds": round(sum(found["seconds"] for found in runs.values()), 3),
        "tokens": sum(found["tokens"] for found in runs.values()),
        "tokens_of_a_run": [trained[run.key]["tokens"] for run in winners],
        "steps_of_a_run": [trained[run.key]["steps"] for run in winners],
    }


def _differences(
    outcomes: Mapping[str, Mapping[str, np.ndarray]], measures: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Every two methods in every measure, the later one minus the earlier."""
    found, p_values = [], []
    for one in measures:
        for (second, before), (first, after) in combinations(outcomes[one["name"]].items(), 2):
            gaps = after - before  # the base has no seed: its one row is compared with each
            low, high = crossed_bootstrap(gaps)
            p_values.append(crossed_test(gaps))
            difference = _scaled(one, difference=gaps.mean(), low=low, high=high)
            found.append({"measure": one["name"], "first": first, "second": second, **difference})
    corrected = holm(p_values) if p_values else []
    return [
        difference | {"p_value": p_value, "p_holm": p_holm, "real": p_holm < REAL}
        for difference, p_value, p_holm in zip(found, p_values, corrected, strict=True)
    ]


def _tax(
    outcomes: Mapping[str, Mapping[str, np.ndarray]],
    measures: Sequence[Mapping[str, Any]],
    runs: Mapping[str, Sequence[Run]],
    tested: Results,
) -> list[dict[str, Any]]:
    """Each trained model against the base, prompt by prompt: McNemar's exact test where answers are right or wrong."""
    base = tested[runs[BASE][0].key]["outcomes"]
    found = [
        {"measure": one["name"], "method": name, "seed": run.seed}
        | asdict(compared := compare(tested[run.key]["outcomes"][one["name"]], base[one["name"]]))
        | _scaled(one, difference=compared.difference, low=compared.interval.low, high=compared.interval.high)
        for one in measures
        for name, own in runs.items()
        if name != BASE
        for run in own
    ]
    corrected = holm([one["p_value"] for one in found]) if found else []
    return [one | {"p_holm": p_holm, "real": p_holm < REAL} for one, p_holm in zip(found, corrected, strict=True)]
