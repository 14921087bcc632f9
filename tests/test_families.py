"""Every family that people align: loaded, trained with step 0 proven, adapted, saved and loaded again, in a table."""

import json
import re
from functools import cache
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from bnf_align import BadInput, PreferenceConfig, PreferenceTrainer, models
from bnf_align.engines import Request, Sampling
from bnf_align.engines.local import LocalEngine
from bnf_align.plan.plan import Hardware, make_plan
from bnf_align.plan.workload import assumed
from rounding import ROUNDING
from rows import assistant, user
from test_templates import tokenizer_of, what_it_does
from tiny_families import FAMILIES, tiny
from tiny_models import chatml_tokenizer

DOCS = Path(__file__).parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- families: python tests/test_families.py writes this table -->", "<!-- end of families -->"
ROWS = [
    {"prompt": [user(f"Q{n}?" * (1 + n))], "chosen": [assistant("good " * (1 + n))], "rejected": [assistant("bad")]}
    for n in range(3)
]
SEEING = [family for family in FAMILIES if family.tower is not None]
IDS = torch.arange(1, 25)[None]


def tokenizer_for(family):
    """A byte-level one under the family's template; ChatML stands in where TRL ships none."""
    return tokenizer_of(family.template) if family.template else chatml_tokenizer()


@cache
def kept():
    """A folder that lives as long as this process, for what several tests look at."""
    return TemporaryDirectory(prefix="families")


@cache
def checkpoint(family):
    """The folder of a family's tiny checkpoint."""
    folder = Path(kept().name) / re.sub(r"\W+", "-", family.name)
    tokenizer_for(family).save_pretrained(folder)
    tiny(family, len(tokenizer_for(family))).save_pretrained(folder)
    if family.tower is not None:
        (folder / "preprocessor_config.json").write_text('{"size": 32}')
    return folder


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def trainer_for(family, folder, *, adapter=False, rows=ROWS, **options):
    settings = {"head": "fused", "learning_rate": 1e-2, "max_steps": 1, **options}
    config = PreferenceConfig(
        output_dir=str(folder),
        ref_cache_dir=str(folder / "cache"),
        optim="sgd",
        warmup_steps=0,
        batch_size=len(rows),
        max_tokens_per_micro_batch=90,  # several micro-batches, and padding in them
        save_strategy="no",
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **settings,
    )
    lora = LoraConfig(r=2, target_modules=list(family.targets), task_type="CAUSAL_LM") if adapter else None
    return PreferenceTrainer(str(checkpoint(family)), config, train_dataset=rows, peft_config=lora)


@cache
def trained(family, adapter):
    """A family after one step, the flag that it took, and the folder of what was saved; or what refuses it."""
    folder = Path(f"{checkpoint(family)}-{'adapter' if adapter else 'whole'}")
    for head, flag in (("fused", ""), ("logits", ", with `--head logits`")):
        try:
            trainer = trainer_for(family, folder, adapter=adapter, head=head)
        except BadInput as error:
            if "--head logits" not in str(error) or head == "logits":
                return None, str(error), None
            continue
        assert trainer._step_0  # still to be proven
        trainer.train()
        assert not trainer._step_0
        trainer.record.plan = {}  # has tests of its own, and takes longer than the step
        trainer.save_model()
        return trainer, flag, folder
    raise AssertionError


def moved(family, adapter):
    """Whether a step moved the weights that train, and no others; the gradient was finite, or the step had stopped."""
    trainer, _, _ = trained(family, adapter)
    before = models.load(str(checkpoint(family))).model.state_dict()
    name_in_base = re.compile(r"^base_model\.model\.|\.base_layer")
    changed, same = [], []
    for name, weight in trainer.model.named_parameters():
        if "lora_A" in name:
            continue
        start = before.get(name_in_base.sub("", name), torch.zeros_like(weight))  # lora_B begins at zero
        (changed if not torch.equal(weight, start) else same).append(name)
    trains = {name for name, weight in trainer.model.named_parameters() if weight.requires_grad}
    return bool(changed) and set(changed) <= trains and (not adapter or all("lora_B" in name for name in changed))


def proven(family):
    """Whether the reference, from padded micro-batches, is what the model's own logits say of one row at a time.

    That training starts from the reference, its first step has checked.
    """
    responses = trained(family, False)[0].train_dataset.responses
    oracle = tiny(family, len(tokenizer_for(family)))
    for row in range(2 * len(ROWS)):
        tokens, mask = torch.tensor(responses.tokens(row)[None].astype("int64")), torch.tensor(responses.mask(row))
        with torch.no_grad():
            own = oracle(input_ids=tokens).logits.log_softmax(-1)[0, :-1].gather(1, tokens[0, 1:, None])[:, 0]
        expected = own[mask[1:]]
        if not torch.allclose(torch.tensor(responses.reference(row)), expected, atol=ROUNDING, rtol=ROUNDING):
            return False
    return True


