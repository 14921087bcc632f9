"""Two real processes (DDP, gloo, CPU) against one: the same gradients, metrics, evaluation and cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ddp_run import RUNS
from runs import relative_difference

pytestmark = pytest.mark.golden


def launch(folder: Path, processes: int) -> dict:
    """Results of `ddp_run.py` in that many processes."""
    folder.mkdir(exist_ok=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    here = Path(__file__).parent
    done = subprocess.run(
        [*launcher, str(here / "ddp_run.py"), str(folder)],
        env={**os.environ, "PYTHONPATH": str(here), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return torch.load(folder / "results.pt", weights_only=True)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[int, dict]:
    folder = tmp_path_factory.mktemp("ddp")
    return {processes: launch(folder / str(processes), processes) for processes in (1, 2)}


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_have_the_gradient_of_one(results, name):
    assert relative_difference(results[2][name]["gradient"], results[1][name]["gradient"]) < 1e-5


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("part", ["log", "eval"])
def test_two_processes_report_the_numbers_of_one(results, name, part):
    one, two = results[1][name][part], results[2][name][part]
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert two[key] == pytest.approx(value, rel=1e-4, abs=1e-5), key


@pytest.mark.parametrize("name", RUNS)
def test_two_processes_fill_the_cache_of_one(results, name):
    assert results[2][name]["reference"] == results[1][name]["reference"]
    assert results[1][name]["reference"]["computed_tokens"] > 0
