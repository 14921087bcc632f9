"""The tables and pictures of `docs/claims.md`, from the runs of `bnf-align lab run`.

    python benchmarks/lab_claims.py

Every interval is a 95 % bootstrap over both what was drawn: seeds with replacement, and the prompts of each seed.
What stands between the markers of the page is written anew; the words around them are a person's.
"""

import csv
import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from bnf_align.lab.claims import BASE, CLAIMS, RATES, Claim, Run
from bnf_align.lab.experiment import read_results
from bnf_align.stats import holm, interval
from bnf_align.training.health import COLLAPSED as RED
from bnf_align.training.health import FALLEN, MORE_ENDLESS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "lab" / "runs.csv"
REAL = ROOT / "benchmarks" / "results" / "real_lab.csv"
MOVED = ROOT / "benchmarks" / "results" / "lab" / "shifts.json"
PAGE = ROOT / "docs" / "claims.md"
HEALTH = ROOT / "docs" / "health.md"
RESAMPLES = 4_000
COLLAPSED = 0.5
"""A run has collapsed whose sampled accuracy is below this share of its base's."""
MISSING = "not measured"


def main() -> None:
    """Write the tables into the pages, and the pictures beside them."""
    found = cells(RESULTS)
    text = filled(PAGE.read_text(encoding="utf-8"), found)
    text = between("moved", text, moved(MOVED))
    PAGE.write_text(between("real", text, real_table(REAL)), encoding="utf-8")
    text = HEALTH.read_text(encoding="utf-8")
    HEALTH.write_text(between("runs", text, verdicts(RESULTS)), encoding="utf-8")
    for name in ("collapse",):
        draw(PAGE.with_name(f"claims-{name}.png"), CLAIMS[name].runs, found)


def filled(page: str, found: "Cells") -> str:
    """The page with the tables of `found` between its markers."""

    def tables(marker: re.Match[str]) -> str:
        return f"{marker[1]}\n{report(marker[2], found)}\n{marker[3]}"

    return re.sub(r"(<!-- tables ([\w-]+) -->).*?(<!-- end -->)", tables, page, flags=re.DOTALL)


def between(marker: str, page: str, text: str) -> str:
    """The page with `text` between a marker and its end."""
    block = f"<!-- {marker} -->\n{text}\n<!-- end -->"
    return re.sub(rf"<!-- {marker} -->.*?<!-- end -->", lambda _: block, page, flags=re.DOTALL)


def real_table(results: Path) -> str:
    """What `benchmarks/real_lab.py` has measured: a row for each measure, a column for each method."""
    with results.open(newline="", encoding="utf-8") as file:
        rows = {(row["method"], row["measure"]): row for row in csv.DictReader(file)}
    measured = list(dict.fromkeys(method for (method, _), row in rows.items() if row["mean"] != MISSING))
    missing = list(dict.fromkeys(method for method, _ in rows if method not in measured))
    measures = [measure for method, measure in rows if method == "base"]
    lines = [
        (
            f"{measure}, {rows['base', measure]['unit']}",
            *(_with_interval(rows[method, measure]) for method in measured),
        )
        for measure in measures
    ]
    return f"\n{markdown(('', *measured), lines)}\n\nNot measured: {', '.join(missing) or 'nothing'}.\n"


def moved(results: Path) -> str:
    """Figures 3 and 4 in numbers: of each method the mean over the seeds, with the lowest and the highest of them."""
    seeds = list(json.loads(results.read_text(encoding="utf-8"))["seeds"].values())

    def low_tenths(seed: dict, method: str) -> float:
        return 100 * sum(seed["bins"]["shares"][method][:2])

    def median(measure: str) -> Callable[[dict, str], float]:
        return lambda seed, method: seed["methods"][method][measure]["p50"]

    columns = {
        "log-likelihood shift per token, median, nats": median("log_likelihood_shift_per_token"),
        "absolute logit shift per token, median": median("logit_shift_per_token"),
        "Gini, median": median("gini"),
        "tokens in DPO's two lowest tenths, %": low_tenths,
    }

    def cell(of: Callable[[dict, str], float], method: str) -> str:
        values = [of(seed, method) for seed in seeds]
        return f"{np.mean(values):.3g} ({min(values):.3g} to {max(values):.3g})"

    lines = [(name, *(cell(of, name) for of in columns.values())) for name in seeds[0]["methods"]]
    return f"\nMean of {len(seeds)} seeds (lowest to highest):\n\n{markdown(('', *columns), lines)}\n"


