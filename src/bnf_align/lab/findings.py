"""What the runs of a claim say: tables with intervals over prompts and seeds, as `docs/claims.md` shows them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bnf_align.lab.claims import BASE, CLAIMS, Run
from bnf_align.lab.experiment import read_results
from bnf_align.stats import holm, interval

RESAMPLES = 4_000
COLLAPSED = 0.5
"""A run has collapsed whose sampled accuracy is below this share of its base's."""
MISSING = "not measured"


@cache
def _weights(seeds: int, prompts: int) -> np.ndarray:
    """(resamples, seeds * prompts) weights of a mean: seeds are drawn with replacement, then each one's prompts."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
    counts = rng.multinomial(drawn * prompts, np.full(prompts, 1 / prompts))
    return counts.reshape(RESAMPLES, -1) / (seeds * prompts)


class Estimate(NamedTuple):
    """A mean over seeds and prompts, its 95 % interval, and the p-value of no difference from 0."""

    mean: float
    low: float
    high: float
    p: float


def estimate(values: np.ndarray) -> Estimate:
    """The mean of (seeds, prompts) values, by the bootstrap of both."""
    means = _weights(*values.shape) @ values.ravel()
    tail = min((means <= 0).sum(), (means >= 0).sum())
    return Estimate(float(values.mean()), *interval(means), min(1.0, 2 * (1 + tail) / (1 + RESAMPLES)))


def _points(found: Estimate, sign: str = "") -> str:
    mean, low, high = (f"{100 * bound:{sign}.1f}" for bound in found[:3])
    return f"{mean} ({low} to {high})"


class Cell(NamedTuple):
    """A setting after a number of steps, over all seeds."""

    run: Run
    step: int
    right: np.ndarray
    """(seeds, test prompts) 1 where sampled `math` was right."""
    means: dict[str, float]
    """Every column's mean over seeds."""
    collapsed: int
    """Seeds."""


def cells(results: Path) -> dict[tuple[Run, int], Cell]:
    """Every setting and step that all seeds of the base have been measured at, with the seeds in order."""
    rows = sorted(read_results(results), key=lambda row: row["seed"])
    base = {row["seed"]: row["math_sampled"] for row in rows if row["run"] == BASE}
    grouped: dict[tuple[Run, int], list[dict[str, Any]]] = {}
    for row in rows:
        grouped.setdefault((row["run"], row["step"]), []).append(row)
    found = {}
    for (run, step), group in grouped.items():
        if [row["seed"] for row in group] == list(base) and not any(row["error"] for row in group):
            right = np.array([[int(bit) for bit in f"{int(row['outcomes'], 16):b}"[1:]] for row in group], dtype=float)
            means = {name: float(np.mean([row[name] for row in group])) for name in row_numbers(group[0])}
            collapsed = sum(row["math_sampled"] < COLLAPSED * base[row["seed"]] for row in group)
            found[run, step] = Cell(run, step, right, means, collapsed)
    return found


def row_numbers(row: Mapping[str, Any]) -> list[str]:
    """Names of the columns that hold measurements."""
    return [name for name, value in row.items() if isinstance(value, float)]


def label(run: Run) -> str:
    """The setting without its learning rate, defaults left out: `dpo, beta 0.1, near pairs`."""
    kwargs = [f"{name} {value}" for name, value in json.loads(run.loss_kwargs).items()]
    size = [f"{run.responses} responses a step"] if run.responses != BASE.responses else []
    others = [value for value, usual in ((run.data, BASE.data), (run.optimizer, BASE.optimizer)) if value != usual]
    return ", ".join([run.method, *kwargs, *size, *others])


Cells = Mapping[tuple[Run, int], Cell]


def _groups(runs: Sequence[Run], key: Callable[[Run], str] = label) -> dict[str, list[Run]]:
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(key(run), []).append(run)
    return groups


