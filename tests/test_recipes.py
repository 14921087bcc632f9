"""The recipes: what the paper and SimPO published and nothing else, and their losses train the three architectures."""

import re
from dataclasses import fields
from enum import Enum
from pathlib import Path

import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from torch import Tensor
from torch.nn.functional import pad
from transformers import PreTrainedModel

from bnf_align import LOSSES, BadInput
from bnf_align.cli import arguments
from bnf_align.logps import completion_logps
from bnf_align.losses import CompletionLogps
from runs import make_trainer, pairs
from tiny_models import plain_tokenizer
from tiny_nets import tiny_gemma2, tiny_llama, tiny_mistral

# The new name, activation_checkpointing, is unknown to the oldest transformers that pyproject allows.
pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated")

ROOT = Path(__file__).parent.parent
MODELS = ("mistral-7b-instruct-v0.2", "llama3-8b-instruct", "gemma2-9b-it")
# Section 4 and Table 4; `sft` is no method of the paper.
METHODS = ("bnf", "nll_pll", "dpo", "ipo", "kto", "orpo", "rdpo", "simpo", "slic_hf")
PAPERS = [f"{model}/{method}" for model in MODELS for method in METHODS]
# Objectives beside the paper, for one of its models.
OTHERS = ("bnf_asymmetric", "bnf_contrastive", "apo_zero", "bco", "topr", "w_reinforce", "npo", "dpo_norm", "rpo")
RECIPES = [*PAPERS, *(f"llama3-8b-instruct/{method}" for method in OTHERS)]
TODAY = [
    f"{model}/bnf"
    for model in ("qwen3-8b", "llama3.1-8b-instruct", "gemma3-12b-it", "smollm3-3b", "olmo3-7b-instruct")
]
"""A LoRA adapter on one device, for one's own file."""
LARGE = "llama3-70b-instruct/bnf"  # sharded over several machines; no row of the paper


def path_of(recipe: str) -> Path:
    return ROOT / "recipes" / f"{recipe}.yaml"


def keys_of(recipe: str) -> dict:
    return yaml.safe_load(path_of(recipe).read_text())


def parse(recipe: str) -> arguments.Arguments:
    return arguments.parse(["--config", str(path_of(recipe))])


def plain(value):
    return value.value if isinstance(value, Enum) else value


# ------------------------------------------------------------------------------------------------------ the files


def test_there_is_a_recipe_for_every_model_and_method_of_the_paper_and_for_every_other_objective():
    found = {path.relative_to(ROOT / "recipes").with_suffix("").as_posix() for path in ROOT.glob("recipes/*/*.yaml")}
    assert {name for name in found if not name.startswith(("accelerate/", "data/"))} == {*RECIPES, *TODAY, LARGE}
    assert {*METHODS, *OTHERS} == set(LOSSES) - {"sft"}


@pytest.mark.parametrize("recipe", [*RECIPES, *TODAY, LARGE])
def test_a_recipe_parses_and_holds_only_what_differs_from_the_defaults(recipe):
    parsed = parse(recipe)
    defaults = arguments.parser().parse_args_into_dataclasses(["--output_dir", "out"], look_for_args_file=False)
    for name, value in keys_of(recipe).items():
        (found,) = [(part, default) for part, default in zip(parsed, defaults, strict=True) if hasattr(part, name)]
        assert plain(getattr(found[0], name)) == value, f"{name} does not arrive"
        assert plain(getattr(found[1], name)) != value, f"{name}: {value} is the default"
    config = parsed[1]
    usual = config.loss.hyperparameters
    assert all(usual[name] != value for name, value in (config.loss_kwargs or {}).items())


def test_an_unknown_key_and_a_hyper_parameter_of_another_loss_are_refused(tmp_path):
    text = path_of("llama3-8b-instruct/dpo").read_text()
    for mistake, message in (
        (text + "warmup_ratio: 0.1\n", "warmup_ratio"),
        (text.replace("beta", "tau"), "dpo takes beta, label_smoothing; loss_kwargs has tau"),
    ):
        (tmp_path / "recipe.yaml").write_text(mistake)
        with pytest.raises(BadInput, match=message):
            arguments.parse(["--config", str(tmp_path / "recipe.yaml")])


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_header_gives_the_command_for_this_very_file_and_says_what_the_paper_reports(recipe):
    header = re.match(r"(#.*\n)+", path_of(recipe).read_text()).group()
    command = next(line for line in header.splitlines() if "accelerate launch" in line)
    named = re.findall(r"recipes/\S+\.yaml", command)
    assert named == ["recipes/accelerate/fsdp2.yaml", f"recipes/{recipe}.yaml"]
    assert all((ROOT / name).is_file() for name in named)
    assert command.split(named[0])[1].startswith(" -m bnf_align train --config ")
    assert "# Paper, not reproduced here (Table 4): " in header or "# Paper: " in header
    assert "A100-80GB hours" in header
    assert "--use_peft" in header


