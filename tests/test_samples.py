"""Answers to a user's own prompts before and after training, and what they say of the run's health."""

import json

import pytest
import torch

from bnf_align.cli.main import main
from bnf_align.engines import Request, Sampling
from bnf_align.engines.local import LocalEngine
from bnf_align.evaluation.callback import SampleCallback, measures, repeats_itself
from bnf_align.training.health import samples_health
from runs import make_trainer, singles
from test_eval_callback import recipe

PROMPTS = [{"id": "a", "prompt": "one two"}, {"id": "b", "prompt": "three"}]


def trained(folder, callback: bool, **options):
    trainer = make_trainer(folder, singles(8), batch_size=4, max_steps=4, learning_rate=1e-2, **options)
    before = greedy(trainer)
    if callback:
        trainer.add_callback(SampleCallback(trainer, PROMPTS, max_new_tokens=6))
    trainer.train()
    return trainer, before


def greedy(trainer) -> list[str]:
    engine = LocalEngine(trainer.model, trainer.processing_class, name="here")
    requests = [Request(row["id"], row["prompt"]) for row in PROMPTS]
    found = {one.id: one.texts[0] for batch in engine.generate(requests, Sampling(max_new_tokens=6)) for one in batch}
    return [found[row["id"]] for row in PROMPTS]


def lines(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_answers_are_those_of_the_model_before_and_after_and_training_is_as_without_them(tmp_path):
    trainer, before = trained(tmp_path / "with", True)
    other, _ = trained(tmp_path / "without", False)
    for (name, one), twin in zip(trainer.model.named_parameters(), other.model.parameters(), strict=True):
        assert torch.equal(one, twin), name
    rows = lines(tmp_path / "with" / "run" / "samples.jsonl")
    assert [(row["id"], row["prompt"]) for row in rows] == [("a", "one two"), ("b", "three")]
    assert [row["before"] for row in rows] == before
    assert [row["after"] for row in rows] == greedy(trainer)
    assert before != greedy(trainer)  # else the two could be exchanged
    for when in ("before", "after"):  # six tokens are the most
        assert [row[f"{when}_ended"] for row in rows] == [row[f"{when}_tokens"] < 6 for row in rows]
    logged = {name: value for line in trainer.state.log_history for name, value in line.items()}
    assert {f"samples/{name}": value for name, value in measures(rows).items()}.items() <= logged.items()


def test_a_resumed_run_keeps_the_answers_from_before_training(tmp_path):
    trainer = make_trainer(tmp_path, singles(8), batch_size=4, max_steps=4, save_strategy="steps", save_steps=2)
    trainer.add_callback(SampleCallback(trainer, PROMPTS, max_new_tokens=6))
    trainer.train()
    path = tmp_path / "run" / "samples.jsonl"
    whole = lines(path)
    begun = [{name: value for name, value in row.items() if not name.startswith("after")} for row in whole]
    path.write_text("".join(json.dumps(row) + "\n" for row in begun))
    again = make_trainer(tmp_path, singles(8), batch_size=4, max_steps=4, save_strategy="steps", save_steps=2)
    again.add_callback(SampleCallback(again, PROMPTS, max_new_tokens=6))
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert lines(path) == whole


def test_a_run_begun_without_samples_says_which_answers_are_missing(tmp_path, caplog):
    trainer = make_trainer(tmp_path, singles(8), batch_size=4, max_steps=4, save_strategy="steps", save_steps=2)
    trainer.train()
    again = make_trainer(tmp_path, singles(8), batch_size=4, max_steps=4, save_strategy="steps", save_steps=2)
    again.add_callback(SampleCallback(again, PROMPTS, max_new_tokens=6))
    again.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    assert [row["before"] for row in lines(tmp_path / "run" / "samples.jsonl")] == [None, None]
    assert "2 prompts have no answer from before training" in caplog.text


def test_the_command_answers_the_prompts_of_a_file_through_the_chat_template(tmp_path):
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in PROMPTS))
    flags = ["--sample_prompts", str(tmp_path / "prompts.jsonl"), "--sample_tokens", "4"]
    assert main(recipe(tmp_path, *flags)) == 0
    rows = lines(tmp_path / "out" / "samples.jsonl")
    assert [row["prompt"] for row in rows] == [[{"role": "user", "content": row["prompt"]}] for row in PROMPTS]
    assert all(row["before_tokens"] <= 4 and row["after_tokens"] <= 4 for row in rows)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["command"].startswith("bnf-align train --model_name_or_path ")
    assert record["command"].endswith("--sample_tokens 4")
    metrics = record["metrics"]
    assert metrics["samples/tokens"] == pytest.approx(sum(row["after_tokens"] for row in rows) / 2)


