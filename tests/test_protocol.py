"""The measuring protocol: its arithmetic, its memory probe, its table of claims."""

import csv
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
protocol = importlib.import_module("protocol")
Estimate = protocol.Estimate


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_ratio_is_the_median_over_pairs_and_not_the_ratio_of_sums():
    # Ratios 0.5, 0.5 and 8: their median is 0.5, the ratio of the sums (6 / 3) would be 2.
    assert protocol.median_ratio(np.array([0.5, 1.0, 8.0]), np.array([1.0, 2.0, 1.0])).figure == pytest.approx(0.5)


def test_turning_the_sides_over_turns_the_ratio_and_its_interval_over():
    random = np.random.default_rng(0)
    first, second = random.lognormal(0.3, 0.1, 31), random.lognormal(0.0, 0.1, 31)
    there, back = protocol.median_ratio(first, second), protocol.median_ratio(second, first)
    assert np.allclose([1 / there.figure, 1 / there.high, 1 / there.low], back, rtol=1e-3)


def test_the_interval_covers_the_truth_about_nineteen_times_in_twenty():
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        low, high = protocol.bootstrap(random.normal(0.0, 1.0, 30), np.median, draws=300)[1:]
        covered += low <= 0 <= high
    assert 88 <= covered <= 100


def test_an_interval_without_noise_is_its_figure():
    assert protocol.median_ratio(np.full(30, 3.0), np.full(30, 2.0)) == pytest.approx((1.5, 1.5, 1.5))


def test_calls_are_paired_in_abba_order_after_the_warm_up():
    calls = []
    seconds = protocol.paired_seconds(lambda: calls.append("A"), lambda: calls.append("B"), rounds=4, warm_up=1)
    assert "".join(calls) == "AB" + "ABBAABBA"
    assert seconds.shape == (4, 2)
    assert (seconds >= 0).all()


@pytest.mark.parametrize(
    ("estimate", "threshold", "holds"),
    [
        ((0.99, 0.97, 1.01), "high <= 1.02", "yes"),
        ((0.99, 0.97, 1.03), "high <= 1.02", "no"),
        ((1.6, 1.3, 1.9), "low >= 1.4", "no"),
        ((1.0, 1.0, 1.0), "figure == 1", "yes"),
        ((4.1, 4.1, 4.1), "3.8 <= figure <= 4.2", "yes"),
        ((3.7, 3.7, 3.7), "3.8 <= figure <= 4.2", "no"),
        ((float("nan"), 0.0, 0.0), "figure >= 0", "no"),
        ((5.0, 4.0, 6.0), "reported", "reported"),
    ],
)
def test_a_claim_holds_where_its_comparison_is_true(estimate, threshold, holds):
    assert protocol.verdict(Estimate(*estimate), threshold) == holds


def test_a_comparison_of_an_unknown_word_is_an_error_and_never_a_yes():
    with pytest.raises(ValueError, match="upper"):
        protocol.verdict(Estimate(1, 1, 1), "upper <= 2")


def test_a_row_takes_the_place_of_its_id_and_the_others_stay(tmp_path):
    table = tmp_path / "results" / "claims.csv"
    protocol.write_claim("one", "a claim, with a comma", Estimate(1, 1, 1), "figure == 1", path=table)
    protocol.write_claim("two", "another", Estimate(2, 1.5, 2.5), path=table)
    other = rows_of(table)[1]
    assert protocol.write_claim("one", "a claim, with a comma", Estimate(3, 3, 3), "figure == 1", path=table) == "no"
    first, second = rows_of(table)
    assert [first[name] for name in ("id", "claim", "figure", "holds")] == ["one", "a claim, with a comma", "3", "no"]
    assert second == other
    assert (other["figure"], other["low"], other["high"], other["holds"]) == ("2", "1.5", "2.5", "reported")
    assert list(first) == list(protocol.COLUMNS)
    assert [path.name for path in table.parent.iterdir()] == ["claims.csv"]


def test_a_row_without_a_figure_says_why_and_is_not_taken_for_a_measured_one(tmp_path):
    table = tmp_path / "claims.csv"
    assert protocol.write_claim("one", "claim", "not measured", "high <= 1", path=table) == "not measured"
    protocol.write_claim("two", "claim", Estimate(0, 0, 0), path=table)
    one = rows_of(table)[0]
    assert [one[name] for name in ("figure", "low", "high", "threshold", "holds")] == [
        *("not measured", "", "", "high <= 1", "not measured")
    ]
    measured = [protocol.measured_here(ids, table) for ids in (["two"], ["one"], ["two", "one"], ["three"])]
    assert measured == [True, False, False, False]


@pytest.mark.parametrize("changed", ["torch=", "cores"])
def test_a_row_of_another_machine_or_version_is_not_measured_here(tmp_path, changed):
    table = tmp_path / "claims.csv"
    protocol.write_claim("one", "claim", Estimate(1, 1, 1), path=table)
    table.write_text(table.read_text().replace(changed, f"{changed} other"))
    assert not protocol.measured_here(["one"], table)


def test_a_row_names_versions_and_machine(tmp_path):
    protocol.write_claim("one", "claim", Estimate(1, 1, 1), path=tmp_path / "claims.csv")
    (row,) = rows_of(tmp_path / "claims.csv")
    assert f"python={sys.version.split()[0]}" in row["versions"]
    assert "torch=" in row["versions"]
    assert "cores" in row["machine"]
    assert row["command"].startswith("python ")


def take_and_keep(mebibytes: int, passing: int):
    """A call that takes `passing` MiB, gives them back, and returns `mebibytes` of memory."""

    def call() -> np.ndarray:
        np.ones(passing << 17)
        return np.ones(mebibytes << 17)

    return call


@pytest.mark.slow
def test_peak_memory_is_what_the_call_takes_freed_parts_and_its_result_included():
    mebibyte = 2**20
    assert 63 <= protocol.peak_memory(take_and_keep, 64, 8) / mebibyte <= 68
    assert 127 <= protocol.peak_memory(take_and_keep, 16, 128) / mebibyte <= 132
