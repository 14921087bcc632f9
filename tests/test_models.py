"""The one loader, and a model made ready: whatever the name, all rooms get the same model, tokenizer and adapter."""

import ast
import contextlib
import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from peft import LoHaConfig, LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig

from bnf_align import BadInput, PreferenceConfig, PreferenceTrainer, models
from bnf_align.cli.main import main
from bnf_align.engines.local import LocalEngine
from runs import first_gradient, make_trainer, singles
from tiny_models import CHATML_TEMPLATE, byte_tokenizer, chatml_tokenizer, plain_tokenizer
from tiny_nets import tiny_llama

OTHER_TEMPLATE = CHATML_TEMPLATE.replace("<|im_start|>", "<|im_start|>#")
LORA = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
TURNS = [{"role": "user", "content": "Hi"}]


def written(folder: Path, template: str | None = CHATML_TEMPLATE, **config) -> Path:
    """A tiny chat model and its tokenizer in a folder."""
    tokenizer = chatml_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    tiny_llama(len(tokenizer), **config).save_pretrained(folder)
    return folder


def with_adapter(folder: Path, base: Path, template: str | None = None, **config) -> Path:
    """An adapter that moves the model's answers, saved with a tokenizer of its own where `template` is given."""
    torch.manual_seed(0)
    lora = LoraConfig(**{**LORA, "init_lora_weights": False, **config})
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora).save_pretrained(folder)
    if template is not None:
        tokenizer = chatml_tokenizer()
        tokenizer.chat_template = template
        tokenizer.save_pretrained(folder)
    return folder


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(40)[None] % 256).logits


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Puts folders where the hub's client keeps what it has fetched, under a name and a revision."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(name: str, folder: Path, revision: str = "main") -> str:
        place = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        commit = f"{len(list(place.glob('snapshots/*'))):040x}"
        shutil.copytree(folder, place / "snapshots" / commit)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / revision).write_text(commit)
        return name

    return put


# ------------------------------------------------------------------------------------------------------- loading


def test_an_adapter_is_the_same_by_folder_by_hub_name_and_on_its_base(tmp_path, hub):
    base = written(tmp_path / "base")
    folder = with_adapter(tmp_path / "adapter", base)
    name = hub("me/adapter", folder)
    by_folder, by_name, on_base = (
        models.load(str(folder)),
        models.load(name, trainable=True),
        models.load(str(base), adapter=name),
    )
    expected = logits(by_folder.model)
    assert torch.equal(logits(by_name.model), expected)
    assert torch.equal(logits(on_base.model), expected)
    assert not torch.equal(logits(models.load(str(base)).model), expected)
    assert by_name.source == models.Source(str(base), None, name, None)
    assert on_base.source.adapter == name
    trained = [n for n, p in by_name.model.named_parameters() if p.requires_grad]
    assert len(trained) == 8  # A and B of two projections in two layers
    assert all("lora_" in n for n in trained)
    assert not any(p.requires_grad for p in by_folder.model.parameters())


def test_a_revision_is_the_adapters_and_its_base_has_its_own(tmp_path, hub):
    hub("me/base", written(tmp_path / "base"))
    hub("me/base", written(tmp_path / "other", seed=1), "v1")
    first, second = (with_adapter(tmp_path / str(r), tmp_path / "other", OTHER_TEMPLATE, r=r) for r in (4, 8))
    for folder in (first, second):
        settings = json.loads((folder / "adapter_config.json").read_text())
        settings |= {"base_model_name_or_path": "me/base", "revision": "v1"}
        (folder / "adapter_config.json").write_text(json.dumps(settings))
    (first / "chat_template.jinja").write_text(CHATML_TEMPLATE)
    hub("me/adapter", first)
    loaded = models.load(hub("me/adapter", second, "v2"), revision="v2")
    assert loaded.source == models.Source("me/base", "v1", "me/adapter", "v2")
    assert loaded.tokenizer.chat_template == OTHER_TEMPLATE
    assert torch.equal(logits(loaded.model), logits(models.load(str(tmp_path / "other"), adapter=str(second)).model))