def _with_interval(row: dict[str, str]) -> str:
    mean, low, high = (f"{float(row[end]):.4g}" if row[end] else "" for end in ("mean", "low", "high"))
    return f"{mean} ({low} to {high})" if low else mean


def verdicts(results: Path) -> str:
    """What the thresholds of health say of every run, by what became of its accuracy."""
    rows = [row for row in read_results(results) if not row["error"]]
    base = {row["seed"]: row["math_sampled"] for row in rows if row["run"] == BASE}
    runs = [row for row in rows if row["run"] != BASE]
    groups = {
        "with less than half of the base's right answers": [],
        "others with fewer right answers than the base": [],
    }
    groups["with as many or more"] = []
    for row in runs:
        share = row["math_sampled"] / base[row["seed"]]
        list(groups.values())[(share >= COLLAPSED) + (share >= 1)].append(row)
    lines = [
        (
            f"{len(found)} {words}",
            *(str(sum(row["bnf/shift/chosen"] < bound for row in found)) for bound in (FALLEN, RED)),
            str(sum(row["endless"] > MORE_ENDLESS for row in found)),
        )
        for words, found in groups.items()
    ]
    head = ("runs", f"below {FALLEN} (amber or red)", f"below {RED} (red)")
    head += (f"more than {MORE_ENDLESS:.0%} of sampled answers never ended (amber)",)
    said = (
        f"From {len(runs)} measurements of runs in the tiny world ([claims](claims.md), "
        "`benchmarks/results/lab/runs.csv`; five seeds, after 15 and 45 steps), by the mean log-ratio of chosen "
        "answers that nobody trained on:"
    )
    return f"{said}\n\n{markdown(head, lines)}"


# --------------------------------------------------------------------------------------------------- the statistics


@cache
def weights(seeds: int, prompts: int) -> np.ndarray:
    """(resamples, seeds * prompts) weights of a mean: seeds are drawn with replacement, then each one's prompts."""
    rng = np.random.default_rng(0)
    drawn = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES)
    counts = rng.multinomial(drawn * prompts, np.full(prompts, 1 / prompts))
    return counts.reshape(RESAMPLES, -1) / (seeds * prompts)


class Estimate(NamedTuple):
    """A mean over seeds and prompts, its 95 % interval, and Student's p-value that seeds have a mean of 0."""

    mean: float
    low: float
    high: float
    p: float

    def points(self, sign: str = "") -> str:
        """In per cent, or in percentage points with a sign."""
        mean, low, high = (f"{100 * bound:{sign}.1f}" for bound in self[:3])
        return f"{mean} ({low} to {high})"


def estimate(values: np.ndarray) -> Estimate:
    """The mean of (seeds, prompts) values."""
    low, high = interval(weights(*values.shape) @ values.ravel())
    seeds = values.mean(axis=1)
    # Where no seed differs Student's statistic is 0 / 0.
    p = float(stats.ttest_1samp(seeds, 0.0).pvalue) if seeds.any() else 1.0
    return Estimate(float(values.mean()), low, high, p)


class Cell(NamedTuple):
    """A setting after a number of steps, over all seeds."""

    run: Run
    step: int
    right: np.ndarray
    """(seeds, test prompts) 1 where sampled `math` was right."""
    seeds: dict[str, np.ndarray]
    """(seeds,) of each measurement."""
    means: dict[str, float]
    """Each measurement's mean over seeds."""
    collapsed: int
    """Seeds."""


Cells = dict[tuple[Run, int], Cell]


def cells(results: Path) -> Cells:
    """Every setting and step that was measured on every seed of the base."""
    rows = sorted(read_results(results), key=lambda row: row["seed"])
    base = {row["seed"]: row["math_sampled"] for row in rows if row["run"] == BASE}
    found: Cells = {}
    for run, step in dict.fromkeys((row["run"], row["step"]) for row in rows):
        group = [row for row in rows if (row["run"], row["step"]) == (run, step)]
        if [row["seed"] for row in group] == list(base) and not any(row["error"] for row in group):
            right = np.array([[int(bit) for bit in f"{int(row['outcomes'], 16):b}"[1:]] for row in group], dtype=float)
            numbers = [name for name, value in group[0].items() if isinstance(value, float)]
            seeds = {name: np.array([row[name] for row in group]) for name in numbers}
            means = {name: float(values.mean()) for name, values in seeds.items()}
            collapsed = sum(row["math_sampled"] < COLLAPSED * base[row["seed"]] for row in group)
            found[run, step] = Cell(run, step, right, seeds, means, collapsed)
    return found


# ------------------------------------------------------------------------------------------------------- the tables


