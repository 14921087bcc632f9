"""The benchmarks at toy sizes: they run, count right, compare equal work and write their rows. Nothing is timed."""

import csv
import importlib
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
cache, costs, head, steps = map(importlib.import_module, ("cache", "costs", "head", "steps"))

TOKENS, WIDTH, VOCABULARY = TOY = (64, 16, 100)
HEAD_ROWS = [
    *("gradient", "flops-bnf-sft", "memory-appendix-b-32k", "memory-appendix-b-128k", "memory-bnf-sft"),
    *("time-appendix-b", "time-trl-head"),
]
MATMUL = 2 * TOKENS * WIDTH * VOCABULARY


@pytest.fixture
def claims(tmp_path):
    """Where rows go, and a reader of them."""
    path = tmp_path / "claims.csv"

    def rows() -> dict[str, dict[str, str]]:
        with path.open(newline="") as file:
            return {row["id"]: row for row in csv.DictReader(file)}

    return path, rows


@pytest.fixture
def toy_shapes(monkeypatch):
    monkeypatch.setattr(head, "SHAPES", dict.fromkeys(("32k", "128k"), TOY))
    monkeypatch.setattr(head, "ROUNDS", dict.fromkeys(("32k", "128k"), 2))


def gradients(run) -> list[torch.Tensor]:
    given = head.problem(*TOY)
    run(given)
    return [given.hidden.grad, given.weight.grad]


@pytest.mark.parametrize("run", [head.appendix_b, head.trimmed_appendix_b, head.trl_head])
def test_the_heads_that_are_compared_compute_the_same_gradient(run):
    for one, other in zip(gradients(run), gradients(head.ours), strict=True):
        assert (one - other).norm() < 2e-6 * other.norm()


def test_matmuls_are_counted_in_place_ones_too():
    a = torch.ones(2, 3)
    assert head.flops(lambda: a @ a.t()) == 2 * 2 * 3 * 2
    assert head.flops(lambda: torch.zeros(2, 2).addmm_(a, a.t())) == 2 * 2 * 3 * 2
    # As on a GPU: bfloat16 operands, a float32 sum.
    b, total = torch.empty(2, 3, dtype=torch.bfloat16, device="meta"), torch.empty(2, 2, device="meta")
    assert head.flops(lambda: torch.addmm(total, b, b.t(), out_dtype=torch.float32, out=total)) == 2 * 2 * 3 * 2
    given = head.problem(*TOY)
    counts = {name: head.flops(partial(run, given)) for name, run in head.HEADS.items()}
    assert counts == {"ours": 3 * MATMUL, "Appendix B": 4 * MATMUL, "TRL": 4 * MATMUL}


def test_a_call_of_the_head_with_bnf_multiplies_exactly_as_much_as_with_sft():
    counts = [head.flops(partial(head.through_call, loss, head.problem(*TOY))) for loss in ("bnf", "sft")]
    assert counts == [3 * MATMUL, 3 * MATMUL]


def test_the_gradient_is_that_of_equation_4_and_the_loop_over_the_vocabulary_can_be_left_out():
    assert head.gradient_error(16, 8, 50) < 2e-6
    assert head.gradient_error(16, 8, 50, head.vectorised_target) < 2e-6


@pytest.mark.slow
def test_head_writes_its_rows(claims, toy_shapes, monkeypatch):
    path, rows = claims
    # The probe has tests of its own; twelve fresh processes would import everything twelve times.
    monkeypatch.setattr(head, "peak_memory", lambda prepare, *arguments: prepare(*arguments)().targets.nbytes)
    head.write_gradient(path=path, sizes=((16, 8, 50), (16, 8, 50)))
    head.write_flops(path=path)
    head.write_memory(path=path)
    head.write_times(path=path)
    assert list(rows()) == HEAD_ROWS
    assert rows()["gradient"]["holds"] == rows()["flops-bnf-sft"]["holds"] == "yes"


@pytest.mark.slow
def test_steps_compares_equal_tokens_and_writes_its_rows(claims, tmp_path):
    path, rows = claims
    random = np.random.default_rng(0)
    tiny = steps.small_llama(300, hidden_size=32, num_hidden_layers=1, intermediate_size=32)
    bench = steps.Bench(tiny, tmp_path)
    calls, tokens = steps.step_calls(bench, steps.equal_rows(random, 2, 20, 40))
    assert tokens == 2 * (20 + 40)
    steps.write_steps(steps.measured(calls, 2), tokens, path=path)
    calls, tokens = steps.epoch_calls(bench, steps.pairs(random, 6))
    steps.write_epochs(steps.measured(calls, 2), tokens, path=path)
    steps.write_reference(steps.measured(steps.reference_calls(bench, steps.pairs(random, 6), 3), 2), 6, path=path)
    real = {name for name in costs.ORDER if name.startswith("real-")}
    assert set(rows()) == set(costs.ORDER) - set(HEAD_ROWS) - real
    costs.write_costs(path)
    table = (tmp_path / "costs.md").read_text()
    assert "| time-appendix-b | | | | | not measured | |" in table
    assert f"| one-epoch-cold | {float(rows()['one-epoch-cold']['figure']):.3f} |" in table


def test_the_cache_holds_a_few_bytes_for_each_scored_token(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "ROWS", 400)
    monkeypatch.setattr(cache, "ROUNDS", 1)
    responses = cache.Responses(cache.random_responses(np.random.default_rng(0)))
    found, keys = cache.write_cache(tmp_path, responses, 100)
    assert 4 <= cache.bytes_on_disk(found) / responses.masks.sum() < 4.3
    assert (cache.milliseconds_per_row(found, keys, responses) > 0).all()


def test_both_sides_of_a_step_have_the_same_gradient(tmp_path):
    """Fine-tuning here and at TRL: the same tokens are scored and the same mean is taken."""
    tiny = steps.small_llama(300, hidden_size=32, num_hidden_layers=1, intermediate_size=32)
    calls, _ = steps.step_calls(steps.Bench(tiny, tmp_path), steps.equal_rows(np.random.default_rng(0), 2, 20, 40))
    norms = []
    for name in ("sft", "trl sft"):
        calls[name]()
        model = calls[name].args[0].model
        norms.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    assert (norms[0] - norms[1]).norm() < 1e-5 * norms[1].norm()