def test_every_recipe_writes_to_a_folder_of_its_own():
    folders = {keys_of(recipe)["output_dir"] for recipe in [*RECIPES, *TODAY]}
    names = [re.sub(r"[/_.]", "-", recipe) for recipe in [*RECIPES, *TODAY]]
    assert folders == {
        f"outputs/{name}".replace("mistral-7b-instruct-v0-2", "mistral-7b-instruct-v0.2") for name in names
    }


@pytest.mark.parametrize("recipe", TODAY)
def test_a_recipe_of_today_gives_its_command_and_says_that_it_was_not_measured(recipe):
    header = re.match(r"(#.*\n)+", path_of(recipe).read_text()).group()
    assert f"bnf-align train --config recipes/{recipe}.yaml" in header
    assert "Not measured here" in header
    _, config, model = parse(recipe)
    assert (config.loss_type, model.use_peft, config.eval_fraction) == ("bnf", True, 0.05)


# ------------------------------------------------------------------------------------------------ what is published


@pytest.mark.parametrize(("model", "learning_rate"), list(zip(MODELS, (5e-7, 6e-7, 8e-7), strict=True)))
def test_bnf_is_trained_as_section_4_says(model, learning_rate):
    _, config, _ = parse(f"{model}/bnf")
    assert (config.loss_type, config.hyperparameters) == ("bnf", {})
    assert (config.learning_rate, config.batch_size, config.max_length) == (learning_rate, 128, 4096)
    assert (plain(config.lr_scheduler_type), config.warmup_steps) == ("cosine", 0.1)
    assert plain(config.optim).startswith("adamw")
    assert config.num_train_epochs == 1


@pytest.mark.parametrize(
    ("model", "simpo", "dpo"),
    [
        ("mistral-7b-instruct-v0.2", (2.5, 0.1, 5e-7), (0.01, 5e-7)),
        ("llama3-8b-instruct", (10, 0.3, 1e-6), (0.01, 3e-7)),
        ("gemma2-9b-it", (10, 0.5, 8e-7), (0.01, 5e-7)),
    ],
)
def test_simpo_and_dpo_are_trained_as_simpos_readme_says(model, simpo, dpo):
    """Its table gives gamma/beta; our gamma stands beside beta."""
    config = parse(f"{model}/simpo")[1]
    beta, gamma = config.hyperparameters["beta"], config.hyperparameters["gamma"]
    assert (beta, gamma / beta, config.learning_rate) == pytest.approx(simpo)
    config = parse(f"{model}/dpo")[1]
    assert (config.hyperparameters["beta"], config.learning_rate) == dpo
    assert (config.batch_size, config.max_length) == (128, 2048)


@pytest.mark.parametrize("model", MODELS)
def test_the_methods_of_a_model_differ_in_loss_and_learning_rate_alone(model):
    own = {"loss_type", "loss_kwargs", "learning_rate", "output_dir", "max_length"}
    recipes = [name for name in RECIPES if name.startswith(model)]
    shared = [{k: v for k, v in keys_of(name).items() if k not in own} for name in recipes]
    assert all(keys == shared[0] for keys in shared)
    bnf, nll_pll = keys_of(f"{model}/bnf"), keys_of(f"{model}/nll_pll")
    assert {k for k in nll_pll if nll_pll[k] != bnf.get(k)} == {"loss_type", "output_dir"}


def test_gemma_2_alone_has_eager_attention():
    """SDPA leaves its softcapping out, or refuses it."""
    assert [m for m in MODELS if keys_of(f"{m}/bnf").get("attn_implementation") == "eager"] == ["gemma2-9b-it"]


@pytest.mark.parametrize(
    ("name", "kind", "processes", "machines"),
    [("ddp", "MULTI_GPU", 8, 1), ("single", "NO", 1, 1), ("fsdp2", "FSDP", 8, 1), ("fsdp2-nodes", "FSDP", 32, 4)],
)
def test_accelerate_reads_the_launch_configurations(name, kind, processes, machines):
    path = ROOT / f"recipes/accelerate/{name}.yaml"
    assert all((ROOT / named).is_file() for named in re.findall(r"recipes/\S+\.yaml", path.read_text()))
    config = load_config_from_file(str(path))
    assert (config.distributed_type.value, config.num_processes, config.num_machines) == (kind, processes, machines)
    assert kind != "FSDP" or config.fsdp_config["fsdp_version"] == 2
    assert config.mixed_precision == "no", "precision is the recipe's"
    assert parse(RECIPES[0])[1].batch_size % processes == 0