def label(run: Run) -> str:
    """The setting without its learning rate, defaults left out: `dpo, beta 1.0, near pairs`."""
    kwargs = [f"{name} {value}" for name, value in json.loads(run.loss_kwargs).items()]
    size = [f"{run.responses} answers a step"] if run.responses != BASE.responses else []
    others = [value for value, usual in ((run.data, BASE.data), (run.optimizer, BASE.optimizer)) if value != usual]
    return ", ".join([run.method, *kwargs, *size, *others])


def report(name: str, found: Cells) -> str:
    """The tables of a claim, in markdown."""
    return "".join(f"\n{TITLES[table]}:\n\n{table(CLAIMS[name], found)}\n" for table in TABLES[name])


def groups(runs: Iterable[Run], key: Callable[[Run], str] = label) -> dict[str, list[Run]]:
    """Runs by what `key` says of them, in their order."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(key(run), []).append(run)
    return found


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *rows))


def by_rate(runs: Sequence[Run], cell: Callable[[Run], str]) -> list[list[str]]:
    """The head, and one line a setting that was measured, with one column a learning rate."""
    rates = sorted({run.learning_rate for run in runs})
    lines = [
        [name, *(" ".join(cell(run) for run in group if run.learning_rate == rate) for rate in rates)]
        for name, group in groups(runs).items()
    ]
    return [["", *(f"{rate:g}" for rate in rates)], *(line for line in lines if {*line[1:]} - {MISSING, ""})]


def over_time(run: Run, found: Cells) -> list[Cell]:
    """What was measured of a run, in the order of its steps."""
    return [found[one] for one in sorted(found) if one[0] == run]


def accuracies(claim: Claim, found: Cells) -> str:
    """At the first and the last step, with the interval of the last and the seeds that collapsed."""

    def cell(run: Run) -> str:
        if not (at := over_time(run, found)):
            return MISSING
        note = f", {at[-1].collapsed} of {len(at[-1].right)} collapsed" if at[-1].collapsed else ""
        return f"{100 * at[0].right.mean():.1f} → {estimate(at[-1].right).points()}{note}"

    head, *lines = by_rate(claim.runs, cell)
    base = ["base", estimate(found[BASE, 0].right).points(), *[""] * (len(head) - 2)]
    left_out = [name for name in groups(claim.runs) if name not in {line[0] for line in lines}]
    return markdown(head, [base, *lines]) + (f"\n\nNot measured: {'; '.join(left_out)}." if left_out else "")


def gaps(claim: Claim, found: Cells) -> str:
    """After the last step, to what the claim compares with at the same rate."""
    compared = {run.learning_rate: run for run in groups(claim.runs)[claim.against]}

    def cell(run: Run) -> str:
        at, other = over_time(run, found), over_time(compared[run.learning_rate], found)
        return estimate(at[-1].right - other[-1].right).points("+") if at and other else MISSING

    head, *lines = by_rate([run for run in claim.runs if label(run) != claim.against], cell)
    return markdown([f"minus {claim.against}", *head[1:]], lines) if lines else f"{MISSING}."


def tax(claim: Claim, found: Cells) -> str:
    """What was gained in `math`, and what became of `sort`, which is in no run's data."""
    base = found[BASE, 0]

    def cell(run: Run) -> str:
        if not (at := over_time(run, found)):
            return MISSING
        gain = 100 * (at[-1].right.mean() - base.right.mean())
        lost = at[-1].seeds["sort_sampled"] - base.seeds["sort_sampled"]
        return f"{gain:+.1f} / {estimate(lost[:, None]).points('+') if lost.any() else 0}"

    head, *lines = by_rate(claim.runs, cell)
    return markdown(head, lines)


def shifts(claim: Claim, found: Cells) -> str:
    """Of held-out answers; of near-identical ones where the run was trained on these."""

    def cell(run: Run) -> str:
        if not (at := over_time(run, found)):
            return MISSING
        kind = "near" if run.data == "near pairs" else "bnf"
        return " / ".join(f"{at[-1].means[f'{kind}/shift/{side}']:+.3f}" for side in ("chosen", "rejected"))

    head, *lines = by_rate(claim.runs, cell)
    return markdown(head, lines) if lines else f"{MISSING}."


