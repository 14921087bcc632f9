"""Merging an adapter: the exported model says what the adapter said on its base, or nothing is written."""

import json

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig

from bnf_align.cli.main import main
from bnf_align.models import load
from bnf_align.training.export import PROBES, probe_logps
from tiny_models import chatml_tokenizer
from tiny_nets import tiny_llama

MODULES = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture
def base(tmp_path):
    tokenizer = chatml_tokenizer()
    tokenizer.save_pretrained(tmp_path / "base")
    tiny_llama(len(tokenizer)).save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def adapter(base, out, model=None, **config):
    torch.manual_seed(1)
    lora = LoraConfig(r=4, target_modules=MODULES, init_lora_weights=False, task_type="CAUSAL_LM", **config)
    get_peft_model(model or AutoModelForCausalLM.from_pretrained(base), lora).save_pretrained(out)
    return out


def by_hand(model, tokenizer) -> torch.Tensor:
    """Log-probabilities of the probes, computed here."""
    found = []
    for text in PROBES:
        ids = tokenizer(text)["input_ids"]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].float()
        found += [logits[i - 1].log_softmax(-1)[ids[i]] for i in range(1, len(ids))]
    return torch.stack(found)


@pytest.mark.parametrize("config", [{}, {"modules_to_save": ["lm_head"]}, {"use_dora": True}])
def test_the_exported_model_needs_no_adapter_and_says_what_the_adapter_said(base, tmp_path, capsys, config):
    path = adapter(base, tmp_path / "adapter", **config)
    flags = ["--model", str(path), "--out", str(tmp_path / "merged"), "--dtype", "float32", "--json"]
    assert main(["export", *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    expected = by_hand(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), path).eval(), tokenizer)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    torch.testing.assert_close(by_hand(merged, tokenizer), expected, atol=1e-4, rtol=0)
    plain = by_hand(AutoModelForCausalLM.from_pretrained(base), tokenizer)
    assert (plain - expected).abs().mean() > 0.1  # or a lost adapter would go unseen
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    assert (found["tokens"], found["dtype"]) == (len(expected), "float32")
    assert max(found["merging"], found["rounding"]) < 1e-4


def test_the_end_of_turn_reaches_the_exported_generation_config(base, tmp_path):
    path = adapter(base, tmp_path / "adapter")
    chatml_tokenizer().save_pretrained(path)
    assert main(["export", "--model", str(path), "--out", str(tmp_path / "merged")]) == 0
    ends = GenerationConfig.from_pretrained(tmp_path / "merged").eos_token_id
    assert chatml_tokenizer().convert_tokens_to_ids("<|im_end|>") in ends
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template == chatml_tokenizer().chat_template


@pytest.mark.parametrize(("asked", "saved"), [("auto", torch.float16), ("bfloat16", torch.bfloat16)])
def test_the_dtype_is_the_one_the_base_is_stored_in_or_the_one_asked_for(base, tmp_path, capsys, asked, saved):
    tiny_llama(len(chatml_tokenizer())).half().save_pretrained(base)
    path = adapter(base, tmp_path / "adapter")
    assert main(["export", "--model", str(path), "--out", str(tmp_path / "merged"), "--dtype", asked]) == 0
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto").dtype is saved
    assert f"in rounding to {str(saved).removeprefix('torch.')}" in capsys.readouterr().out


def test_an_adapter_on_4_bits_is_merged_into_the_weights_it_was_trained_on(base, tmp_path):
    pytest.importorskip("bitsandbytes")
    bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    path = adapter(base, tmp_path / "adapter", AutoModelForCausalLM.from_pretrained(base, quantization_config=bits))
    flags = ["--model", str(path), "--dtype", "float32"]
    assert main(["export", *flags, "--load_in_4bit", "--out", str(tmp_path / "merged")]) == 0
    trained = load(str(path), quantization_config=bits).model
    # Outside training mode a CPU with AVX-512 in bfloat16 repacks them; others would not notice.
    modes = [module.training for module in trained.modules() if type(module).__module__.startswith("bitsandbytes")]
    assert modes
    assert all(modes)
    tokenizer = chatml_tokenizer()
    expected = by_hand(trained, tokenizer)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32).eval()
    assert not hasattr(merged.config, "quantization_config")
    assert (by_hand(merged, tokenizer) - expected).abs().mean() < 1e-3
    # Merged into the weights before they were quantised it would be another model.
    assert main(["export", *flags, "--out", str(tmp_path / "other")]) == 0
    other = AutoModelForCausalLM.from_pretrained(tmp_path / "other", dtype=torch.float32).eval()
    assert (by_hand(other, tokenizer) - expected).abs().mean() > 1e-2


def test_nothing_is_written_where_merging_changes_the_model(base, tmp_path, capsys, monkeypatch):
    path = adapter(base, tmp_path / "adapter")
    monkeypatch.setattr(PeftModel, "merge_and_unload", lambda self, **_: self.unload(), raising=False)
    assert main(["export", "--model", str(path), "--out", str(tmp_path / "merged")]) == 2
    said = capsys.readouterr().err
    assert "nats on average in merging" in said
    assert "Nothing was written" in said
    assert sorted(one.name for one in tmp_path.iterdir()) == ["adapter", "base"]


def test_a_folder_with_files_is_refused_and_an_empty_one_is_taken(base, tmp_path, capsys):
    path = adapter(base, tmp_path / "adapter")
    (tmp_path / "empty").mkdir()
    assert main(["export", "--model", str(path), "--out", str(tmp_path / "empty")]) == 0
    assert main(["export", "--model", str(path), "--out", str(tmp_path / "empty")]) == 2
    assert "is there already and is not an empty folder" in capsys.readouterr().err


def test_the_probes_are_compared_token_by_token(base):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base)
    torch.testing.assert_close(probe_logps(model, tokenizer), by_hand(model, tokenizer), atol=1e-5, rtol=0)
