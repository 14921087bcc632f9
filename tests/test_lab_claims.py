"""The paper's claims as experiments: the table of runs, a run in small, resuming, and the numbers in the docs."""

import csv
import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from bnf_align.cli.main import main
from bnf_align.config import PreferenceConfig
from bnf_align.lab.claims import BASE, CLAIMS, Run
from bnf_align.lab.experiment import DATA, OPTIMIZERS, Sizes, distance, read_results, run_all, thumbs, world
from bnf_align.lab.runs import Settings
from bnf_align.lab.world import MATH

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
findings = importlib.import_module("lab_claims")
TINY = Sizes(
    base=Settings(sft_steps=60, sft_batch_size=32, prompts=40, samples=16, eval_prompts=80),
    steps=(1, 2),
    warmup=0,
    validation=4,
    test=6,
    others=20,
)


@pytest.mark.parametrize("run", sorted({run for claim in CLAIMS.values() for run in claim.runs}, key=repr), ids=str)
def test_every_run_of_the_table_is_one_that_the_trainer_takes(run, tmp_path):
    PreferenceConfig(output_dir=str(tmp_path), loss_type=run.method, loss_kwargs=run.loss_kwargs, use_cpu=True)
    assert run.data in DATA
    assert run.optimizer in OPTIMIZERS


@pytest.mark.parametrize("name", CLAIMS)
def test_what_a_claim_compares_with_is_among_its_runs_and_no_run_stands_there_twice(name):
    claim = CLAIMS[name]
    assert claim.against in {findings.label(run) for run in claim.runs}
    assert len(set(claim.runs)) == len(claim.runs)


# ---------------------------------------------------------------------------------------------------- the data sets


def scored(prompts: int) -> list[dict]:
    """Each prompt with three right answers and two wrong ones, one of them a word from the right one."""
    texts = (" a b c d", " a b c d", " a b c d", " a b c x", " w x y z")
    return [
        {"id": str(i), "prompt": f"p{i} ?", "candidates": [{"text": t} for t in texts], "scores": [1.0, 1, 1, 0, 0]}
        for i in range(prompts)
    ]


def test_answers_differ_in_as_many_words_as_their_places_differ():
    assert distance({"chosen": " a b c", "rejected": " a x c"}) == 1
    assert distance({"chosen": " a b c", "rejected": " x y z w v"}) == 5


@pytest.mark.parametrize(("ups", "expected"), [(0.95, (19, 1)), (0.25, (5, 15)), (1.0, (20, 0)), (0.0, (0, 20))])
def test_thumbs_are_as_many_whatever_their_share_of_ups(ups, expected):
    labels = [row["label"] for row in thumbs(scored(10), 0, ups=ups)]
    assert (labels.count(True), labels.count(False)) == expected


def test_the_given_share_of_thumbs_is_wrong():
    right, wrong = thumbs(scored(10), 0), thumbs(scored(10), 0, wrong=0.3)
    assert [row["completion"] for row in right] == [row["completion"] for row in wrong]
    assert sum(a["label"] is not b["label"] for a, b in zip(right, wrong, strict=True)) == 6