def chosen_by_validation(claim: Claim, found: Cells) -> str:
    """Each setting where it does best on the validation prompts, on those of the test."""
    runs, against = claim.runs, claim.against
    best = {
        name: max((at for run in group for at in over_time(run, found)), key=lambda at: at.means["validation"])
        for name, group in groups(runs).items()
        if any(over_time(run, found) for run in group)
    }
    others = [name for name in best if against in best and name != against]
    apart = {name: estimate(best[name].right - best[against].right) for name in others}
    corrected = dict(zip(others, holm([gap.p for gap in apart.values()]), strict=True))

    def line(name: str) -> list[str]:
        if name not in best:
            return [name, MISSING, *[""] * 6]
        at, gap = best[name], apart.get(name)
        return [
            name,
            f"{at.run.learning_rate:g}, {at.step}",
            estimate(at.right).points(),
            *((gap.points("+"), f"{corrected[name]:.3f}") if gap else ("", "")),
            *(f"{100 * at.means[column]:.1f}" for column in ("math_greedy", "sort_sampled", "endless")),
        ]

    columns = ("rate, steps", "`math`, sampled", f"minus {against}", "p (Holm)")
    return markdown(["", *columns, "greedy", "`sort`", "never ended"], map(line, groups(runs)))


def improved(claim: Claim, found: Cells) -> str:
    """Over each method's grid of learning rate and its other setting."""
    base, last = found[BASE, 0], max(step for _, step in found)

    def line(method: str, group: Sequence[Run]) -> list[str]:
        gains = [(found[run, last].right - base.right).ravel() for run in group if (run, last) in found]
        if not gains:
            return [method, f"0 of {len(group)}", MISSING, ""]
        low, high = interval((weights(*base.right.shape) @ np.array(gains).T > 0).mean(axis=1))
        share, worst = np.mean([gain.mean() > 0 for gain in gains]), min(gain.mean() for gain in gains)
        shown = f"{100 * share:.0f} % ({100 * low:.0f} to {100 * high:.0f})"
        return [method, f"{len(gains)} of {len(group)}", shown, f"{100 * worst:+.1f}"]

    head = ["", "settings measured", "better than the base", "worst change, points"]
    return markdown(head, (line(*one) for one in groups(claim.runs, lambda run: run.method).items()))


TITLES = {
    accuracies: "Sampled `math`, per cent right after 15 → 45 steps, by learning rate",
    gaps: "Difference in points after 45 steps at the same learning rate",
    tax: "Sampled `math` / sampled `sort`, change to the base in points after 45 steps (intervals over seeds alone)",
    shifts: "Shift of chosen / rejected answers after 45 steps, nats a token",
    chosen_by_validation: "Learning rate and steps chosen on the validation prompts",
    improved: "Share of a method's settings that are better than the base after 45 steps",
}
TABLES = {
    "dead-zone": (accuracies, gaps, shifts, chosen_by_validation),
    "collapse": (accuracies, shifts),
    "rejection": (gaps, chosen_by_validation),
    "sensitivity": (accuracies, improved),
    "near-identical": (accuracies, gaps, shifts),
    "tax": (tax,),
    "feedback": (accuracies, gaps, shifts),
    "contrastive": (accuracies, gaps, shifts, chosen_by_validation),
    "optimizer": (accuracies, shifts),
}
"""What is shown of each claim."""


# ------------------------------------------------------------------------------------------------------ the picture


def draw(path: Path, runs: Sequence[Run], found: Cells) -> None:
    """Accuracy and the chosen answers' shift over the learning rate, after the last step."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    accuracies, shifts = figure.subplots(1, 2)
    for name, group in groups(runs).items():
        last = [over_time(run, found)[-1] for run in group if over_time(run, found)]
        if not last:
            continue
        rates, right = [at.run.learning_rate for at in last], [estimate(at.right) for at in last]
        sides = [[100 * (one.mean - one.low) for one in right], [100 * (one.high - one.mean) for one in right]]
        accuracies.errorbar(rates, [100 * one.mean for one in right], yerr=sides, marker="o", ms=3, capsize=2)
        shifts.plot(rates, [at.means["bnf/shift/chosen"] for at in last], marker="o", ms=3, label=name)
    accuracies.axhline(100 * found[BASE, 0].right.mean(), color="black", lw=0.6, ls=":")
    shifts.axhline(0, color="black", lw=0.6, ls=":")
    accuracies.set(ylabel="sampled math, % right (dotted: base)")
    shifts.set(ylabel="shift of chosen answers, nats a token", yscale="symlog")
    shifts.set_yscale("symlog", linthresh=0.1)
    for axes in (accuracies, shifts):
        axes.set(xscale="log", xticks=RATES, xticklabels=[f"{rate:g}" for rate in RATES], xlabel="learning rate")
        axes.minorticks_off()
        axes.spines[["top", "right"]].set_visible(False)
    shifts.legend(frameon=False, fontsize=7)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