# --------------------------------------------------------------------------- the losses on the three architectures

WINDOW, MAX_LENGTH = 8, 64


def build(model: str, **config) -> PreTrainedModel:
    size = len(plain_tokenizer())
    if model.startswith("mistral"):
        return tiny_mistral(size, **{"sliding_window": WINDOW, **config})
    if model.startswith("gemma2"):
        return tiny_gemma2(size, **{"sliding_window": WINDOW, "attn_logit_softcapping": 2.0, **config})
    return tiny_llama(size, **config)


def scored(model: PreTrainedModel, rows: list[dict], side: str, reference: Tensor | None = None) -> CompletionLogps:
    """One side of the pairs, a forward pass each, padded to one length afterwards; the reference is itself if None."""
    tokenizer, parts = plain_tokenizer(), []
    with torch.no_grad():
        for row in rows:
            start = len(tokenizer(row["prompt"])["input_ids"])
            ids = torch.tensor([tokenizer(row["prompt"] + row[side] + tokenizer.eos_token)["input_ids"]])
            mask = torch.arange(ids.shape[1])[None] >= start
            batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "completion_mask": mask}
            room = (0, MAX_LENGTH - ids.shape[1])
            parts.append((pad(completion_logps(model, batch).logps, room), pad(mask, room)))
    logps, masks = (torch.cat(values) for values in zip(*parts, strict=True))
    return CompletionLogps(logps, masks, logps if reference is None else reference)


def mean_loss(chosen: CompletionLogps, rejected: CompletionLogps, loss_type: str, settings: dict) -> float:
    """By calling the loss itself; KTO's z0 and BCO's delta are 0, as they are where the policy is the reference."""
    spec = LOSSES[loss_type]
    if spec.pairwise:
        return spec.function(chosen, rejected, **settings).mean().item()
    extra = [torch.tensor(0.0)] if spec.mismatched or spec.running_reward else []
    sides = [
        (y, torch.full((len(y.logps),), up))
        for y, up in ((chosen, True), (rejected, False))
        if spec.only in (None, up)
    ]
    return torch.cat([spec.function(y, label, *extra, **settings) for y, label in sides]).mean().item()


def test_the_tiny_models_feel_their_sliding_window_and_softcapping():
    """Else the runs below would show nothing about them."""
    rows = pairs(2)
    for model, off in (
        ("mistral-7b-instruct-v0.2", {"sliding_window": None}),
        ("gemma2-9b-it", {"sliding_window": 512}),
        ("gemma2-9b-it", {"attn_logit_softcapping": None}),
        ("gemma2-9b-it", {"final_logit_softcapping": None}),
    ):
        on, without = (scored(build(model, **config), rows, "chosen").logp for config in ({}, off))
        assert ((on - without).abs() > 0.01).all(), (model, off)


GAUGES = dict.fromkeys(("bnf", "bnf_asymmetric", "bnf_contrastive"), ("nll_pll", {}))
GAUGES["topr"] = ("nll_pll", {"per_token": False})


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.slow
def test_a_recipe_takes_real_steps_on_a_tiny_model_of_its_architecture(tmp_path, recipe):
    """Its first loss is the loss function's own, and two steps at its learning rate lower it."""
    _, config, model_config = parse(recipe)
    attention = {"attn_implementation": model_config.attn_implementation} if model_config.attn_implementation else {}
    model, rows = build(recipe, **attention), pairs(4)
    before = [scored(model, rows, side) for side in ("chosen", "rejected")]
    names = {"optim", "lr_scheduler_type", "warmup_steps", *keys_of(recipe)} & {f.name for f in fields(config)}
    kept = {name: getattr(config, name) for name in names}
    small = {"batch_size": len(rows), "output_dir": str(tmp_path / "run"), "max_length": MAX_LENGTH, "max_steps": 2}
    trainer = make_trainer(tmp_path, rows, model=model, **{**kept, **small})
    trainer.train()
    expected = mean_loss(*before, config.loss_type, config.hyperparameters)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(expected, rel=1e-5)
    # Where weights are detached the value may rise while it trains; they are all 1 here, as in nll_pll.
    gauge, settings = GAUGES.get(config.loss_type, (config.loss_type, config.hyperparameters))
    sides = zip(("chosen", "rejected"), before, strict=True)
    after = [scored(model, rows, side, reference=y.logps) for side, y in sides]
    assert mean_loss(*after, gauge, settings) < mean_loss(*before, gauge, settings)