def again(family, adapter):
    """Whether what was saved gives the logits of what was trained."""
    trainer, _, folder = trained(family, adapter)
    return torch.equal(logits(models.load(str(folder)).model), logits(trainer.model))


def cells(family):
    """A line of the table."""
    template, thinking, tools = family.template and f"`{family.template}`", "", ""
    if family.template:
        _, thinking, tools = what_it_does(family.template)
    kind = type(models.load(str(checkpoint(family))).model).__name__
    done = []
    for adapter in (False, True):
        trainer, flag, _ = trained(family, adapter)
        works = trainer and moved(family, adapter) and (adapter or proven(family))
        done.append(f"yes{flag}" if works else "no" if trainer else f"refused: {flag}")
    loaded = ["yes" if again(family, adapter) else "no" for adapter in (False, True)]
    return [
        family.name,
        f"`{kind}`",
        template or "none there",
        thinking or "-",
        tools or "-",
        *done,
        loaded[0] if loaded[0] == loaded[1] else f"{loaded[0]}, adapter {loaded[1]}",
    ]


def table():
    head = "| family | loads as | template | thinking | tool calls | trains | LoRA | saved and loaded again |"
    return "\n".join([head, "|---" * 8 + "|", *(f"| {' | '.join(cells(family))} |" for family in FAMILIES)])


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.slow
def test_a_family_is_trained_adapted_saved_and_loaded_as_the_table_says(family):
    lines = DOCS.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0].strip().splitlines()
    assert f"| {' | '.join(cells(family))} |" in lines
    assert len(lines) == 2 + len(FAMILIES)


# ------------------------------------------------------------------------------------ text from vision checkpoints


def saved(folder):
    return dict(chain.from_iterable(load_file(path).items() for path in sorted(folder.glob("model*.safetensors"))))


def is_tower(name):
    return any(part in name for part in ("vision", "visual", "projector"))


@pytest.mark.parametrize("family", SEEING, ids=lambda family: family.name)
def test_text_trains_the_text_model_and_the_tower_is_saved_as_it_was(family):
    trainer, _, folder = trained(family, False)
    assert not any(is_tower(name) for name, weight in trainer.model.named_parameters() if weight.requires_grad)
    before, after = saved(checkpoint(family)), saved(folder)
    assert before.keys() == after.keys()
    tower = {name for name in before if is_tower(name)}
    assert tower
    assert all(torch.equal(before[name], after[name]) for name in tower)
    assert any(not torch.equal(before[name], after[name]) for name in before.keys() - tower)
    again, info = AutoModelForImageTextToText.from_pretrained(folder, output_loading_info=True)
    assert type(again) is type(trainer.model) is type(tiny(family, 300))
    assert not any(info.values())
    assert (folder / "preprocessor_config.json").read_text() == '{"size": 32}'


@pytest.mark.parametrize("family", SEEING, ids=lambda family: family.name)
def test_the_adapter_is_on_the_text_model_alone_under_the_keys_that_servers_read(family):
    """vLLM reads `model.language_model.*` of these classes, and `language_model.model.*` of Llama 4."""
    _, _, folder = trained(family, True)
    inner = "language_model.model" if family.kind == "llama4" else "model.language_model"
    keys = load_file(folder / "adapter_model.safetensors").keys()
    assert {key.removeprefix(f"base_model.model.{inner}.layers.")[:2] for key in keys} <= {"0.", "1."}
    assert {key.split(".")[-3] for key in keys} == set(family.targets)


def test_every_linear_layer_of_a_vision_checkpoint_means_of_its_text_model_and_own_exclusions_stay():
    for family in (family for family in SEEING if family.kind in ("gemma3", "qwen3_vl")):
        for excluded in (["v_proj"], r".*\.v_proj"):
            asked = LoraConfig(r=2, target_modules="all-linear", exclude_modules=excluded, task_type="CAUSAL_LM")
            config = PreferenceConfig(output_dir="out", use_cpu=True)
            adapted = models.add_adapter(tiny(family, 300), asked, config)
            names = {name for name, weight in adapted.named_parameters() if weight.requires_grad}
            assert names
            assert all(".language_model.layers." in name for name in names)
            assert {name.split(".")[-4] for name in names} >= {"q_proj", "down_proj"}
            assert "v_proj" not in {name.split(".")[-4] for name in names}
            assert asked.exclude_modules == excluded or set(asked.exclude_modules) == set(excluded)


