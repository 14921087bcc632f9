"""Two real processes (gloo, CPU), DDP and FSDP2, against one: the same gradients, metrics, evaluation and cache."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bnf_align import BadInput
from ddp_run import RUNS
from rounding import ROUNDING
from runs import make_trainer, relative_difference, singles

pytestmark = [pytest.mark.golden, pytest.mark.slow]


WAYS = {"one process": (1, None), "ddp": (2, None), "fsdp2": (2, "fsdp2")}
SHARED = ["ddp", "fsdp2"]


def launch(folder: Path, processes: int, sharding: str | None) -> dict:
    """Results of `ddp_run.py` in that many processes."""
    folder.mkdir(exist_ok=True)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [*launcher, str(here / "ddp_run.py"), str(folder), *([sharding] if sharding else [])],
        env={
            **os.environ,
            "PYTHONPATH": path,
            "OMP_NUM_THREADS": "1",
            "ACCELERATE_USE_CPU": "true",
            "PYTHONFAULTHANDLER": "1",
        },
        capture_output=True,
        text=True,
        timeout=1200,  # what goes wrong under FSDP2 waits for ever
        check=False,
    )
    assert done.returncode == 0, done.stderr[-20000:]  # what went wrong stands above what the launcher says of it
    return {"folder": folder, **torch.load(folder / "results.pt", weights_only=True)}


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("distributed")
    return {way: launch(folder / way, *how) for way, how in WAYS.items()}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("way", SHARED)
def test_two_processes_have_the_gradient_of_one(results, way, name):
    expected = results["one process"][name]["gradient"]
    assert relative_difference(results[way][name]["gradient"], expected) < ROUNDING


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("part", ["log", "eval"])
@pytest.mark.parametrize("way", SHARED)
def test_two_processes_report_the_numbers_of_one(results, way, name, part):
    one, two = results["one process"][name][part], results[way][name][part]
    assert one.keys() == two.keys()
    for key, value in one.items():
        assert two[key] == pytest.approx(value, rel=ROUNDING, abs=ROUNDING), key


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("way", SHARED)
def test_two_processes_fill_the_cache_of_one(results, way, name):
    assert results[way][name]["reference"] == results["one process"][name]["reference"]
    assert results["one process"][name]["reference"]["computed_tokens"] > 0


@pytest.mark.parametrize("way", WAYS)
def test_parameters_are_sharded_under_fsdp2_and_only_there(results, way):
    assert all(results[way][name]["sharded"] is (way == "fsdp2") for name in RUNS)


@pytest.mark.parametrize("way", WAYS)
def test_policy_and_reference_round_alike_in_bfloat16(results, way):
    """Autocast and FSDP2 round other things; a reference that rounds otherwise gives a mean weight of 0.99 here."""
    log = results[way]["bfloat16"]["log"]
    assert log["bnf/weight"] == pytest.approx(1, abs=1e-3)
    assert log["bnf/shift/chosen"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_ends_bitwise_where_the_uninterrupted_one_does(results, way):
    ends = results[way]["resume"]
    assert all(torch.equal(ends["resumed"][name], weights) for name, weights in ends["uninterrupted"].items())


@pytest.mark.parametrize("way", SHARED)
def test_two_processes_end_at_the_weights_of_one_and_save_them_whole(results, way):
    one, two = (results[name]["resume"]["uninterrupted"] for name in ("one process", way))
    # As one vector: where a gradient is a difference of near equals, AdamW makes its rounding as large as a step.
    assert relative_difference(two, one) < ROUNDING
    saved = load_file(results[way]["folder"] / "resume" / "uninterrupted" / "model.safetensors")
    assert all(torch.equal(saved[name], weights) for name, weights in two.items())


def test_fsdp2_keeps_no_whole_gradient_between_micro_batches(results):
    """Under `no_sync` it would: a full model's gradient on every device."""
    seen = results["fsdp2"]["whole gradients"]
    assert seen["micro_batches"] > 2
    assert seen["whole"] == 0


@pytest.mark.parametrize("way", SHARED)
def test_nodes_without_a_common_disk_share_the_work_and_each_disk_gets_all_of_it(results, way):
    (alone,), nodes = results["one process"]["own disks"], results[way]["own disks"]
    assert sum(node["computed"] for node in nodes) == alone["computed"]
    assert all(0 < node["computed"] < alone["computed"] for node in nodes)
    for node in nodes:
        assert node["stored"] == alone["stored"] == alone["computed"]
        assert torch.allclose(node["values"], alone["values"], atol=1e-5)
        assert node["again"] == 0


def test_sharding_that_was_asked_for_and_dropped_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(BadInput, match="FSDP was asked for, but accelerate shards on accelerators alone"):
        make_trainer(tmp_path, singles(4))
