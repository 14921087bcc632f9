"""A run goes on from a whole checkpoint of its own, and is never spoilt by numbers that are not finite."""

import json
import math
import shutil

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file

from bnf_align import BadInput
from bnf_align.training.checkpoints import damage, latest_checkpoint
from bnf_align.training.record import model_card
from rows import assistant, user
from runs import make_trainer, pairs, singles
from tiny_models import plain_tokenizer
from tiny_nets import tiny_llama

STEPS = {"batch_size": 4, "max_steps": 3, "save_strategy": "steps", "save_steps": 1, "optim": "adamw_torch"}
LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}


def run(tmp_path, rows=None, **options):
    return make_trainer(tmp_path, rows or singles(12), **{**STEPS, **options})


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with `checkpoint-1` to `checkpoint-3` of a run, to be copied."""
    folder = tmp_path_factory.mktemp("finished")
    run(folder).train()
    return folder


@pytest.fixture
def checkpoints(finished, tmp_path):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


# --------------------------------------------------------------------------------------------------- whole


@pytest.mark.parametrize(
    "name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"]
)
def test_latest_passes_over_a_checkpoint_with_a_file_cut_short(checkpoints, caplog, name):
    victim = checkpoints / "checkpoint-3" / name
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    assert latest_checkpoint(checkpoints) == str(checkpoints / "checkpoint-2")
    assert f"checkpoint-3 is damaged and passed over: {name} is " in caplog.text


@pytest.mark.parametrize("name", ["model.safetensors", "trainer_state.json"])
def test_latest_passes_over_a_checkpoint_without_weights_or_state(checkpoints, name):
    (checkpoints / "checkpoint-3" / name).unlink()
    assert latest_checkpoint(checkpoints) == str(checkpoints / "checkpoint-2")


def test_a_shard_that_an_index_names_and_that_is_missing_is_damage(checkpoints):
    folder = checkpoints / "checkpoint-3"
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert damage(folder) == "model-00002-of-00002.safetensors is missing"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index["weight_map"] | {"c": 5}}))
    assert damage(folder) == "5 is missing"


def test_latest_without_a_checkpoint_starts_from_the_beginning_and_says_so(tmp_path, caplog):
    assert latest_checkpoint(tmp_path) is None
    assert "starting from the beginning" in caplog.text


def test_a_damaged_checkpoint_that_was_named_is_refused_with_the_way_out(checkpoints, tmp_path):
    (checkpoints / "checkpoint-2" / "optimizer.pt").write_bytes(b"PK")
    with pytest.raises(BadInput, match=r"checkpoint-2 is damaged: optimizer.pt is cut short.*latest takes"):
        run(tmp_path).train(resume_from_checkpoint=str(checkpoints / "checkpoint-2"))


def test_a_checkpoint_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(BadInput, match="there is no such folder"):
        run(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-9"))


def test_an_adapters_checkpoint_is_whole_and_is_resumed(tmp_path):
    lora = {"peft_config": LoraConfig(**LORA)}
    run(tmp_path, **lora).train()
    assert damage(tmp_path / "run" / "checkpoint-2") is None
    resumed = run(tmp_path, **lora)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert resumed.state.global_step == 3


# --------------------------------------------------------------------------------------------- of this run


@pytest.mark.parametrize(
    ("rows", "options", "named"),
    [
        ([{**row, "completion": row["completion"] + "!"} for row in singles(12)], {}, "examples"),
        ([{**row, "label": not row["label"]} for row in singles(12)], {}, "examples"),
        (singles(12)[::-1], {}, "examples"),
        (singles(11), {}, "number of examples: 12 there, 11 here"),
        (None, {"seed": 7}, "seed of the order: 42 there, 7 here"),
        (None, {"batch_size": 6}, "batch_size: 4 there, 6 here"),
        (None, {"loss_type": "kto"}, "loss_type: bnf there, kto here"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_the_difference_named(checkpoints, tmp_path, rows, options, named):
    trainer = run(tmp_path, rows, **options)
    with pytest.raises(BadInput, match="is a checkpoint of another run") as raised:
        trainer.train(resume_from_checkpoint=str(checkpoints / "checkpoint-2"))
    assert named in str(raised.value)


def test_a_checkpoint_of_another_starting_model_is_refused(checkpoints, tmp_path):
    from tiny_nets import tiny_llama

    with pytest.raises(BadInput, match=r"reference: \w+ there, \w+ here"):
        run(tmp_path, model=tiny_llama(258, seed=5)).train(resume_from_checkpoint="latest")


@pytest.mark.parametrize(
    "options",
    [{}, {"learning_rate": 1e-4}, {"max_tokens_per_micro_batch": 64}, {"max_steps": 4}, {"logging_steps": 2}],
    ids=str,
)
def test_what_may_differ_goes_on(checkpoints, tmp_path, options):
    trainer = run(tmp_path, **options)
    trainer.train(resume_from_checkpoint=str(checkpoints / "checkpoint-2"))
    assert trainer.state.global_step == trainer.args.max_steps


def test_a_checkpoint_without_a_card_is_taken_and_that_is_said(checkpoints, tmp_path, caplog):
    (checkpoints / "checkpoint-2" / "bnf_align.json").unlink()
    run(tmp_path).train(resume_from_checkpoint=str(checkpoints / "checkpoint-2"))
    assert "has no bnf_align.json" in caplog.text


# ------------------------------------------------------------------------------- a template that writes the date

DATED = (
    "{{ strftime_now('%d %B %Y') + ' ' }}{%- for message in messages %}{{ message.role + ':' + message.content }}"
    "{%- if message.role == 'assistant' %}<eos>{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}assistant:{%- endif %}"
)


def dated_run(tmp_path, **options):
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "dated.jinja").write_text(DATED)
    rows = [
        {"prompt": [user(row["prompt"])], "completion": [assistant(row["completion"])], "label": row["label"]}
        for row in singles(12)
    ]
    return run(tmp_path, rows, chat_template_path=str(tmp_path / "dated.jinja"), **options)


def tokens_of_run(trainer) -> str:
    return trainer.processing_class.decode(trainer.train_dataset.responses.tokens(0))


def test_a_run_that_goes_on_tomorrow_trains_on_the_tokens_that_it_began_with(tmp_path):
    whole = dated_run(tmp_path / "whole", template_date="2031-02-03")
    assert tokens_of_run(whole).startswith("03 February 2031 user:")
    whole.train()
    dated_run(tmp_path / "cut", template_date="2031-02-03", max_steps=2).train()
    for resume in ("latest", str(tmp_path / "cut" / "run" / "checkpoint-2")):
        tomorrow = dated_run(tmp_path / "cut", resume_from_checkpoint=resume)
        assert tokens_of_run(tomorrow) == tokens_of_run(whole)
        assert tomorrow.prepared.reference.computed_tokens == 0
        tomorrow.train(resume_from_checkpoint=str(tmp_path / "cut" / "run" / "checkpoint-2"))
        ours, expected = tomorrow.model.state_dict(), whole.model.state_dict()
        assert all(torch.equal(ours[name], expected[name]) for name in expected)


def test_a_checkpoint_whose_tokens_hold_another_date_is_refused_with_the_date_that_mends_it(tmp_path):
    dated_run(tmp_path, template_date="2031-02-03", max_steps=1).train()
    for date in ("2031-02-04", None):
        trainer = dated_run(tmp_path, template_date=date)
        with pytest.raises(BadInput, match=r"another run \(examples: .*, --template_date 2031-02-03 among them"):
            trainer.train(resume_from_checkpoint="latest")


def test_another_day_is_no_other_run_where_the_template_writes_no_date(tmp_path):
    run(tmp_path, template_date="2031-02-03", max_steps=1).train()
    trainer = run(tmp_path, template_date="2031-02-04", max_steps=2)
    trainer.train(resume_from_checkpoint="latest")
    assert trainer.state.global_step == 2


@pytest.mark.parametrize("date", ["today", "2031-02-30", "03.02.2031"])
def test_what_is_no_date_is_refused(tmp_path, date):
    with pytest.raises(BadInput, match=f"--template_date {date}: a date is needed, such as 2026-11-30"):
        run(tmp_path, template_date=date)


def test_a_checkpoint_without_optimizer_state_says_that_the_optimizer_begins_anew(tmp_path, caplog):
    run(tmp_path, save_only_model=True).train()
    run(tmp_path).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert "has no optimizer state (--save_only_model)" in caplog.text


# ------------------------------------------------------------------------------------------------ not finite


def test_a_learning_rate_that_breaks_the_weights_stops_at_the_step_and_keeps_the_finite_checkpoint(tmp_path):
    trainer = run(tmp_path, learning_rate=1e30, max_steps=8, save_steps=2, save_total_limit=1, optim="sgd")
    with pytest.raises(BadInput, match=r"Step \d: the \w+ is NaN or infinite, and the step is not taken"):
        trainer.train()
    assert trainer.state.global_step < 3
    for path in (tmp_path / "run").glob("checkpoint-*/model.safetensors"):
        assert all(torch.isfinite(weight).all() for weight in load_file(path).values())
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_rows_whose_log_probabilities_are_not_finite_are_named(tmp_path):
    """A NaN in the embedding of one byte: the rows that have it are named, and no others."""
    rows = [{"prompt": "a ", "completion": "b" * 4, "label": True} for _ in range(5)]
    rows[3] = {"prompt": "a ", "completion": "bbz", "label": False}
    trainer = run(tmp_path, rows, batch_size=5, max_steps=1, max_tokens_per_micro_batch=20, check_step_0=False)
    token = trainer.processing_class("z")["input_ids"][0]
    with torch.no_grad():
        trainer.model.model.embed_tokens.weight[token] = math.nan
    before = trainer.model.lm_head.weight.clone()
    with pytest.raises(BadInput, match=r"Step 1: the loss is NaN.*Not finite in 1 row \(3\) of the training data"):
        trainer.train()
    assert torch.equal(trainer.model.lm_head.weight, before)


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_is_noticed_though_the_loss_is(tmp_path, max_grad_norm):
    trainer = run(tmp_path, max_steps=1, max_grad_norm=max_grad_norm)
    trainer.model.model.norm.weight.register_hook(lambda gradient: gradient * math.inf)
    before = trainer.model.lm_head.weight.clone()
    with pytest.raises(BadInput, match=r"Step 1: the gradient is NaN or infinite.*The step has 4 rows"):
        trainer.train()
    assert torch.equal(trainer.model.lm_head.weight, before)


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    trainer = run(tmp_path)
    trainer.save_model()
    good = load_file(tmp_path / "run" / "model.safetensors")
    with torch.no_grad():
        trainer.model.lm_head.weight[0, 0] = math.inf
    with pytest.raises(BadInput, match="Weights are NaN or infinite after step 0, and are not saved"):
        trainer.save_model()
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(saved[name], weight) for name, weight in good.items())


def test_a_reference_that_is_not_finite_is_never_cached(tmp_path):
    from bnf_align.reference.cache import namespaces
    from tiny_models import plain_tokenizer
    from tiny_nets import tiny_llama

    tokenizer, model = plain_tokenizer(), tiny_llama(258)
    with torch.no_grad():
        model.model.embed_tokens.weight[tokenizer("z")["input_ids"][0]] = math.nan
    rows = [*singles(6), {"prompt": "z", "completion": "a", "label": True}]
    with pytest.raises(BadInput, match="NaN or infinite"):
        make_trainer(tmp_path, rows, model=model, max_tokens_per_micro_batch=30)
    assert all(info.rows < 7 for info in namespaces(tmp_path / "cache"))


# ------------------------------------------------------------------------------------------------- records


def test_run_json_is_written_after_the_weights_it_speaks_of(tmp_path, monkeypatch):
    trainer = run(tmp_path, max_steps=1)
    trainer.train()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(trainer.model), "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        trainer.save_model()
    assert not (tmp_path / "run" / "run.json").exists()
    assert not (tmp_path / "run" / "README.md").exists()


def test_the_card_names_a_model_by_its_folder_and_not_by_the_way_there(tmp_path):
    tiny_llama(len(plain_tokenizer())).save_pretrained(tmp_path / "somewhere" / "my-model")
    record = {
        **{"model": str(tmp_path / "somewhere" / "my-model"), "reference": None, "loss_kwargs": {}, "versions": {}},
        **{"metrics": {}, "loss_type": "bnf", "verdict": "", "arguments": {"learning_rate": 1, "batch_size": 1}},
        "seed": 0,
    }
    card = model_card(record, {})
    assert str(tmp_path) not in card
    assert "base_model: my-model" in card
    assert "base_model: owner/name" in model_card(record | {"model": "owner/name"}, {})


def test_every_evaluation_set_has_its_own_verdict(tmp_path):
    trainer = run(tmp_path, max_steps=1, eval_rows={"eval": pairs(3), "hard": singles(4)})
    trainer.train()
    assert {"eval_eval_loss", "eval_hard_loss"} <= trainer.evaluate().keys()
    assert trainer.record.health().text.count("against the reference") == 2
    assert "eval: " in trainer.record.health().text
    assert "hard: " in trainer.record.health().text
    assert "Measured on 6 held-out responses, which are few" in trainer.record.health().text
    assert "Measured on 4 held-out responses, which are few" in trainer.record.health().text
