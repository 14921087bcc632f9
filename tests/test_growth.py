"""How cost grows: slopes right where they are known, every curve measured on the work it names, files complete."""

import csv
import importlib
import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
growth, growth_report = map(importlib.import_module, ("growth", "growth_report"))
slope = growth_report.slope

SIZES = {"tokens": (256, 512, 1024), "vocabulary": (300, 600, 1200), "width": (16, 32, 64)}
HEADS, CUT = set(growth.HEADS), "step, BNF, cut to 512"


@pytest.fixture
def toy_sizes(monkeypatch):
    monkeypatch.setattr(growth, "SIZES", SIZES)
    monkeypatch.setattr(growth, "HELD", {"tokens": 256, "width": 16, "vocabulary": 300})
    monkeypatch.setattr(growth, "ROUNDS", 2)


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_the_slope_of_a_power_law_is_its_exponent_without_doubt(exponent):
    sizes = [256, 512, 1024, 4096]
    found = slope(sizes, [3.0 * size**exponent for size in sizes])
    assert found.fitted == pytest.approx((exponent, exponent, exponent), abs=1e-8)
    assert found.last == pytest.approx(exponent)


def test_a_bent_curve_has_a_wide_interval_and_its_last_slope_is_the_steepest():
    sizes = [1, 10, 100, 1000]
    found = slope(sizes, [100 + size for size in sizes])
    figure, low, high = found.fitted
    assert found.last == pytest.approx(math.log10(1100 / 200))
    assert figure < found.last
    assert high - low > 0.5


@pytest.mark.parametrize("points", [3, 4, 5, 6])
def test_the_interval_covers_the_truth_nineteen_times_in_twenty(points):
    random, sizes = np.random.default_rng(0), 2.0 ** np.arange(points)
    found = [slope(sizes, sizes**0.7 * random.lognormal(0, 0.1, points)).fitted for _ in range(2000)]
    assert 0.935 < np.mean([low <= 0.7 <= high for _, low, high in found]) < 0.965


def test_one_size_is_varied_and_the_others_are_held():
    assert growth.shapes("tokens")[4096] == (4096, 256, 32_000)
    assert growth.shapes("width")[1024] == (256, 1024, 32_000)
    assert growth.shapes("vocabulary")[256_000] == (256, 256, 256_000)


@pytest.mark.parametrize(("budget", "micro_batches"), [(8192, 1), (512, 2)])
def test_a_step_has_the_tokens_that_it_names_and_a_budget_cuts_it(toy_sizes, tmp_path, budget, micro_batches):
    call = growth.step_call((1024, 16, 300), str(tmp_path), budget)
    trainer, (step,) = call.args
    assert [tuple(batch["input_ids"].shape) for batch in step.micro_batches] == [
        (4 // micro_batches, growth.ROW)
    ] * micro_batches
    assert trainer.model.config.hidden_size == 16
    assert trainer.model.config.vocab_size == 300
    call()
    assert all(float(parameter.grad.norm()) > 0 for parameter in trainer.model.parameters())


@pytest.mark.slow
def test_growth_measures_every_curve_and_writes_its_files(toy_sizes, tmp_path, monkeypatch):
    # The probe has tests of its own, and forks of a process that runs tests are not to be trusted. Here a peak is the
    # product of the three sizes, so every slope of memory is 1.
    def product_of_sizes(prepare, *arguments, start):
        assert start == "fork"
        return math.prod(next(value for value in arguments if isinstance(value, tuple)))

    monkeypatch.setattr(growth, "peak_memory", product_of_sizes)
    growth.write(points := growth.measure(), tmp_path)
    with (tmp_path / "growth.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for axis, sizes in SIZES.items():
        curves = HEADS | {"step, BNF"} | ({CUT} if axis == "tokens" else set())
        assert {(row["curve"], int(row["size"])) for row in rows if row["axis"] == axis} == {
            (curve, size) for curve in curves for size in sizes
        }
    for row in rows:
        least, median, most = (float(row[name]) for name in ("least_seconds", "seconds", "most_seconds"))
        assert 0 < least <= median <= most
    for read, point in zip(growth_report.read_points(tmp_path / "growth.csv"), points, strict=True):
        assert (read[:3], read.peak_bytes) == (point[:3], point.peak_bytes)
        assert read[3:6] == pytest.approx(point[3:6], rel=1e-5)
    report = (tmp_path / "growth.md").read_text()
    assert report.count("| 1.00 (1.00 to 1.00) | 1.00 |") == 3 * (len(HEADS) + 1) + 1
    picture = (tmp_path / "growth.svg").read_text()
    assert all(curve in picture for curve in growth_report.LOOKS)
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_the_same_points_are_the_same_picture(tmp_path):
    points = [
        growth_report.Point("tokens", curve, size, size / 1e3, size / 2e3, size / 5e2, size)
        for curve in growth_report.LOOKS
        for size in SIZES["tokens"]
    ]
    for name in ("one.svg", "two.svg"):
        growth_report.draw(points, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
