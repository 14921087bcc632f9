"""A real model through the product: SmolLM2-135M-Instruct from its GGUF file (`make real` fetches it)."""

import html
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors import safe_open

from bnf_align import LOSSES, PreferenceConfig, PreferenceTrainer, models, scored_text
from bnf_align.cli.main import main
from bnf_align.data.template import render
from bnf_align.engines import Request, Sampling
from bnf_align.engines.local import LocalEngine
from bnf_align.head import HeadCall, ask
from bnf_align.reference.step0 import StepZero, compare, tolerance_of
from rounding import ROUNDING

GGUF = os.environ.get("BNF_ALIGN_SMOLLM2", "")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not GGUF, reason="BNF_ALIGN_SMOLLM2 names no GGUF file: make real"),
]

DOCS = Path(__file__).parents[1] / "docs"
THUMBS = DOCS / "smollm2" / "thumbs.jsonl"
SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
QUESTIONS = [
    "What is the capital of France?",
    "Why is the sky blue?",
    "Name three colours, then say why you like them.",
]
LORA = LoraConfig(r=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")


def turns(*texts: str) -> list[dict]:
    """A conversation, the user first."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def thumbs() -> list[dict]:
    return [json.loads(line) for line in THUMBS.read_text().splitlines()]


def pairs() -> list[dict]:
    """The questions whose answers have a thumb up and a thumb down."""
    ups, downs = (
        {row["prompt"][0]["content"]: row for row in thumbs() if row["label"] is label} for label in (True, False)
    )
    return [
        {"prompt": row["prompt"], "chosen": ups[question]["completion"], "rejected": row["completion"]}
        for question, row in downs.items()
    ]


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """The model, read from its file once and saved as any other."""
    out = tmp_path_factory.mktemp("smollm2")
    loaded = models.load(GGUF)
    loaded.model.save_pretrained(out)
    loaded.tokenizer.save_pretrained(out)
    assert "quantization_config" not in json.loads((out / "config.json").read_text())
    return out


@pytest.fixture(scope="session")
def engine(folder) -> LocalEngine:
    return LocalEngine.load(str(folder), device="cpu")


def answers(engine: LocalEngine, limit: int = 24) -> list[str]:
    requests = [Request(question, turns(question)) for question in QUESTIONS]
    found = [one for batch in engine.generate(requests, Sampling(max_new_tokens=limit)) for one in batch]
    return [next(one.texts[0] for one in found if one.id == question) for question in QUESTIONS]


# ----------------------------------------------------------------------------------------- template and tokens


def test_of_a_conversation_the_last_answer_and_its_end_token_are_scored_and_nothing_else(engine):
    row = {"prompt": turns("Hi", "Hello!", "How are you?"), "chosen": turns("", "Fine.")[1:]}
    row["rejected"] = [{"role": "assistant", "content": "Why?\n"}]
    assert scored_text(row, engine.tokenizer) == ["Fine.<|im_end|>", "Why?\n<|im_end|>"]


def test_a_prompt_is_the_templates_text_with_one_token_for_each_mark(engine):
    ids = render(engine.tokenizer, turns("Hi"), {}, generation=True)
    text = f"{SYSTEM}<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert engine.tokenizer.decode(ids) == text
    assert (ids.count(1), ids.count(2)) == (3, 2)  # <|im_start|>, <|im_end|>
    assert ids == engine.tokenizer(text)["input_ids"]  # and no BOS besides


# ------------------------------------------------------------------------------------------------------ answers


def test_greedy_answers_of_a_batch_are_those_of_the_library_one_by_one(engine):
    for question, answer in zip(QUESTIONS, answers(engine), strict=True):
        ids = engine.tokenizer.apply_chat_template(
            turns(question), add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        whole = engine.model.generate(**ids, max_new_tokens=24, do_sample=False)
        assert engine.tokenizer.decode(whole[0, ids["input_ids"].shape[1] :], skip_special_tokens=True) == answer


# ----------------------------------------------------------------------------------------------------- training


def step_0(trainer: PreferenceTrainer) -> StepZero:
    """The first micro-batch of the policy as it will train, against the stored reference."""
    batch = next(iter(trainer.get_train_dataloader())).micro_batches[0]
    call = HeadCall(batch, device=trainer.args.device)
    with torch.no_grad():
        ask(trainer.model.train(), trainer.on_device(batch), call)
    return StepZero(*compare(call.completions, tolerance_of(torch.float32)).tolist())


@pytest.mark.parametrize(("loss_type", "lora"), [("bnf", False), ("dpo", False), ("bnf", True)])
def test_training_starts_at_the_reference_moves_apart_is_saved_loaded_and_answers(folder, tmp_path, loss_type, lora):
    config = PreferenceConfig(
        output_dir=str(tmp_path / "out"),
        ref_cache_dir=str(tmp_path / "cache"),
        loss_type=loss_type,
        learning_rate=1e-3 if lora else 2e-5,
        warmup_steps=0,
        batch_size=8,
        max_steps=3,
        max_tokens_per_micro_batch=1024,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    rows = pairs() if loss_type == "dpo" else thumbs()
    trainer = PreferenceTrainer(str(folder), config, train_dataset=rows, peft_config=LORA if lora else None)
    before = step_0(trainer)
    print(f"{loss_type}, lora {lora}: mean |log-ratio| {before.mean_logratio:.2g} over {before.tokens:.0f} tokens")
    assert before.tokens > 100
    assert before.mean_logratio < ROUNDING
    assert before.mean_weight == pytest.approx(1, abs=1e-3)  # odds of tokens near certainty magnify the rounding
    trainer.train()  # and step 0 is compared here once more, or it stops
    last = trainer.state.log_history[2]
    assert last["bnf/shift/chosen"] - last["bnf/shift/rejected"] > 0.01  # nats a token, after two steps
    trainer.save_model()

    name = "adapter_model.safetensors" if lora else "model.safetensors"
    with safe_open(tmp_path / "out" / name, "pt") as file:
        names = set(file.keys())
    assert not any("lm_head" in name for name in names)
    assert any("embed_tokens" in name for name in names) is not lora
    again = models.load(str(tmp_path / "out"))
    lm = again.model.get_base_model() if lora else again.model
    assert lm.lm_head.weight is lm.model.embed_tokens.weight
    assert lm.config.tie_word_embeddings
    trained, loaded = (LocalEngine(model, again.tokenizer, "m") for model in (trainer.model, again.model))
    assert trained.weights == loaded.weights
    assert answers(trained, 8) == answers(loaded, 8)


@pytest.mark.parametrize("loss_type", sorted(LOSSES))
def test_every_objective_takes_steps_that_part_real_answers(folder, tmp_path, loss_type):
    config = PreferenceConfig(
        output_dir=str(tmp_path / "out"),
        ref_cache_dir=str(tmp_path / "cache"),
        loss_type=loss_type,
        learning_rate=1e-3,
        warmup_steps=0,
        batch_size=2,
        max_steps=3,
        max_length=96,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = PreferenceTrainer(str(folder), config, train_dataset=pairs()[:2], peft_config=LORA)
    trainer.train()
    first, *_, last = (line for line in trainer.state.log_history if "learning_rate" in line)
    moved = {side: last[name] - first[name] for side in ("chosen", "rejected") if (name := f"logps/{side}") in last}
    print(loss_type, moved)
    if LOSSES[loss_type].only is None:
        assert moved["chosen"] - moved["rejected"] > 0.1  # nats a completion, after two steps on these very pairs
    else:
        assert moved["chosen"] > 0.1 if LOSSES[loss_type].only else moved["rejected"] < -0.1


# ------------------------------------------------------------------------------------------ verbs with the file


def test_the_doctor_counts_real_tokens_and_finds_what_is_wrong_with_real_rows(engine, write, capsys):
    rows = thumbs()
    up = next(row for row in rows if row["label"])
    long = [{"role": "assistant", "content": "one two " * 300}]
    rows += [up | {"label": False}, {"prompt": turns("Count."), "completion": long, "label": False}]
    flags = ["--model_name_or_path", GGUF, "--max_length", "400", "--json"]
    assert main(["doctor", str(write(rows)), *flags]) == 1
    found = json.loads(capsys.readouterr().out)
    whole = engine.tokenizer.apply_chat_template(turns("Count.") + long)["input_ids"]
    assert found["lengths"]["max"] == len(whole)
    assert found["cut_rows"] == [len(rows) - 1]
    assert "length_tells_label" in {finding["name"] for finding in found["findings"]}  # ups are short
    assert sum(found["dropped"].values()) == 2  # one answer, up and down
    assert sorted(row for dropped in found["dropped_rows"].values() for row in dropped) == [0, len(rows) - 2]


def test_every_verb_takes_the_file(tmp_path, monkeypatch, write, capsys):
    monkeypatch.chdir(tmp_path)
    write(thumbs()[:8])
    write([{"prompt": turns(QUESTIONS[0])}], "questions.jsonl")
    run = ["--model_name_or_path", GGUF, "--dataset_name", "rows.jsonl", "--output_dir", "out", "--use_cpu"]
    run += ["--ref_cache_dir", "cache", "--batch_size", "4", "--max_steps", "1", "--save_strategy", "no"]
    run += ["--report_to", "none", "--use_peft"]
    assert main(["reference", "build", *run]) == 0
    assert main(["train", *run]) == 0
    record = json.loads(Path("out/run.json").read_text())
    assert record["reference"]["computed_tokens"] == 0  # `reference build` read the same weights
    adapter = json.loads(Path("out/adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == GGUF
    capsys.readouterr()

    prompts = ["--prompts", "questions.jsonl", "-n", "1", "--temperature", "0", "--max-new-tokens", "16"]
    for name in (GGUF, "out"):  # the file, and the adapter on it
        assert main(["generate", *prompts, "--model", name, "--out", "answers.jsonl"]) == 0
        (row,) = map(json.loads, Path("answers.jsonl").read_text().splitlines())
        assert row["candidates"][0]["text"] == "The capital of France is Paris."
        Path("answers.jsonl").unlink()
    held_out = ["--data", "rows.jsonl", "--model", GGUF, "--out", "held_out.jsonl"]
    assert main(["eval", "held_out", *held_out]) == 0
    logps = [json.loads(line)["logp"] for line in Path("held_out.jsonl").read_text().splitlines()]
    assert len(logps) == 8
    assert max(logps) < 0


# --------------------------------------------------------------------------------------------------------- plan


def fresh(*command: str) -> str:
    """What `bnf-align` prints in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "bnf_align", *command], capture_output=True, text=True)
    assert done.returncode < 2, done.stderr
    return done.stdout


