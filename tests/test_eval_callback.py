"""Evaluation during training: the same slice every n steps, and training as if it had not been there."""

import json

import pytest
import torch

from bnf_align import BadInput
from bnf_align.evaluation.callback import EvalCallback
from bnf_align.evaluation.tasks import TASKS
from runs import make_trainer, singles
from tiny_models import chatml_tokenizer

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
