"""Evaluation during training: the same slice every n steps, and training as if it had not been there."""

import json

import pytest
import torch

from bnf_align import BadInput
from bnf_align.cli.main import main
from bnf_align.evaluation.callback import EvalCallback
from bnf_align.evaluation.tasks import TASKS
from runs import make_trainer, singles
from tiny_models import chatml_tokenizer
from tiny_nets import tiny_llama

ITEMS = [{"id": str(i), "question": f"What is {i} + 1?", "answer": str(i + 1)} for i in range(4)]


def trained(folder, callback: bool, **options):
    trainer = make_trainer(folder, singles(8), batch_size=4, max_steps=4, learning_rate=1e-3, **options)
    trainer.processing_class.chat_template = chatml_tokenizer().chat_template
    if callback:
        trainer.add_callback(EvalCallback(trainer, TASKS["gsm8k"], ITEMS, every=2, samples=2, max_new_tokens=8))
    trainer.train()
    return trainer


def test_training_goes_on_bit_for_bit_as_without_it(tmp_path):
    with_it, without = trained(tmp_path / "with", True), trained(tmp_path / "without", False)
    for (name, one), other in zip(with_it.model.named_parameters(), without.model.parameters(), strict=True):
        assert torch.equal(one, other), name


def test_it_logs_before_the_first_step_every_n_and_after_the_last(tmp_path):
    trainer = trained(tmp_path, True)
    logged = [log for log in trainer.state.log_history if "eval_gsm8k/accuracy" in log]
    assert [log["step"] for log in logged] == [0, 2, 4]
    assert all(log["eval_gsm8k/total"] == 4 for log in logged)
    lines = [json.loads(line) for line in (tmp_path / "run" / "answers_gsm8k.jsonl").read_text().splitlines()]
    assert [(line["step"], line["id"]) for line in lines] == [(s, i) for s in (0, 2, 4) for i in ("0", "1")]


def test_a_task_with_a_judge_is_refused(tmp_path):
    trainer = make_trainer(tmp_path, singles(4), batch_size=4)
    with pytest.raises(BadInput, match="arena_hard cannot be scored during training"):
        EvalCallback(trainer, TASKS["arena_hard"], ITEMS)


def recipe(folder, *flags) -> list[str]:
    """The command line of a run of four steps."""
    tokenizer = chatml_tokenizer()
    tokenizer.save_pretrained(folder / "model")
    tiny_llama(len(tokenizer)).save_pretrained(folder / "model")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in singles(8)))
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in ITEMS))
    files = ["--model_name_or_path", folder / "model", "--dataset_name", folder / "rows.jsonl"]
    files += ["--output_dir", folder / "out", "--ref_cache_dir", folder / "cache"]
    shape = ["--batch_size", 4, "--max_steps", 2, "--max_length", 128, "--use_cpu", "--save_strategy", "no"]
    items = ("--eval_task_data", folder / "items.jsonl") if "--eval_task" in flags else ()
    return [str(word) for word in ("train", *files, *shape, *items, *flags)]


def test_the_command_answers_the_first_items_and_keeps_samples(tmp_path):
    flags = ["--eval_task", "gsm8k", "--eval_task_items", "2", "--eval_task_steps", "1"]
    assert main(recipe(tmp_path, *flags)) == 0
    lines = [json.loads(line) for line in (tmp_path / "out" / "answers_gsm8k.jsonl").read_text().splitlines()]
    assert [(line["step"], line["id"]) for line in lines] == [(s, i) for s in (0, 1, 2) for i in ("0", "1")]


@pytest.mark.parametrize("task", ["arena_hard", "held_out", "gsm9k"])
def test_a_task_that_cannot_be_had_shows_before_the_reference_pass(tmp_path, task, capsys):
    assert main(recipe(tmp_path, "--eval_task", task)) == 2
    assert task in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