@pytest.mark.parametrize("family", SEEING, ids=lambda family: family.name)
def test_a_vision_checkpoint_answers_text_as_transformers_generate_does(family):
    engine = LocalEngine.load(str(checkpoint(family)), device="cpu")
    turns = [[user("Hi")], [user("What is it, and why so?")]]  # of unlike length: padding on the left
    sampling = Sampling(temperature=0.0, max_new_tokens=6)
    requests = [Request(str(i), prompt) for i, prompt in enumerate(turns)]
    answers = {one.id: one for batch in engine.generate(requests, sampling) for one in batch}
    for i, prompt in enumerate(turns):
        opened = engine.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt")
        whole = engine.model.generate(**opened, do_sample=False, max_new_tokens=6)[0, opened["input_ids"].shape[1] :]
        assert answers[str(i)].texts[0] == engine.tokenizer.decode(whole, skip_special_tokens=True)


@pytest.mark.parametrize("adapter", [None, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")])
def test_a_plan_counts_the_tower_as_weights_that_do_not_train(adapter):
    config = PreferenceConfig(output_dir="out", use_cpu=True, batch_size=4, max_length=64)
    for kind in ("gemma3", "qwen3_5"):
        model = tiny(next(family for family in SEEING if family.kind == kind), 300)
        plan = make_plan(model.config, config, assumed(8, 32, config), Hardware(), peft_config=adapter)
        if adapter:
            model = models.add_adapter(model, adapter, config)
        models.train_text_alone(model)
        assert plan["parameters"] == sum(p.numel() for p in model.parameters())
        assert plan["trainable_parameters"] == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("name", ["Gemma 4, text", "Nemotron-H"])
def test_a_model_whose_layers_differ_gets_a_plan(name):
    """By their heads, or because some have no attention."""
    family = next(family for family in FAMILIES if family.name == name)
    config = PreferenceConfig(output_dir="out", use_cpu=True, batch_size=4, max_length=64, head="logits")
    model = tiny(family, 300)
    plan = make_plan(model.config, config, assumed(8, 32, config), Hardware())
    assert plan["parameters"] == sum(p.numel() for p in model.parameters())
    assert plan["flops"]["training"] > 0


def test_rows_with_pictures_are_refused_for_a_vision_checkpoint_too(tmp_path):
    family = next(family for family in SEEING if family.kind == "gemma3")
    picture = {"type": "image", "url": "cat.png"}
    rows = [{**ROWS[0], "prompt": [{"role": "user", "content": [picture, {"type": "text", "text": "What?"}]}]}]
    with pytest.raises(BadInput, match=r"row 0, prompt: a message content holds image: only text"):
        trainer_for(family, tmp_path, rows=rows)
    with pytest.raises(BadInput, match=r"column `images`: only text is supported"):
        trainer_for(family, tmp_path, rows=[{**ROWS[0], "images": ["cat.png"]}])


# ------------------------------------------------------------------------------------------------- what is refused


def test_a_class_without_a_body_of_its_own_is_refused_with_the_flag_that_trains_it(tmp_path):
    for family in (family for family in FAMILIES if family.kind.startswith("llama4")):
        with pytest.raises(BadInput, match=r"finds no body in Llama4For\w+ .* own logits, --head logits"):
            trainer_for(family, tmp_path)


def test_a_family_for_which_peft_names_no_modules_says_which_it_has():
    family = next(family for family in FAMILIES if family.kind == "qwen3_5_text")
    config = PreferenceConfig(output_dir="out", use_cpu=True)
    with pytest.raises(BadInput, match=r"--lora_target_modules q_proj v_proj\. It has .*in_proj_qkv.*q_proj.*"):
        models.add_adapter(tiny(family, 300), LoraConfig(r=2, task_type="CAUSAL_LM"), config)


def test_a_vision_checkpoint_without_its_text_weights_is_not_filled_at_random(tmp_path):
    family = next(family for family in SEEING if family.kind == "gemma3")
    tiny(family, 300).save_pretrained(tmp_path)
    chatml_tokenizer().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["num_hidden_layers"], config["text_config"]["layer_types"] = 3, ["full_attention"] * 3
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match=r"lacks 13 weights of a Gemma3ForConditionalGeneration, the first model\.lang"):
        models.load(str(tmp_path))


if __name__ == "__main__":
    before, rest = DOCS.read_text(encoding="utf-8").split(BEGIN)
    DOCS.write_text(f"{before}{BEGIN}\n\n{table()}\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