def _table(head: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def accuracies(runs: Sequence[Run], found: Cells) -> str:
    """Sampled accuracy, in per cent, at the first and the last measured step, with the interval of the last."""

    def cell(run: Run) -> str:
        at = [found[one] for one in sorted(found) if one[0] == run]
        if not at:
            return MISSING
        note = f", {at[-1].collapsed} of {len(at[-1].right)} collapsed" if at[-1].collapsed else ""
        return f"{100 * at[0].right.mean():.1f} → {_points(estimate(at[-1].right))}{note}"

    return _by_rate(runs, cell)


def shifts(runs: Sequence[Run], found: Cells) -> str:
    """Log-ratio per token of held-out chosen and rejected answers at the last step; near pairs where on them."""

    def cell(run: Run) -> str:
        at = [found[one] for one in sorted(found) if one[0] == run]
        kind = "near" if run.data == "near pairs" else "bnf"
        return (
            " / ".join(f"{at[-1].means[f'{kind}/shift/{side}']:+.3f}" for side in ("chosen", "rejected"))
            if at
            else MISSING
        )

    return _by_rate(runs, cell)


def _by_rate(runs: Sequence[Run], cell: Callable[[Run], str]) -> str:
    rates = sorted({run.learning_rate for run in runs})
    there = {(label(run), run.learning_rate): run for run in runs}
    rows = (
        [name, *(cell(there[name, rate]) if (name, rate) in there else "" for rate in rates)] for name in _groups(runs)
    )
    return _table(["", *(f"{rate:g}" for rate in rates)], rows)


def chosen_by_validation(runs: Sequence[Run], found: Cells, against: str) -> str:
    """Each setting at the learning rate and step that its validation prompts like best, on the test prompts."""
    best = {
        name: max(
            (cell for cell in found.values() if cell.run in group),
            key=lambda cell: cell.means["validation"],
            default=None,
        )
        for name, group in _groups(runs).items()
    }
    gaps = {
        name: estimate(cell.right - best[against].right)
        for name, cell in best.items()
        if cell and best[against] and name != against
    }
    corrected = dict(zip(gaps, holm([gap.p for gap in gaps.values()]), strict=True))

    def line(name: str, cell: Cell | None) -> list[str]:
        if cell is None:
            return [name, MISSING, *[""] * 6]
        right, gap = estimate(cell.right), gaps.get(name)
        return [
            name,
            f"{cell.run.learning_rate:g}, {cell.step}",
            _points(right),
            _points(gap, "+") if gap else "",
            f"{corrected[name]:.3f}" if gap else "",
            *(f"{100 * cell.means[column]:.1f}" for column in ("math_greedy", "sort_sampled", "endless")),
        ]

    head = [
        "",
        "rate, steps",
        "math, sampled",
        f"minus {against}",
        "p (Holm)",
        "math, greedy",
        "sort, sampled",
        "never ended",
    ]
    return _table(head, (line(name, cell) for name, cell in best.items()))


def improved(runs: Sequence[Run], found: Cells) -> str:
    """Of each method's grid at the last step, the share of settings that are better than the base."""
    base = found[BASE, 0]
    last = max(step for _, step in found)

    def line(method: str, group: Sequence[Run]) -> list[str]:
        gains = [(found[run, last].right - base.right).ravel() for run in group if (run, last) in found]
        if not gains:
            return [method, f"0 of {len(group)}", MISSING, ""]
        shares = (_weights(*base.right.shape) @ np.array(gains).T > 0).mean(axis=1)
        low, high = (100 * bound for bound in interval(shares))
        share, worst = 100 * np.mean([gain.mean() > 0 for gain in gains]), 100 * min(gain.mean() for gain in gains)
        return [method, f"{len(gains)} of {len(group)}", f"{share:.0f} % ({low:.0f} to {high:.0f})", f"{worst:+.1f}"]

    rows = (line(method, group) for method, group in _groups(runs, lambda run: run.method).items())
    return _table(["", "settings measured", "better than the base", "worst change, points"], rows)


def report(name: str, results: Path) -> str:
    """The tables of a claim, in markdown."""
    claim, found = CLAIMS[name], cells(results)
    if (BASE, 0) not in found:
        return f"{name}: {MISSING}"
    tables = {
        "Sampled `math`, % right, by learning rate": accuracies(claim.runs, found),
        "Shift of chosen / rejected answers, nats a token": shifts(claim.runs, found),
        "Rate and steps chosen on the validation prompts": chosen_by_validation(claim.runs, found, claim.against),
    }
    if name == "sensitivity":
        tables["Share of the grid that improves"] = improved(claim.runs, found)
    return "\n\n".join(f"{title}:\n\n{table}" for title, table in tables.items())