def close_to_the_peak(plan: dict, out: Path) -> bool:
    """Within 15 per cent of the most memory that the whole process held, interpreter and libraries included."""
    measured = json.loads((out / "run.json").read_text())["peak_memory_bytes"]
    planned = max(plan["memory_bytes"]["total"], plan["memory_bytes"]["reference_pass"])
    print(f"planned {planned / 2**20:.0f} MiB, measured {measured / 2**20:.0f} MiB, {planned / measured:.3f}")
    return planned == pytest.approx(measured, rel=0.15)


def test_the_page_that_shows_a_real_model_does_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("docs").symlink_to(DOCS)
    Path("SmolLM2-135M-Instruct.Q4_1.gguf").symlink_to(GGUF)
    page = (DOCS / "quickstart.md").read_text().partition("## A real model\n")[2].partition("\n## ")[0]
    commands = [shlex.split(line)[1:] for line in page.splitlines() if line.startswith("bnf-align ")]
    doctor, plan, train, generate = commands
    (warning,) = [line for line in page.splitlines() if line.startswith("warning")]
    assert warning in fresh(*doctor)
    planned = json.loads(fresh(*plan, "--json"))
    cached = ["--ref_cache_dir", "cache", "--report_to", "none"]
    assert "healthy." in fresh(*train, *cached)
    assert close_to_the_peak(planned, Path("out"))
    fresh(*generate)
    answers = [json.loads(line)["candidates"][0] for line in Path("answers.jsonl").read_text().splitlines()]
    assert len(answers) == 16
    assert {answer["finish_reason"] for answer in answers} == {"stop"}
    assert sum(answer["tokens"] for answer in answers) / 16 < 30  # 109 before
    fresh("report", "out", "--html", "report.html")
    record, shown = json.loads(Path("out/run.json").read_text()), html.unescape(Path("report.html").read_text())
    assert record["verdict"] in shown
    assert record["command"] in shown
    assert len(shown) < 5e6


def test_the_plan_of_an_adapter_is_close_to_the_peak_too(folder, tmp_path):
    flags = ["--model_name_or_path", str(folder), "--dataset_name", str(THUMBS), "--use_peft", "--batch_size", "8"]
    flags += ["--max_steps", "2", "--report_to", "none", "--ref_cache_dir", str(tmp_path)]
    planned = json.loads(fresh("plan", *flags, "--json"))
    fresh("train", *flags, "--output_dir", str(tmp_path / "out"))
    assert close_to_the_peak(planned, tmp_path / "out")