# -------------------------------------------------------------------------------------------------- a claim in small


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two runs on two seeds, and the path of their results."""
    folder = tmp_path_factory.mktemp("lab")
    path = folder / "results" / "runs.csv"
    runs = [Run("bnf", 1e-3), Run("dpo", 1e-3, '{"beta": 1.0}')]
    assert run_all(runs, (20, 21), folder, path, sizes=TINY, minutes=0) == 6
    assert not path.exists()
    assert run_all(runs[:1], (20, 21), folder, path, sizes=TINY) == 0
    before = path.read_text()
    assert run_all(runs, (20, 21), folder, path, sizes=TINY, processes=2, command="again") == 0
    assert path.read_text().startswith(before)
    return path


@pytest.mark.slow
def test_a_resumed_claim_adds_what_is_missing_and_nothing_twice(results):
    rows = read_results(results)
    keys = [(row["run"], row["seed"], row["step"]) for row in rows]
    assert len(set(keys)) == len(keys) == 2 + 2 * 2 * 2
    assert {row["method"] for row in rows if row["command"] == "again"} == {"dpo"}


@pytest.mark.slow
def test_a_row_holds_accuracies_health_and_every_outcome_of_the_test(results):
    for row in read_results(results):
        right = [int(bit) for bit in f"{int(row['outcomes'], 16):b}"[1:]]
        assert len(right) == TINY.test
        assert np.mean(right) == pytest.approx(row["math_sampled"], abs=1e-5)
        assert 0 <= row["endless"] <= 1 <= row["tokens"] <= 24
        assert row["error"] == ""
        if row["run"] == BASE:
            assert row["bnf/shift/chosen"] == row["bnf/shift/rejected"] == row["bnf/saturated"] == 0
        else:
            assert 0 != row["bnf/shift/chosen"] != row["bnf/shift/rejected"] != 0


@pytest.mark.slow
def test_held_out_pairs_are_right_and_wrong_answers_to_prompts_that_nothing_else_sees(results):
    here = world(results.parents[1], 20, TINY)
    trained, asked = {row["prompt"] for row in here.scored}, here.held_out["math"][: TINY.validation + TINY.others]
    assert not trained & {*here.held_out["math"]}
    columns = (here.unseen[name] for name in ("input_ids", "completion_mask", "label"))
    for ids, mask, label in zip(*columns, strict=True):
        start = int(mask.int().argmax())
        prompt, answer = (here.tokenizer.decode(part, skip_special_tokens=True) for part in (ids[:start], ids[start:]))
        assert MATH.is_right(prompt, answer) is bool(label)
        assert prompt not in asked


@pytest.mark.slow
def test_a_report_says_what_was_measured_and_what_was_not(results):
    text = findings.report("dead-zone", findings.cells(results))
    assert re.search(
        r"\| bnf \| not measured \| not measured \| not measured \| [\d.]+ → [\d.]+ \([\d.]+ to [\d.]+\).* \|", text
    )
    assert "Not measured: bnf_asymmetric; topr." in text


@pytest.mark.slow
def test_the_command_starts_no_run_where_no_time_is_given_and_says_what_is_missing(results, tmp_path, capsys):
    flags = ["--seeds", "2", "--budget-minutes", "0", "--output_dir", str(tmp_path), "--results", str(results)]
    before = results.read_text()
    assert main(["lab", "run", "dead-zone", *flags]) == 0
    assert "22 runs are missing" in capsys.readouterr().out
    assert results.read_text() == before


# --------------------------------------------------------------------------------------------------- the statistics


def measured(run, right, sort):
    """A setting: of ten prompts `right` on each seed, and the share of `sort` on each."""
    outcomes = np.array([[1.0] * hits + [0.0] * (10 - hits) for hits in right])
    seeds = {"sort_sampled": np.array(sort)}
    return findings.Cell(run, 45, outcomes, seeds, {name: values.mean() for name, values in seeds.items()}, 0)


def test_the_tax_is_what_sort_lost_beside_what_math_gained():
    claim, base = CLAIMS["tax"], measured(BASE, (5, 5), (1.0, 1.0))
    free, taxed = (next(run for run in claim.runs if run.method == name) for name in ("bnf", "sft"))
    found = {(BASE, 0): base, (free, 45): measured(free, (7, 8), (1.0, 1.0))}
    found[taxed, 45] = measured(taxed, (9, 9), (0.9, 0.8))
    lines = findings.tax(claim, found).splitlines()
    assert next(line for line in lines if line.startswith("| bnf |")).startswith("| bnf | +25.0 / 0 |")
    assert "| sft | +40.0 / -15.0 (-20.0 to -10.0) |" in "".join(lines)


def test_the_interval_over_seeds_and_prompts_is_wider_than_over_prompts_where_seeds_differ():
    same, differing = np.tile([0.0, 1.0], (5, 50)), np.repeat([[0.0], [0.0], [1.0], [1.0], [0.5]], 100, axis=1)
    narrow, wide = findings.estimate(same), findings.estimate(differing)
    assert narrow.mean == wide.mean == 0.5
    # Five seeds of variance 0.2: the mean's standard deviation is 0.2; prompts alone give sqrt(0.25 / 500) = 0.022.
    assert wide.high - wide.low == pytest.approx(2 * 1.96 * 0.2, abs=0.1)
    assert narrow.high - narrow.low == pytest.approx(2 * 1.96 * 0.0224, abs=0.01)


def test_a_difference_that_every_seed_shows_is_real_and_one_that_a_single_seed_shows_is_not():
    by_seed = np.array([[0.1], [0.12], [0.11], [0.09], [0.1]])
    assert findings.estimate(np.repeat(by_seed, 50, axis=1)).p < 0.001
    assert findings.estimate(np.repeat(by_seed * [[0], [0], [0], [0], [5]], 50, axis=1)).p == pytest.approx(
        0.374, abs=1e-3
    )
    assert findings.estimate(np.tile([1.0, -1.0], (5, 25))).p == 1.0  # no seed differs: 0 / 0 is no p-value


# ---------------------------------------------------------------------------------------------------------- the docs


def test_the_page_shows_the_tables_that_its_results_give():
    text = findings.PAGE.read_text(encoding="utf-8")
    assert sorted(re.findall(r"<!-- tables ([\w-]+) -->", text)) == sorted(CLAIMS)
    assert findings.filled(text, findings.cells(findings.RESULTS)) == text
    assert findings.between("moved", text, findings.moved(findings.MOVED)) == text


def test_the_page_of_health_counts_the_runs_as_they_are():
    """Its table is of the committed runs, at the thresholds of the code."""
    from bnf_align.training.health import COLLAPSED, FALLEN, MORE_ENDLESS

    root = Path(__file__).parents[1]
    with (root / "benchmarks" / "results" / "lab" / "runs.csv").open(newline="") as file:
        runs = list(csv.DictReader(file))
    base = {run["seed"]: float(run["math_sampled"]) for run in runs if run["method"] == "base"}
    shifts = {"collapsed": [], "worse": [], "better": []}
    for run in runs:
        if run["method"] != "base" and run["bnf/shift/chosen"]:
            share = float(run["math_sampled"]) / base[run["seed"]]
            name = "collapsed" if share < 0.5 else "worse" if share < 1 else "better"
            shifts[name].append((float(run["bnf/shift/chosen"]), float(run["endless"])))
    page = (root / "docs" / "health.md").read_text()
    assert f"From {sum(map(len, shifts.values()))} measurements" in page
    rows = re.findall(r"^\| (\d+) .*\| (\d+) \| (\d+) \| (\d+) \|$", page, re.MULTILINE)
    counted = [
        (
            len(found),
            sum(shift < FALLEN for shift, _ in found),
            sum(shift < COLLAPSED for shift, _ in found),
            sum(endless > MORE_ENDLESS for _, endless in found),
        )
        for found in shifts.values()
    ]
    assert [tuple(map(int, row)) for row in rows] == counted


def test_what_moved_is_the_mean_over_seeds_with_the_lowest_and_the_highest(tmp_path):
    def seed(shift: float, share: float) -> dict:
        names = ("log_likelihood_shift_per_token", "logit_shift_per_token", "gini")
        return {
            "methods": {"BNF": {name: {"p50": shift} for name in names}},
            "bins": {"shares": {"BNF": [share, share, 1 - 2 * share]}},
        }

    file = tmp_path / "shifts.json"
    file.write_text(json.dumps({"seeds": {"0": seed(-0.5, 0.1), "1": seed(0.1, 0.05)}}), encoding="utf-8")
    said = findings.moved(file)
    assert "Mean of 2 seeds" in said
    assert "| BNF | -0.2 (-0.5 to 0.1) | -0.2 (-0.5 to 0.1) | -0.2 (-0.5 to 0.1) | 15 (10 to 20) |" in said