def test_the_measures_of_hand_written_answers():
    rows = [
        {"before": "a", "before_ended": True, "before_tokens": 2, "after": "a " * 9, "after_ended": False},
        {"before": "b", "before_ended": True, "before_tokens": 4, "after": "b c", "after_ended": True},
        {"before": None, "after": "c", "after_ended": True},
    ]
    for row, tokens in zip(rows, (10, 3, 2), strict=True):
        row["after_tokens"] = tokens
    assert measures(rows) == {
        **{"never_ended_before": 0.0, "repeated_before": 0.0, "tokens_before": 3.0},
        **{"never_ended": pytest.approx(1 / 3), "repeated": pytest.approx(1 / 3), "tokens": 5.0},
    }


@pytest.mark.parametrize(
    ("text", "repeats"),
    [
        ("one two three four five six", False),
        ("a b c d a b c d", False),  # 4 of 5 stretches are new
        ("a b c d a b c d a b c d", True),  # 4 of 9
        ("a a a a a a a", True),
        ("a a a", False),  # too short for a stretch
        ("", False),
    ],
)
def test_an_answer_repeats_itself_where_most_of_its_stretches_were_there_before(text, repeats):
    assert repeats_itself(text) is repeats


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({}, []),
        ({"samples/never_ended": 0.3, "samples/never_ended_before": 0.25}, []),
        ({"samples/never_ended": 0.3, "samples/never_ended_before": 0.1}, ["30% of the sample answers never ended"]),
        ({"samples/never_ended": 0.1, "samples/never_ended_before": 0.3}, []),
        ({"samples/repeated": 0.5, "samples/repeated_before": 0.0}, ["50% of the sample answers repeat themselves"]),
    ],
)
def test_health_is_amber_where_more_sample_answers_never_end_or_repeat_themselves(metrics, said):
    found = samples_health(metrics)
    assert [one.text.split(",")[0] for one in found] == said
    assert all(one.colour == "amber" for one in found)


def test_health_json_follows_the_log_and_ends_with_the_verdict_of_run_json(tmp_path):
    trainer = make_trainer(tmp_path, singles(8), batch_size=4, max_steps=4, logging_steps=1, learning_rate=1e-2)
    seen = []
    log = trainer.log
    path = tmp_path / "run" / "health.json"
    trainer.log = lambda *words: (log(*words), seen.append(json.loads(path.read_text())))[0]
    trainer.train()
    assert [one["step"] for one in seen] == [1, 2, 3, 4, 4]
    assert not any(one["finished"] for one in seen)
    trainer.save_model()
    record, run = (json.loads((tmp_path / "run" / name).read_text()) for name in ("health.json", "run.json"))
    assert (record["colour"], record["text"]) == (run["health"], run["verdict"])
    assert record["finished"]
    assert record["max_steps"] == 4
    logged = [line for line in record["history"] if "bnf/shift/chosen" in line]
    assert [line["step"] for line in logged] == [1, 2, 3, 4]
    assert [line["bnf/shift/chosen"] for line in logged] == [
        line["bnf/shift/chosen"] for line in trainer.state.log_history if "bnf/shift/chosen" in line
    ]
    assert {line["colour"] for line in logged} <= {"green", "amber", "red"}


def test_a_run_shorter_than_logging_steps_still_prints_a_line(tmp_path, capsys):
    trainer = make_trainer(tmp_path, singles(8), batch_size=4, max_steps=3, logging_steps=10, disable_tqdm=False)
    trainer.train()
    assert "step 3: weight " in capsys.readouterr().out
