"""What strangers wrote drives no terminal, chat templates end, and keys are in nothing that is kept or said."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from bnf_align import models
from bnf_align.cli.main import inert, main
from bnf_align.data import template
from bnf_align.data.template import TemplateRefusal, dated, render_text, template_facts
from bnf_align.feedback.store import Store, thumb
from bnf_align.records import BadInput
from construct_runs import write
from model_server import Instead, ModelServer, prompt_of
from rows import user
from tiny_models import chatml_tokenizer, plain_tokenizer
from tiny_nets import tiny_llama

ESCAPES = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202e\r\x08\ud800"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = plain_tokenizer()
    tokenizer.save_pretrained(folder)
    tiny_llama(len(tokenizer)).save_pretrained(folder)
    return str(folder)


# --------------------------------------------------------------------------------------------------------- terminal


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ✓ 文\ttab\n", "plain ✓ 文\ttab\n"),
        ("👩‍💻 e\u0301", "👩‍💻 e\u0301"),
        ("\x1b[2J", r"\x1b[2J"),
        ("\x9b31m\x07\x08\x7f", r"\x9b31m\x07\x08\x7f"),
        ("a\rb\r\n", r"a\rb\r" + "\n"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("half \ud83d", r"half \ud83d"),
        ("\r 50%|#####", "\r 50%|#####"),
        ("\n\x1b[A", "\n\x1b[A"),
        ("\x1b[A\x1b[2J", r"\x1b[A\x1b[2J"),
        ("\r\x1b[2J", "\r" + r"\x1b[2J"),
    ],
)
def test_what_a_terminal_obeys_is_spelled_out_and_all_else_stays(text, shown):
    assert inert(text) == shown


def hostile(folder: Path, model: str) -> dict[str, list[str]]:
    """Commands whose messages repeat what stands in their input."""
    rows = [{"prompt": f"p {ESCAPES}", "completion": "a", "label": f"maybe {ESCAPES}"}]
    write(folder / "rows.jsonl", rows * 3)
    write(folder / "prompts.jsonl", [{ESCAPES: "x"}])
    (folder / "broken.jsonl").write_text(f'{{"prompt": "{ESCAPES.replace(chr(0xD800), "")}\n')
    write(folder / "scored.jsonl", [{"id": ESCAPES, "prompt": "p", "candidates": [{"text": "a"}]}])
    (folder / "recipe.yaml").write_text(json.dumps({ESCAPES: 1}))
    store = Store(folder / "feedback.jsonl")
    store.append(thumb([user("?")], "!", True, user=f"Ann {ESCAPES}"))
    train = ["train", "--model_name_or_path", model, "--output_dir", str(folder / "out")]
    return {
        "train": [*train, "--dataset_name", str(folder / "rows.jsonl"), "--use_cpu", "true"],
        "train, broken line": [*train, "--dataset_name", str(folder / "broken.jsonl")],
        "train, recipe": ["train", "--config", str(folder / "recipe.yaml")],
        "doctor": ["doctor", str(folder / "rows.jsonl")],
        "import": ["import", "table", str(folder / "rows.jsonl"), "--out", str(folder / "new.jsonl")],
        "generate": ["generate", "--prompts", str(folder / "prompts.jsonl"), "--model", "m", "--out", "o.jsonl"],
        "select": ["select", str(folder / "scored.jsonl"), "--out", str(folder / "pairs.jsonl")],
        "collect": ["collect", "--store", str(folder / "feedback.jsonl"), "--delete-user", ESCAPES],
        "a verb that is none": [ESCAPES],
    }


def test_escape_sequences_of_data_reach_no_terminal_through_any_message(tmp_path, model, capfd):
    repeated = 0
    for name, command in hostile(tmp_path, model).items():
        assert main(command) in (0, 1, 2), name
        said = "".join(capfd.readouterr())
        assert not [c for c in "\x1b\x07\x9b\u202e\x08\ud800" if c in said], name
        repeated += r"\x1b[2J" in said
    assert repeated >= 5


def test_what_is_logged_is_inert_too(tmp_path):
    """In a process of its own: here pytest has the log."""
    write(tmp_path / "rows.jsonl", [{"prompt": [user("Hi")], "candidates": ["a"], "x\x1b[2J": 1}])
    code = "import logging, sys; from bnf_align.cli import doctor, main\n"
    code += "def verb(argv): logging.basicConfig(); logging.warning('a \\x1b[2J b'); return 0\n"
    code += "doctor.main = verb; sys.exit(main.main(['doctor']))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert r"a \x1b[2J b" in done.stderr
    assert "\x1b" not in done.stderr


# -------------------------------------------------------------------------------------------------------- templates


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", "has no end"),
        ("{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}", "has no end"),
        ("{{ 'x' * 10000000000000 }}", "has no end"),
        ("{{ 9**9**9 }}", "computes powers"),
        ("{% set n = messages | length %}{{ n ** n }}", "computes powers"),
    ],
)
def test_a_chat_template_without_end_stops_the_run_with_a_message(text, said, monkeypatch):
    monkeypatch.setattr(template, "SLOWEST", 0.2)
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = text
    with pytest.raises(BadInput, match=said) as caught:
        render_text(tokenizer, [user("Hi")], {})
    assert not isinstance(caught.value, TemplateRefusal)
    tokenizer.chat_template = "**{{ messages[0].content }}** {{ 2 * 3 }}"
    assert render_text(tokenizer, [user("Hi")], {}) == "**Hi** 6"


def test_a_rows_own_template_is_held_to_the_same():
    with pytest.raises(BadInput, match="computes powers"):
        render_text(chatml_tokenizer(), [user("Hi")], {"chat_template_kwargs": {"chat_template": "{{ 9**9 }}"}})
    for no_template in (["x"], {"a": 1}, 5):
        row = {"chat_template_kwargs": {"chat_template": no_template}}
        with pytest.raises(TemplateRefusal):
            render_text(chatml_tokenizer(), [user("Hi")], row)
        tokenizer = chatml_tokenizer()
        tokenizer.chat_template = "{{ strftime_now('%Y') }}"
        assert dated(row, tokenizer, "2026-11-30") == row


def test_so_is_each_of_several_templates_and_the_default_one_writes_what_has_no_tools():
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = {"default": "{{ messages[0].content }}", "tool_use": "{{ tools }}"}
    assert render_text(tokenizer, [user("Hi")], {}) == "Hi"
    assert template_facts(tokenizer).ends == ()
    tokenizer.chat_template["tool_use"] = "{{ 9**9 }}"
    with pytest.raises(BadInput, match="computes powers"):
        render_text(tokenizer, [user("Hi")], {})


@pytest.mark.parametrize("text", ["{% for a in range(9999999) %}{% endfor %}", "{{ 1 / 0 }}"])
def test_what_the_sandbox_refuses_is_a_refusal(text):
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = text
    with pytest.raises(TemplateRefusal):
        render_text(tokenizer, [user("Hi")], {})


@pytest.mark.parametrize(
    "text",
    [
        "{{ messages.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ messages.append({'role': 'user', 'content': 'x'}) }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_the_sandbox_lets_nothing_out(text):
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = text
    try:
        shown = render_text(tokenizer, [user("Hi")], {})
    except TemplateRefusal:
        return
    assert shown == ""


# ---------------------------------------------------------------------------------------------------------- pickles


class Opens:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


def test_an_adapter_as_a_pickle_is_not_read(tmp_path, model):
    from peft import LoraConfig, get_peft_model

    base = models.load(model).model
    get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    torch.save({**load_file(weights), "x": Opens(tmp_path / "owned")}, weights.with_suffix(".bin"))
    weights.unlink()
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    settings["base_model_name_or_path"] = model
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(BadInput, match=r"a pickle, and pickles run code .*adapter_model.safetensors first"):
        models.load(str(tmp_path / "adapter"))
    assert not (tmp_path / "owned").exists()


def test_a_checkpoint_whose_optimizer_is_a_program_does_not_run_it(tmp_path, model):
    write(tmp_path / "rows.jsonl", [{"prompt": f"{n} ", "completion": "ab", "label": n % 2 == 0} for n in range(8)])
    flags = ["train", "--model_name_or_path", model, "--dataset_name", str(tmp_path / "rows.jsonl"), "--use_cpu=true"]
    flags += ["--output_dir", str(tmp_path / "out"), "--ref_cache_dir", str(tmp_path / "cache"), "--batch_size=4"]
    assert main([*flags, "--save_strategy=steps", "--save_steps=1"]) == 0
    checkpoint = tmp_path / "out" / "checkpoint-1"
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save(Opens(tmp_path / "owned"), checkpoint / name)
        with pytest.raises(Exception):  # noqa: B017 (torch's own, of several types)
            main([*flags, "--resume_from_checkpoint", str(checkpoint)])
        assert not (tmp_path / "owned").exists()


# ---------------------------------------------------------------------------------------------------------- secrets

KEY = "sk-proj-Zq8vT4mN2xWc7Lr5Hy9Kd3Bf6Gj1Ps0A"


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_key_of_the_environment_is_in_no_file_message_log_or_process_list(tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level("DEBUG")
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "prompts.jsonl", [{"prompt": f"say {n}"} for n in range(3)])
    write(tmp_path / "items.jsonl", [{"id": str(n), "question": "2+2?", "answer": "#### 4"} for n in range(2)])
    listed: list[str] = []

    def answer(body):
        listed.append(" ".join(psutil.Process().cmdline()))
        if "refuse" in body["model"]:
            raise Instead(401, f"Incorrect API key provided: {KEY}")
        return json.dumps({"score": 5, "text": f"{prompt_of(body)}: your key is {KEY}"})

    with ModelServer(answer=answer, failures=0.3, kinds=["500", "cut"]) as server:
        url = ["--url", server.url]
        generate = ["generate", "--prompts", "prompts.jsonl", *url, "--temperature", "1", "-n", "2"]
        assert main([*generate, "--model", "m", "--out", "said.jsonl"]) == 0
        assert main([*generate, "--model", "refuse", "--out", "refused.jsonl"]) == 2
        judge = ["score", "said.jsonl", "--scorer", "judge", "--model", "j", *url, "--cache", "judged"]
        assert main([*judge, "--out", "scored.jsonl"]) == 0
        run = ["eval", "run", "--task", "gsm8k", "--data", "items.jsonl", *url, "--model", "m", "--out", "eval.jsonl"]
        assert main(run) == 0
        assert server.keys == {f"Bearer {KEY}"}
    assert main(["select", "scored.jsonl", "--out", "pairs.jsonl", "--margin", "0"]) in (0, 2)
    assert main(["env"]) == 0
    said = "".join(capfd.readouterr()) + caplog.text + "".join(listed)
    assert KEY not in said
    files = everything(tmp_path)
    assert {"said.jsonl", "scored.jsonl", "eval.jsonl"} <= {Path(name).name for name in files}
    assert any(b"[key]" in data for data in files.values())
    assert [name for name, data in files.items() if KEY.encode() in data] == []


def test_a_secret_in_the_data_is_in_no_record_card_or_report(tmp_path, monkeypatch, model, capfd, caplog):
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": f"{n} my key ", "completion": f"is {KEY}", "label": n % 2 == 0} for n in range(8)]
    write(tmp_path / "rows.jsonl", rows)
    assert main(["doctor", "rows.jsonl", "--html", "page.html"]) == 1
    assert main(["doctor", "rows.jsonl", "--json"]) == 1
    found = "".join(capfd.readouterr())
    assert "key" in found
    assert KEY not in found
    assert main(["import", "auto", "rows.jsonl", "--out", "clean.jsonl", "--redact"]) in (0, 1)
    train = ["train", "--model_name_or_path", model, "--dataset_name", "rows.jsonl", "--output_dir", "out"]
    assert main([*train, "--ref_cache_dir", "cache", "--use_cpu", "true", "--max_length", "128"]) == 0
    assert KEY not in "".join(capfd.readouterr()) + caplog.text
    holders = {Path(name).name for name, data in everything(tmp_path).items() if KEY.encode() in data}
    assert holders == {"rows.jsonl"}


@pytest.mark.parametrize("verb", ["generate", "collect"])
def test_a_key_in_the_place_of_a_variables_name_is_refused_and_not_repeated(verb, tmp_path, capfd):
    flags = ["--url", "http://127.0.0.1:9", "--model", "m", "--api-key-env", KEY]
    more = ["--prompts", str(tmp_path / "p.jsonl"), "--out", str(tmp_path / "o.jsonl")] if verb == "generate" else []
    more += ["--store", str(tmp_path / "s.jsonl")] if verb == "collect" else []
    if verb == "collect":
        flags[2] = "--model_name_or_path"
    write(tmp_path / "p.jsonl", [{"prompt": "say 1"}])
    assert main([verb, *flags, *more]) == 2
    said = "".join(capfd.readouterr())
    assert "--api-key-env takes the name of an environment variable" in said
    assert KEY not in said
