"""The GPU benchmark at toy sizes on the processor: figures right where they can be, rows complete, nothing lost."""

import csv
import importlib
import math
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
device, gpu, gpu_head, gpu_models, gpu_sections, head, protocol = map(
    importlib.import_module, ("device", "gpu", "gpu_head", "gpu_models", "gpu_sections", "head", "protocol")
)
TOY, CPU = gpu_sections.TOY, device.Device("cpu")
IDS = {claim_id for section in gpu_sections.sections(gpu_sections.REAL).values() for claim_id in section.rows}


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The table of a toy run."""
    path = tmp_path_factory.mktemp("toy") / "gpu.csv"
    with pytest.MonkeyPatch.context() as patch:
        for module in (device, gpu_models, protocol):  # intervals are tested elsewhere and would take most of the time
            patch.setattr(module, "bootstrap", partial(protocol.bootstrap, draws=20))
        assert gpu.run(TOY, CPU, path), "a section failed"
    return protocol.read_rows(path)


def figures(rows, *prefixes: str) -> dict[str, float]:
    return {name: float(row["figure"]) for name, row in rows.items() if name.startswith(prefixes)}


@pytest.mark.slow
def test_every_row_has_a_figure_and_a_verdict(rows):
    assert rows.keys() == IDS
    assert {row["holds"] for row in rows.values()} <= {"yes", "no", "reported"}
    assert all(math.isfinite(float(row[name])) for row in rows.values() for name in ("figure", "low", "high"))
    positive = figures(rows, "ceiling", "head-", "peers-", "1b-", "8b-lora-")
    assert min(positive.values()) > 0
    assert {name for name, row in rows.items() if row["threshold"] == "high <= 1.01"} == {
        f"{name}-time-bnf-sft" for name in ("head", "1b", "8b-lora")
    }


@pytest.mark.slow
def test_gradients_from_bfloat16_weights_are_right_up_to_their_rounding(rows):
    """Below the bound, and not so far below that nothing can have been rounded."""
    errors = figures(rows, "gradient-")
    assert errors.keys() == {f"gradient-{loss}" for loss in ("bnf", "sft", "dpo", "kto")}
    assert all(2**-11 < error < 2**-8 for error in errors.values()), errors
    assert all(rows[name]["holds"] == "yes" for name in errors)


@pytest.mark.parametrize("loss", gpu_head.LOSSES)
def test_without_rounding_the_gradient_is_that_through_all_logits(loss):
    assert gpu_head.error_to_logits(loss, head.problem(*TOY.gradient)) < 2e-6


@pytest.mark.slow
def test_the_weight_is_one_before_the_first_step_whatever_the_batches(rows):
    assert figures(rows, "weight-", "difference-").keys() == {
        f"{what}-{way}" for what in ("weight", "difference") for way in ("sorted", "padded")
    }
    assert figures(rows, "weight-sorted", "difference-sorted") == pytest.approx(
        {"weight-sorted": 1, "difference-sorted": 0}, abs=1e-6
    )
    # Other batches may take other kernels, and bfloat16 shows it.
    assert 0.99 < figures(rows, "weight-padded")["weight-padded"] <= 1
    assert figures(rows, "difference-padded")["difference-padded"] < 0.02


def test_the_weight_falls_where_the_policy_is_no_longer_the_reference():
    made = gpu_models.random_responses(np.full((4, 2), 20), 300)
    with gpu_models.workplace(CPU, TOY.weight) as place:
        batch = place.with_reference(made)[0].collate(range(8), 0)
        before = gpu_models.sums_of(place.in_bf16(batch))
        with torch.no_grad():
            place.model.base_model.norm.weight.mul_(3)
        after = gpu_models.sums_of(place.in_bf16(batch))
    scored = 20 - 20 // 3
    assert before == pytest.approx(np.array([[scored, 0, scored]] * 8), abs=1e-4)
    assert gpu_models.mean_over_tokens(after, column=0) < 0.95
    assert gpu_models.mean_over_tokens(after, column=1) > 0.05


def test_a_step_of_every_loss_has_the_same_tokens():
    with gpu_models.workplace(CPU, TOY.full) as place:
        steps = gpu_models.steps_of(place)
    for loss, step in steps.items():
        batches = step.micro_batches
        assert sum(int(batch["attention_mask"].sum()) for batch in batches) == TOY.full.tokens
        assert sum(int(batch["completion_mask"].sum()) for batch in batches) == 4 * (12 - 12 // 3)
        assert bool(step.kl_rows) == (loss == "kto")
        assert ("ref_logps" in batches[0]) == (loss != "sft")
        assert step.size == (2 if loss == "dpo" else 4)
    assert all(batch["label"].all() for batch in steps["sft"].micro_batches)
    assert sorted(torch.cat([batch["label"] for batch in steps["bnf"].micro_batches]).tolist()) == [0, 0, 1, 1]


def test_under_lora_the_base_stays_and_the_adapters_get_gradients():
    with gpu_models.workplace(CPU, TOY.lora) as place:
        steps = gpu_models.steps_of(place)
        trainers = place.trainers()
        gpu_models.train(trainers["bnf"], [steps["bnf"]])
        parameters = dict(place.model.named_parameters())
    assert {name for name, values in parameters.items() if values.grad is not None} == {
        name for name in parameters if "lora_" in name
    }
    assert {values.dtype for name, values in parameters.items() if "lora_" not in name} == {torch.bfloat16}
    assert sum(float(values.grad.norm()) for name, values in parameters.items() if "lora_B" in name) > 0


@pytest.mark.parametrize("setting", [TOY.full, TOY.lora], ids=["full", "lora"])
@pytest.mark.parametrize("loss", gpu_head.LOSSES)
def test_steps_multiply_in_bfloat16(setting, loss):
    with gpu_models.workplace(CPU, setting) as place:
        step, trainer = gpu_models.steps_of(place)[loss], place.trainers()[loss]
        multiplied = []
        base = place.model.get_base_model() if setting.lora else place.model
        layer = base.model.layers[0].mlp.down_proj
        layer.register_forward_hook(lambda module, args, output: multiplied.append(output.dtype))
        gpu_models.train(trainer, [step])
    assert set(multiplied) == {torch.bfloat16}


def ten(_):
    return {"one": protocol.Estimate(10, 9, 11)}


def out_of_memory(_):
    raise torch.OutOfMemoryError


def broken(_):
    raise RuntimeError("broken")


def small_table(monkeypatch, **measures):
    """Sections of one row each, the row named as its section."""
    found = {
        name: gpu_sections.Section({name: (f"claim {name}", "high <= 20")}, measure)
        for name, measure in measures.items()
    }
    monkeypatch.setattr(gpu, "sections", lambda _: found)


def test_a_section_without_memory_or_with_an_error_is_a_row_and_the_rest_go_on(tmp_path, monkeypatch, capsys):
    small_table(monkeypatch, memory=out_of_memory, wrong=broken, one=ten)
    path = tmp_path / "gpu.csv"
    assert not gpu.run(TOY, CPU, path)
    assert {name: row["holds"] for name, row in protocol.read_rows(path).items()} == {
        "memory": "out of memory",
        "wrong": "failed",
        "one": "yes",
    }
    assert "RuntimeError: broken" in capsys.readouterr().err
    assert gpu.run(TOY, CPU, path, ["memory", "one"], again=True)


def test_a_section_that_stands_in_the_table_is_left_out_unless_asked_for_again(tmp_path, monkeypatch):
    runs = []
    small_table(monkeypatch, one=lambda at: runs.append(1) or ten(at))
    path = tmp_path / "gpu.csv"
    for again, so_far in ((False, 1), (False, 1), (True, 2)):
        assert gpu.run(TOY, CPU, path, again=again)
        assert len(runs) == so_far
    path.write_text(path.read_text().replace("torch=", "torch=0."))
    assert gpu.run(TOY, CPU, path)
    assert len(runs) == 3


def test_without_a_gpu_nothing_that_was_measured_is_lost(tmp_path):
    path = tmp_path / "gpu.csv"
    protocol.write_claim("ceiling", "claim", protocol.Estimate(7, 7, 7), path=path)
    protocol.write_claim("gradient-bnf", "claim", "out of memory", path=path)
    gpu.without_gpu(gpu_sections.REAL, path)
    rows = protocol.read_rows(path)
    assert rows.keys() == IDS
    assert rows.pop("ceiling")["figure"] == "7"
    assert rows.pop("gradient-bnf")["holds"] == "out of memory"
    assert {(row["figure"], row["holds"], row["low"]) for row in rows.values()} == {
        ("not measured", "not measured", "")
    }


def test_the_committed_table_has_every_row():
    with (protocol.RESULTS / "gpu.csv").open(newline="") as file:
        reader = csv.DictReader(file)
        assert {row["id"] for row in reader} == IDS
    assert tuple(reader.fieldnames) == protocol.COLUMNS