def test_training_continues_an_adapter_by_hub_name(tmp_path, hub, write, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = written(tmp_path / "base")
    name = hub("me/adapter", with_adapter(tmp_path / "adapter", base))
    run = ["--dataset_name", str(write(singles(4))), "--output_dir", "out", "--ref_cache_dir", "cache", "--use_cpu"]
    flags = ["--model_name_or_path", name, *run, "--learning_rate", "1e-3", "--warmup_steps", "0"]
    assert main(["train", *flags, "--use_peft"]) == 2  # it is continued as it is
    assert main(["train", *flags]) == 0
    before, after = (load_file(tmp_path / at / "adapter_model.safetensors") for at in ("adapter", "out"))
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("own", [True, False])
def test_training_and_generation_see_one_template_the_adapters_own_or_its_bases(tmp_path, own):
    base = written(tmp_path / "base")
    folder = str(with_adapter(tmp_path / "adapter", base, OTHER_TEMPLATE if own else None))
    expected = OTHER_TEMPLATE if own else CHATML_TEMPLATE
    rows = [{"prompt": TURNS, "completion": [{"role": "assistant", "content": "Yes"}], "label": True}]
    args = PreferenceConfig(
        output_dir=str(tmp_path / "out"), ref_cache_dir=str(tmp_path / "cache"), report_to="none", use_cpu=True
    )
    trainer = PreferenceTrainer(folder, args, train_dataset=rows)
    engine = LocalEngine.load(folder, device="cpu")
    seen = [trainer.processing_class, engine.tokenizer, models.load_tokenizer(folder)]
    seen += [models.load_tokenizer(str(base), adapter=folder), models.configured_tokenizer(folder)]
    assert [tokenizer.chat_template for tokenizer in seen] == [expected] * len(seen)
    scored = trainer.train_dataset.responses.tokens(0).tolist()
    opened = engine.tokenizer.apply_chat_template(TURNS, add_generation_prompt=True)["input_ids"]
    assert scored[: len(opened)] == opened


def test_a_revision_reaches_the_tokenizer_too(tmp_path, hub, write, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hub("me/model", written(tmp_path / "one"))
    name = hub("me/model", written(tmp_path / "two", OTHER_TEMPLATE, seed=1), "v2")
    for revision, template, weights in (("main", CHATML_TEMPLATE, "one"), ("v2", OTHER_TEMPLATE, "two")):
        loaded = models.load(name, revision=revision)
        assert loaded.tokenizer.chat_template == template
        assert torch.equal(logits(loaded.model), logits(models.load(str(tmp_path / weights)).model))
        assert LocalEngine.load(name, device="cpu", revision=revision).tokenizer.chat_template == template
    turns = {"prompt": TURNS, "completion": [{"role": "assistant", "content": "Yes"}], "label": True}
    run = ["--dataset_name", str(write([turns] * 2)), "--output_dir", "out", "--ref_cache_dir", "cache", "--use_cpu"]
    flags = ["--model_name_or_path", name, *run, "--save_strategy", "no"]
    assert main(["train", *flags, "--model_revision", "v2"]) == 0
    assert AutoTokenizer.from_pretrained("out").chat_template == OTHER_TEMPLATE


def test_a_tokenizer_with_code_of_its_own_is_read_where_that_was_allowed_and_named_where_not(tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = written(tmp_path / "model")
    (folder / "own.py").write_text(
        "from transformers import PreTrainedTokenizerFast\nclass Own(PreTrainedTokenizerFast):\n    mark = 'mine'\n"
    )
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": [None, "own.Own"]}, "tokenizer_class": "Own"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    for read in (models.load, models.load_tokenizer):
        with pytest.raises(BadInput, match=r"tokenizer of .*model cannot be loaded.*--trust_remote_code"):
            read(str(folder))
    assert models.load(str(folder), trust_remote_code=True).tokenizer.mark == "mine"
    assert LocalEngine.load(str(folder), device="cpu", trust_remote_code=True).tokenizer.mark == "mine"


def broken(folder: Path, how: str) -> Path:
    """A model's folder (`base`), or an adapter's, with something wrong about it."""
    base, weights = written(folder / "base"), folder / "base" / "model.safetensors"
    config = json.loads((base / "config.json").read_text())
    if how == "an unknown kind":
        (base / "config.json").write_text(json.dumps({**config, "model_type": "llama9"}))
    elif how == "no causal model":
        config = AutoConfig.for_model("t5").to_dict()
        (base / "config.json").write_text(json.dumps(config))
    elif how == "a package missing":
        (base / "config.json").write_text(json.dumps(AutoConfig.for_model("gemma3n").to_dict()))
    elif how == "a vision model of other weights":
        sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
        config = AutoConfig.for_model("gemma3", text_config={**sizes, "vocab_size": 64}, vision_config=sizes)
        (base / "config.json").write_text(json.dumps(config.to_dict()))
    elif how == "a config without its kind":
        (base / "config.json").write_text("{}")
    elif how == "a config of nonsense":
        (base / "config.json").write_text(json.dumps({**config, "num_attention_heads": "four"}))
    elif how == "cut short":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "other shapes":
        (base / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))
    elif how == "weights missing":
        kept = {name: value for name, value in load_file(weights).items() if "layers.1.mlp" not in name}
        save_file(kept, weights, {"format": "pt"})
    elif how == "pickled":
        torch.save(load_file(weights), base / "pytorch_model.bin")
        weights.unlink()
    elif how == "no tokenizer":
        for path in [*base.glob("tokenizer*"), base / "chat_template.jinja"]:
            path.unlink()
    if not how.startswith("adapter"):
        return base
    adapter = with_adapter(folder / "adapter", base, r=8)
    settings = json.loads((adapter / "adapter_config.json").read_text())
    tensors = load_file(adapter / "adapter_model.safetensors")
    if how == "adapter: no base":
        settings["base_model_name_or_path"] = None
    elif how == "adapter: base gone":
        shutil.rmtree(base)
    elif how == "adapter: on an adapter":
        settings["base_model_name_or_path"] = str(with_adapter(folder / "under", base))
    elif how == "adapter: other rank":
        settings["r"] = 4
    elif how == "adapter: weights missing":
        tensors.popitem()
    elif how == "adapter: broken config":
        (adapter / "adapter_config.json").write_text("{")
        return adapter
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    save_file(tensors, adapter / "adapter_model.safetensors", {"format": "pt"})
    return adapter


BROKEN = {
    "an unknown kind": "llama9.*transformers 5",
    "no causal model": "Unrecognized configuration class .*T5Config.* a causal language model",
    "a package missing": r"model .*base cannot be loaded: ImportError: .*timm.*Install the package that it names",
    "a vision model of other weights": r"other shapes|lacks \d+ weights of a Gemma3ForConditionalGeneration",
    "a config without its kind": r"config of .*base cannot be loaded: Unrecognized model",
    "a config of nonsense": r"base cannot be loaded: .*'num_attention_heads': .*four",
    "cut short": "SafetensorError: .*whole",
    "other shapes": "other shapes",
    "weights missing": r"lacks 3 weights of a LlamaForCausalLM, the first model.layers.1.mlp.down_proj",
    "pickled": "safetensors first",
    "no tokenizer": "tokenizer of .*base cannot be loaded",
    "adapter: no base": "does not name the model",
    "adapter: base gone": "base cannot be loaded",
    "adapter: on an adapter": "under is one too: merge",
    "adapter: other rank": "adapter .* on .*base cannot be loaded.*other shapes",
    "adapter: weights missing": "adapter .*Found missing adapter keys",
    "adapter: broken config": "adapter cannot be loaded: Expecting",
}


@pytest.mark.parametrize("how", BROKEN)
def test_whatever_keeps_a_model_from_being_loaded_is_one_message(tmp_path, how):
    if how == "a package missing" and find_spec("timm"):
        pytest.skip("timm, which Gemma 3n needs, is installed")
    folder = broken(tmp_path, how)
    with pytest.raises(BadInput, match=BROKEN[how]) as caught:
        models.load(str(folder))
    assert len(str(caught.value)) < 900
    assert str(folder) in str(caught.value) or str(tmp_path / "base") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_misspelt_folder_is_answered_with_those_beside_it(tmp_path):
    (tmp_path / "tiny-model").mkdir()
    for read in (models.load, models.load_tokenizer, models.load_config):
        with pytest.raises(BadInput, match=r"tiny-modle cannot be loaded: .*Did you mean .*/tiny-model\? "):
            read(str(tmp_path / "tiny-modle"))
        with pytest.raises(BadInput, match="cannot be loaded"):
            read("a" * 300)


def test_a_name_that_is_nowhere_is_the_same_message_for_model_tokenizer_and_template(tmp_path):
    for read in (models.load, models.load_tokenizer, models.load_config):
        with pytest.raises(BadInput, match=r"nobody/nothing cannot be loaded: .*a name on the hub that you may read"):
            read("nobody/nothing")
    with pytest.raises(BadInput, match="nobody/nothing cannot be loaded"):
        models.configured_tokenizer(plain_tokenizer(), "nobody/nothing")


def test_a_tokenizer_that_is_given_is_taken_and_none_is_looked_for(tmp_path):
    given = plain_tokenizer()
    assert models.load(str(broken(tmp_path, "no tokenizer")), tokenizer=given).tokenizer is given


# --------------------------------------------------------------------------------------------------------- GGUF


def merging_tokenizer():
    """llama.cpp's converter knows no tokenizer without merges."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    names = dict.fromkeys(("eos_token", "pad_token"), "<|endoftext|>")
    tokenizer = byte_tokenizer(specials, merges=(("y", "o"), ("yo", "u")), **names)
    tokenizer.chat_template = CHATML_TEMPLATE
    return tokenizer


def gguf_of(path: Path, model, tokenizer) -> Path:
    """`model`, a Llama, and a byte-level `tokenizer` as llama.cpp's converter writes them."""
    gguf = pytest.importorskip("gguf")
    config, writer = model.config, gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    specials = set(tokenizer.all_special_ids)
    writer.add_token_list(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
    writer.add_token_types([3 if token in specials else 1 for token in range(len(tokenizer))])
    writer.add_token_merges(["y o", "yo u"])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_chat_template(tokenizer.chat_template)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, value in model.state_dict().items():
        array = value.float().numpy()
        for part, count in heads.items():
            if part in name:  # its rotary embedding takes neighbours, ours the halves of a head
                array = array.reshape(count, 2, -1, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_gguf_file_is_read_trained_continued_and_saved_as_any_other_model(tmp_path):
    tokenizer = merging_tokenizer()
    original = tiny_llama(len(tokenizer))
    path = str(gguf_of(tmp_path / "tiny.gguf", original, tokenizer))
    loaded = models.load(path)
    assert torch.equal(logits(loaded.model), logits(original))
    assert loaded.tokenizer.chat_template == CHATML_TEMPLATE
    text = "<|im_start|>user\nHi, «you»!<|im_end|>\n"
    assert loaded.tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert loaded.tokenizer.eos_token == tokenizer.eos_token
    assert models.load_config(path).hidden_size == 32
    rows = [{"prompt": TURNS, "completion": [{"role": "assistant", "content": "Yes"}], "label": True}]
    args = {"ref_cache_dir": str(tmp_path / "cache"), "report_to": "none", "use_cpu": True, "save_strategy": "no"}
    for adapter in (None, LoraConfig(**LORA)):
        out = tmp_path / ("full" if adapter is None else "adapter")
        config = PreferenceConfig(output_dir=str(out), learning_rate=1e-3, warmup_steps=0, **args)
        trainer = PreferenceTrainer(path, config, train_dataset=rows, peft_config=adapter)
        trainer.train()
        trainer.save_model()
        again = models.load(str(out))
        assert torch.equal(logits(again.model), logits(trainer.model))
        assert again.source.base == (str(out) if adapter is None else path)
    assert "quantization_config" not in json.loads((tmp_path / "full" / "config.json").read_text())
    with pytest.raises(BadInput, match="save it as one first"):
        models.load(path, quantization_config=BitsAndBytesConfig(load_in_4bit=True))
    with pytest.raises(BadInput, match=r"gone\.gguf cannot be loaded"):
        models.load(str(tmp_path / "gone.gguf"))


def test_a_gguf_file_on_the_hub_is_named_by_its_repository_and_its_own_name(tmp_path, hub):
    (tmp_path / "repository").mkdir()
    original = tiny_llama(len(merging_tokenizer()))
    gguf_of(tmp_path / "repository" / "tiny.gguf", original, merging_tokenizer())
    loaded = models.load(hub("me/quantised", tmp_path / "repository") + "/tiny.gguf")
    assert torch.equal(logits(loaded.model), logits(original))


# ------------------------------------------------------------------------------------------------------ dropout

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4}
ARCHITECTURES = {
    "biogpt": {**SIZES, "num_hidden_layers": 4},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "codegen": {**GPT, "rotary_dim": 4},
    "falcon": SIZES,
    "gemma2": {**SIZES, "head_dim": 8},
    "gpt2": GPT,
    "gpt_bigcode": GPT,
    "gpt_neo": {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]},
    "gpt_neox": SIZES,
    "gptj": {**GPT, "rotary_dim": 4},
    "llama": SIZES,
    "mixtral": {**SIZES, "num_local_experts": 2, "router_jitter_noise": 0.5},
    "opt": {**SIZES, "num_hidden_layers": 4, "ffn_dim": 64, "word_embed_proj_dim": 32},
    "phi": SIZES,
    "phi3": {**SIZES, "pad_token_id": 0},
    "qwen2": SIZES,
    "stablelm": SIZES,
    "xglm": {"d_model": 32, "num_layers": 4, "attention_heads": 4, "ffn_dim": 64},
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_without_dropout_training_mode_is_evaluation_mode(kind):
    """Every rate that the config names is 0.5: modules, function arguments, attention, layerdrop, experts' noise."""
    config = AutoConfig.for_model(kind, vocab_size=64, **ARCHITECTURES[kind])
    for name, value in vars(config).items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.5)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    ids = torch.randint(1, 60, (2, 12))

    def read(training: bool) -> torch.Tensor:
        with torch.no_grad():
            return model.train(training)(input_ids=ids, attention_mask=torch.ones_like(ids)).logits

    expected = read(False)
    assert any(not torch.allclose(read(True), expected, atol=1e-3) for _ in range(5))  # else nothing is shown here
    models.disable_dropout(model)
    assert all(torch.equal(read(True), expected) for _ in range(5))  # a layer is dropped by a coin


@pytest.mark.parametrize("continued", [False, True])
@pytest.mark.parametrize("disable", [True, False])
def test_one_rule_for_the_dropout_of_fresh_and_continued_adapters(tmp_path, continued, disable, caplog):
    tokenizer = plain_tokenizer()
    tokenizer.save_pretrained(tmp_path / "base")
    tiny_llama(len(tokenizer)).save_pretrained(tmp_path / "base")
    model, fresh = tiny_llama(len(tokenizer)), LoraConfig(**LORA, lora_dropout=0.5, init_lora_weights=False)
    if continued:
        folder = with_adapter(tmp_path / "adapter", tmp_path / "base", lora_dropout=0.5)
        model, fresh = models.load(str(folder), trainable=True).model, None
    trainer = make_trainer(tmp_path, singles(6), model=model, peft_config=fresh, disable_dropout=disable)
    ids = torch.arange(30)[None]
    with torch.no_grad():
        trainer.model.train()
        draws = [trainer.model(input_ids=ids).logits for _ in range(2)]
    assert torch.equal(*draws) is disable
    assert ("lora_dropout 0.5 is off" in caplog.text) is disable
    assert caplog.text.count("lora_dropout") <= 1


def test_dropouts_that_peft_keeps_by_adapter_in_a_dict_go_too():
    torch.manual_seed(0)
    config = LoHaConfig(r=4, target_modules=["q_proj"], rank_dropout=0.5, module_dropout=0.5, init_weights=False)
    model, ids = get_peft_model(tiny_llama(), config), torch.arange(30)[None]

    def read(training: bool) -> torch.Tensor:
        with torch.no_grad():
            return model.train(training)(input_ids=ids).logits

    assert not all(torch.equal(read(True), read(False)) for _ in range(3))
    models.disable_dropout(model)
    assert all(torch.equal(read(True), read(False)) for _ in range(3))


# ---------------------------------------------------------------------------------------------- modes and QLoRA


def test_evaluation_mode_gives_every_module_its_own_mode_back():
    model = tiny_llama().train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    with contextlib.suppress(KeyboardInterrupt), models.evaluation_mode(model):
        assert not any(module.training for module in model.modules())
        raise KeyboardInterrupt
    assert [module.training for module in model.modules()] == modes


@pytest.mark.golden
@pytest.mark.parametrize("given", ["by name", "as a model"])
def test_a_continued_qlora_adapter_trains_every_tensor_from_its_own_reference(tmp_path, given):
    tokenizer = plain_tokenizer()
    tokenizer.save_pretrained(tmp_path / "base")
    tiny_llama(len(tokenizer), hidden_size=64, intermediate_size=128).save_pretrained(tmp_path / "base")
    folder = with_adapter(tmp_path / "adapter", tmp_path / "base")
    bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    if given == "by name":
        model = models.load(str(folder), trainable=True, quantization_config=bits).model
    else:
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", quantization_config=bits, dtype=torch.float32)
        model = PeftModel.from_pretrained(base, folder, is_trainable=True)
    trainer = make_trainer(tmp_path, singles(8), model=model)
    trained = {name: p.clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert len(trained) == 8
    gradient = first_gradient(trainer)
    assert gradient.keys() == trained.keys()
    assert all(value.abs().sum() > 0 for value in gradient.values())
    assert all(not torch.equal(p, trained[n]) for n, p in trainer.model.named_parameters() if n in trained)
    assert trainer.state.log_history[0]["bnf/weight"] == pytest.approx(1, abs=1e-5)


def test_a_frozen_adapter_is_refused(tmp_path):
    model = models.load(str(with_adapter(tmp_path / "adapter", written(tmp_path / "base")))).model
    with pytest.raises(BadInput, match="is_trainable"):
        make_trainer(tmp_path, singles(2), model=model)


def test_quantised_weights_without_an_adapter_are_refused(tmp_path, write, capsys):
    written(tmp_path / "model")
    flags = ["--model_name_or_path", str(tmp_path / "model"), "--dataset_name", str(write(singles(2)))]
    assert main(["train", *flags, "--output_dir", str(tmp_path / "out"), "--load_in_4bit", "--use_cpu"]) == 2
    assert "--use_peft" in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- end of turn


def test_a_base_model_trained_with_a_template_is_saved_with_its_end_of_turn_and_stops(tmp_path):
    tokenizer = chatml_tokenizer()
    model = tiny_llama(len(tokenizer), eos_token_id=tokenizer.eos_token_id)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    head = model.lm_head.weight.data
    head[end] = 3 * head[101]  # it ends its turn now and then
    rows = [{"prompt": TURNS, "completion": [{"role": "assistant", "content": "Yes"}], "label": True}]
    args = PreferenceConfig(
        output_dir=str(tmp_path / "out"), ref_cache_dir=str(tmp_path / "cache"), report_to="none", use_cpu=True
    )
    trainer = PreferenceTrainer(model, args, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    trainer.save_model()
    saved = GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id
    assert saved == [tokenizer.eos_token_id, end]
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    prompt = tokenizer.apply_chat_template(TURNS, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    free = again.generate(prompt, do_sample=False, max_new_tokens=40, eos_token_id=tokenizer.eos_token_id)[0].tolist()
    told = again.generate(prompt, do_sample=False, max_new_tokens=40)[0].tolist()
    first = free.index(end, prompt.shape[1])
    assert first < len(free) - 1  # it says more where nothing stops it
    assert told == free[: first + 1]


@pytest.mark.parametrize(("own", "expected"), [(None, [256, 258]), (7, [7, 256, 258]), ([7, 258], [7, 258, 256])])
def test_the_ends_that_a_model_knows_stay_and_are_not_doubled(own, expected):
    model, tokenizer = tiny_llama(), chatml_tokenizer()
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"]) == [256, 258]
    model.generation_config.eos_token_id = own
    models.teach_end_of_turn(get_peft_model(model, LoraConfig(**LORA)), tokenizer)
    assert model.generation_config.eos_token_id == expected


# ---------------------------------------------------------------------------------------------------- what is not


def test_nothing_imports_trl_at_run_time():
    for path in (Path(__file__).parents[1] / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "trl" for name in names), path
