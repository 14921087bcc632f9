"""Every scorer against a direct computation on a tiny model of the real architecture, and against published names."""

import json
import os
import sys
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2Model,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    LlamaModel,
    PreTrainedTokenizerFast,
)

from bnf_align.construct.score import read_candidates
from bnf_align.construct.scorers.armorm import ArmoRM, ArmoRMModel
from bnf_align.construct.scorers.judge import JudgeScorer, read_better, read_grade
from bnf_align.construct.scorers.load import FLAGS, load_scorer
from bnf_align.construct.scorers.pairrm import DEBERTA_V3_LARGE, PairRM, PairRMModel
from bnf_align.construct.scorers.reward_model import RewardModel
from bnf_align.construct.scorers.verifier import Verifier
from bnf_align.endpoint import Endpoint
from bnf_align.engines.local import Limits
from bnf_align.judge import Judge
from bnf_align.records import BadInput
from model_server import ModelServer, prompt_of
from tiny_models import chatml_tokenizer, gemma_tokenizer, llama3_tokenizer, plain_tokenizer
from tiny_nets import SIZES, tiny_llama

CHAT = [{"role": "user", "content": "Add 1 and 2"}]
LONG = [*CHAT, {"role": "assistant", "content": "3"}, {"role": "user", "content": "and 4?"}]


def rows(prompts=(CHAT, LONG, "Say something", CHAT), counts=(3, 2, 3, 1)) -> list[dict]:
    return [
        {"id": f"p{i}", "prompt": prompt, "candidates": [{"text": f"{'ab ' * (3 * i + j)}{j}"} for j in range(count)]}
        for i, (prompt, count) in enumerate(zip(prompts, counts, strict=True))
    ]


def scores_of(scorer, data, done=()) -> dict[str, list]:
    return {one.id: one.scores for batch in scorer.score(data, done) for one in batch}


def llama_classifier(seed=0, **config):
    torch.manual_seed(seed)
    return LlamaForSequenceClassification(LlamaConfig(vocab_size=300, num_labels=1, **{**SIZES, **config})).eval()


def ids_of(tokenizer, prompt, text) -> list[int]:
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": text}], return_dict=True)[
        "input_ids"
    ]


def alone(model, ids) -> float:
    """One text, no padding: what the model gives when it is asked about nothing else."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits.item()


# ---------------------------------------------------------------------------------------------- reward models


@pytest.mark.parametrize("pad", [None, 257, 1])
def test_a_reward_in_a_batch_is_the_reward_of_the_text_alone(pad):
    """Padding on the left where the model names no padding token, on the right where it does: either way the end."""
    tokenizer, data = llama3_tokenizer(), rows()
    model = llama_classifier(pad_token_id=pad)
    expected = {
        row["id"]: [alone(model, ids_of(tokenizer, row["prompt"], one["text"])) for one in row["candidates"]]
        for row in data
    }
    for limits in (Limits(), Limits(rows=2), Limits(tokens=64)):
        found = scores_of(RewardModel(model, tokenizer, "tiny", limits=limits), data)
        assert found.keys() == expected.keys()
        for name, values in found.items():
            assert values == pytest.approx(expected[name], abs=1e-5)
    assert len({round(value, 4) for values in expected.values() for value in values}) == 9


def test_a_text_that_ends_with_the_padding_token_keeps_its_own_reward():
    tokenizer = chatml_tokenizer()  # the last token of a text is a newline
    last = ids_of(tokenizer, CHAT, "x")[-1]
    model, data = llama_classifier(pad_token_id=last), rows()
    found = scores_of(RewardModel(model, tokenizer, "tiny"), data)
    for row in data:
        expected = [alone(model, ids_of(tokenizer, row["prompt"], one["text"])) for one in row["candidates"]]
        assert found[row["id"]] == pytest.approx(expected, abs=1e-5)


def test_absolute_positions_count_from_the_first_token_and_not_from_the_padding():
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=256, num_labels=1)
    model, tokenizer = GPT2ForSequenceClassification(config).eval(), plain_tokenizer()
    data = rows(("one", "another prompt"), (3, 2))
    found = scores_of(RewardModel(model, tokenizer, "gpt2"), data)
    for row in data:
        texts = [tokenizer(row["prompt"] + one["text"])["input_ids"] for one in row["candidates"]]
        assert found[row["id"]] == pytest.approx([alone_gpt2(model, ids) for ids in texts], abs=1e-5)


def alone_gpt2(model, ids) -> float:
    with torch.no_grad():
        return model.score(model.transformer(torch.tensor([ids])).last_hidden_state[0, -1]).item()


def test_a_doubled_begin_of_text_is_a_single_one():
    tokenizer, model = llama3_tokenizer(), llama_classifier()
    prompt = tokenizer.bos_token + "Hi"
    tokenizer.chat_template = tokenizer.chat_template.replace("| trim", "").replace(
        "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'", "''"
    )
    text = RewardModel(model, tokenizer, "tiny")._encode("p", prompt, "x")
    assert text.ids.tolist().count(tokenizer.bos_token_id) == 1
    assert text.ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(text.ids[: text.prompt_tokens]).endswith("Hi<|eot_id|>")


def test_a_text_that_is_too_long_loses_the_beginning_of_its_prompt_and_says_so():
    tokenizer, model = llama3_tokenizer(), llama_classifier()
    data = [{"id": "p", "prompt": "0123456789" * 3, "candidates": [{"text": "x"}, {"text": "y" * 40}]}]
    whole = ids_of(tokenizer, data[0]["prompt"], "x")
    scorer = RewardModel(model, tokenizer, "tiny", max_length=len(whole) - 5)
    ((one,),) = scorer.score(data)
    bos, rest = whole[:1], whole[6:]
    assert one.scores == [pytest.approx(alone(model, bos + rest), abs=1e-5), None]
    assert one.columns == {"candidates_cut": 1}
    assert scorer.card["max_length"] == len(whole) - 5


def test_a_system_turn_that_a_template_refuses_goes_into_the_users():
    tokenizer, model = gemma_tokenizer(), llama_classifier()
    data = rows(([{"role": "system", "content": "Be kind."}, *CHAT],), (2,))
    merged = [{"role": "user", "content": "Be kind.\n\nAdd 1 and 2"}]
    expected = [alone(model, ids_of(tokenizer, merged, one["text"])) for one in data[0]["candidates"]]
    assert scores_of(RewardModel(model, tokenizer, "tiny"), data)["p0"] == pytest.approx(expected, abs=1e-5)


def bert_tokenizer(specials=("[PAD]", "[CLS]", "[SEP]")) -> PreTrainedTokenizerFast:
    """DeBERTa's and BERT's shape: `[CLS] one [SEP] two [SEP]`, a character a token."""
    vocabulary = {token: i for i, token in enumerate([*specials, "[UNK]", *map(chr, range(32, 127))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def test_an_encoder_without_a_chat_template_reads_a_sentence_pair():
    torch.manual_seed(0)
    tokenizer = bert_tokenizer()
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    sizes |= {"initializer_range": 0.3}  # with less, every text has nearly the same score
    config = BertConfig(vocab_size=len(tokenizer), num_labels=1, max_position_embeddings=40, **sizes)
    model = BertForSequenceClassification(config).eval()
    data = rows(("Why?", "A question that is longer than it may be"), (3, 2))
    found = scores_of(RewardModel(model, tokenizer, "bert"), data)
    expected = [alone(model, tokenizer("Why?", one["text"])["input_ids"]) for one in data[0]["candidates"]]
    assert found["p0"] == pytest.approx(expected, abs=1e-5)
    answer = data[1]["candidates"][0]["text"]
    kept = data[1]["prompt"][-(40 - 3 - len(answer)) :]
    assert found["p1"][0] == pytest.approx(alone(model, tokenizer(kept, answer)["input_ids"]), abs=1e-5)
    with pytest.raises(BadInput, match="no chat template"):
        scores_of(RewardModel(model, tokenizer, "bert"), rows((CHAT,), (1,)))


def test_batches_follow_from_all_rows_and_a_finished_batch_is_left_out():
    scorer = RewardModel(llama_classifier(), llama3_tokenizer(), "tiny", limits=Limits(rows=4))
    data = rows()
    plan = scorer.plan(data)
    assert sorted(name for batch in plan for name in batch) == [row["id"] for row in data]
    assert len(plan) == 3
    whole = scores_of(scorer, data)
    for batch in plan:
        rest = scores_of(scorer, data, done=batch)
        assert rest == {name: values for name, values in whole.items() if name not in batch}
        by_id = {row["id"]: row for row in data}
        assert scores_of(scorer, [by_id[name] for name in batch]) == {name: whole[name] for name in batch}


def test_a_batch_keeps_to_both_budgets_and_a_text_alone_always_goes():
    limits = Limits(rows=4, tokens=100)
    assert [limits.allow(*batch) for batch in ((4, 25), (4, 26), (5, 1), (2, 50), (2, 51), (1, 999))] == [
        True,
        False,
        False,
        True,
        False,
        True,
    ]


def test_running_out_of_memory_halves_the_batch(monkeypatch):
    scorer, data = RewardModel(llama_classifier(), llama3_tokenizer(), "tiny"), rows()
    expected, forward = scores_of(scorer, data), scorer._forward

    def small(texts):
        if len(texts) > 2:
            raise torch.OutOfMemoryError
        return forward(texts)

    monkeypatch.setattr(scorer, "_forward", small)
    for name, values in scores_of(scorer, data).items():
        assert values == pytest.approx(expected[name], abs=1e-5)


def test_a_model_without_a_reward_head_is_refused_and_so_are_several_labels(tmp_path):
    llama3_tokenizer().save_pretrained(tmp_path)
    tiny_llama(300).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match=r"lacks 1 weights .* score.weight"):
        RewardModel.load(str(tmp_path))
    torch.manual_seed(0)
    two = LlamaForSequenceClassification(LlamaConfig(vocab_size=300, num_labels=2, **SIZES))
    with pytest.raises(BadInput, match="2 numbers for a text"):
        scores_of(RewardModel(two, llama3_tokenizer(), "two"), rows())
    with pytest.raises(BadInput, match="cannot be loaded"):
        RewardModel.load(str(tmp_path / "nowhere"))


def test_remote_code_runs_only_from_a_pinned_commit():
    for revision in (None, "main", "abc123"):
        with pytest.raises(BadInput, match="--revision"):
            RewardModel.load("someone/model", trust_remote_code=True, revision=revision)


def test_a_saved_reward_model_scores_the_same_and_another_one_has_another_hash(tmp_path):
    model, tokenizer = llama_classifier(), llama3_tokenizer()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded, data = RewardModel.load(str(tmp_path)), rows()
    expected = scores_of(RewardModel(model, tokenizer, "tiny"), data)
    for name, values in scores_of(loaded, data).items():
        assert values == pytest.approx(expected[name], abs=1e-6)
    assert loaded.weights != RewardModel(llama_classifier(seed=1), tokenizer, "tiny").weights


# ----------------------------------------------------------------------------------------------------- ArmoRM

ARMORM = {"regression_layer.weight": (19, 4096), "reward_transform_matrix": (19, 19), "gating.logit_scale": (1,)} | {
    f"gating.layers.{i}.{kind}": ((out, size) if kind == "weight" else (out,))
    for i, (out, size) in enumerate([(1024, 4096), (1024, 1024), (1024, 1024), (19, 1024)])
    for kind in ("weight", "bias")
}
"""The head of RLHFlow/ArmoRM-Llama3-8B-v0.1 as published; the rest are those of a `LlamaModel` under `model.`"""


def test_the_names_and_shapes_of_armorm_are_the_published_ones():
    sizes = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 1, "num_attention_heads": 32}
    with torch.device("meta"):
        model = ArmoRMModel(LlamaConfig(vocab_size=128257, num_key_value_heads=8, **sizes))
        backbone = LlamaModel(model.config)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    expected = {f"model.{name}": tuple(value.shape) for name, value in backbone.state_dict().items()}
    assert shapes == expected | ARMORM


def tiny_armorm(seed=0) -> ArmoRMModel:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=300, num_objectives=19, gating_temperature=3, gating_hidden_dim=24, gating_n_hidden=3, **SIZES
    )
    model = ArmoRMModel(config).eval()
    with torch.no_grad():
        model.reward_transform_matrix += 0.3 * torch.randn(19, 19)
        model.gating.logit_scale += 0.5
    return model


def armorm_directly(state: dict, config, ids: list[int], at: int) -> float:
    """The published forward pass in plain steps, for one text."""
    backbone = LlamaModel(config).eval()
    backbone.load_state_dict({name[6:]: value for name, value in state.items() if name.startswith("model.")})
    with torch.no_grad():
        hidden = backbone(torch.tensor([ids])).last_hidden_state[0]
    x = hidden[at]
    for layer in range(4):
        x = state[f"gating.layers.{layer}.weight"] @ x + state[f"gating.layers.{layer}.bias"]
        x = x.clamp(min=0) if layer < 3 else x
    weights = torch.softmax(x / 3, 0) * state["gating.logit_scale"][0]
    rewards = state["regression_layer.weight"] @ hidden[-1]
    return (weights * (rewards @ state["reward_transform_matrix"])).sum().item()


def test_armorm_weighs_its_objectives_by_the_last_token_of_the_prompt(tmp_path):
    model, tokenizer, data = tiny_armorm(), llama3_tokenizer(), rows((CHAT, LONG, "Say"), (3, 2, 2))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    header = tokenizer("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n", add_special_tokens=False)
    pattern = header["input_ids"]
    found = scores_of(ArmoRM.load(str(tmp_path), limits=Limits(rows=5)), data)
    for row in data:
        for one, value in zip(row["candidates"], found[row["id"]], strict=True):
            ids = ids_of(tokenizer, row["prompt"], one["text"])
            at = max(i for i in range(len(ids)) if ids[i : i + len(pattern)] == pattern)
            direct = armorm_directly(model.state_dict(), model.config, ids, at)
            assert value == pytest.approx(direct, abs=1e-4)
            assert value != pytest.approx(armorm_directly(model.state_dict(), model.config, ids, at - 1), abs=1e-4)


def test_the_gate_of_armorm_moves_along_when_a_prompt_is_cut():
    model, tokenizer = tiny_armorm(), llama3_tokenizer()
    prompt, text = "0123456789" * 3, "fine"
    whole = ids_of(tokenizer, prompt, text)
    ((one,),) = ArmoRM(model, tokenizer, "tiny", max_length=len(whole) - 7).score(
        [{"id": "p", "prompt": prompt, "candidates": [{"text": text}]}]
    )
    kept = whole[:1] + whole[8:]
    at = len(kept) - len(ids_of(tokenizer, "", text)) + ids_of(tokenizer, "", text).index(260)
    assert kept[at] == 260  # <|eot_id|>
    assert one.scores == [pytest.approx(armorm_directly(model.state_dict(), model.config, kept, at), abs=1e-4)]


def test_the_head_of_armorm_stays_in_float32(tmp_path):
    tiny_armorm().save_pretrained(tmp_path)
    llama3_tokenizer().save_pretrained(tmp_path)
    model = ArmoRM.load(str(tmp_path), dtype="bfloat16").model
    kinds = {name.split(".")[0]: value.dtype for name, value in model.state_dict().items()}
    assert kinds.pop("model") == torch.bfloat16
    assert set(kinds.values()) == {torch.float32}


# ----------------------------------------------------------------------------------------------------- PairRM

PAIRRM_HEAD = {
    "head_layer.1.weight": (1024, 2048),
    "head_layer.1.bias": (1024,),
    "head_layer.4.weight": (1, 1024),
    "head_layer.4.bias": (1,),
}
"""Of llm-blender/PairRM as published; the rest are those of a DeBERTa-v3-large under `pretrained_model.`"""


def test_the_names_and_shapes_of_pairrm_are_the_published_ones():
    with torch.device("meta"):
        model = PairRMModel(DebertaV2Config(**DEBERTA_V3_LARGE))
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    head = {name: shape for name, shape in shapes.items() if not name.startswith("pretrained_model.")}
    assert head == PAIRRM_HEAD
    assert shapes["pretrained_model.embeddings.word_embeddings.weight"] == (128100, 1024)
    assert shapes["pretrained_model.encoder.rel_embeddings.weight"] == (512, 1024)
    assert shapes["pretrained_model.encoder.LayerNorm.weight"] == (1024,)
    # `share_att_key`: positions go through the same projections as contents, so there are none of their own
    attention = "pretrained_model.encoder.layer.23.attention.self."
    assert {name[len(attention) :] for name in shapes if name.startswith(attention)} == {
        f"{kind}_proj.{part}" for kind in ("query", "key", "value") for part in ("weight", "bias")
    }
    assert not any("position_embeddings" in name or "token_type" in name for name in shapes)


PREFIXES = ["<|source|>", "<|candidate1|>", "<|candidate2|>"]


def pairrm_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = bert_tokenizer()
    tokenizer.add_tokens(PREFIXES)
    return tokenizer


def tiny_pairrm(tokenizer, seed=0) -> PairRMModel:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = DebertaV2Config(
        **{**DEBERTA_V3_LARGE, **sizes, "position_buckets": 16, "max_position_embeddings": 64},
        vocab_size=len(tokenizer),
        n_tasks=1,
        drop_out=0.05,
        initializer_range=0.3,
    )
    return PairRMModel(config).eval()


def pairrm_directly(model, tokenizer, source, first, second) -> float:
    """The model's card in plain steps: three texts one after another, each with its prefix, read at the prefixes."""
    texts = zip(PREFIXES, (source, first, second), strict=True)
    ids = [token for prefix, text in texts for token in tokenizer(prefix + text)["input_ids"]]
    state = model.state_dict()
    backbone = DebertaV2Model(model.config).eval()
    backbone.load_state_dict({name[17:]: value for name, value in state.items() if name.startswith("pretrained")})
    with torch.no_grad():
        hidden = backbone(torch.tensor([ids])).last_hidden_state[0]
    s, c1, c2 = (hidden[ids.index(tokenizer.convert_tokens_to_ids(prefix))] for prefix in PREFIXES)

    def head(candidate):
        x = torch.tanh(state["head_layer.1.weight"] @ torch.cat([s, candidate]) + state["head_layer.1.bias"])
        return (state["head_layer.4.weight"] @ x + state["head_layer.4.bias"]).item()

    return head(c1) - head(c2)


def test_pairrm_compares_every_two_candidates_in_both_orders(tmp_path):
    tokenizer = pairrm_tokenizer()
    model, data = tiny_pairrm(tokenizer), rows(("Why?", CHAT, "x"), (4, 2, 1))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    found = {one.id: one for batch in PairRM.load(str(tmp_path), limits=Limits(rows=5)).score(data) for one in batch}
    for row, source in zip(data[:2], ("Why?", "Add 1 and 2"), strict=True):
        texts = [one["text"] for one in row["candidates"]]
        count, one = len(texts), found[row["id"]]
        logits = {
            (i, j): pairrm_directly(model, tokenizer, source, texts[i], texts[j])
            for i, j in permutations(range(count), 2)
        }
        for i in range(count):
            others = [j for j in range(count) if j != i]
            mean = sum(logits[i, j] - logits[j, i] for j in others) / (2 * (count - 1))
            wins = sum((logits[i, j] > 0) + (logits[j, i] < 0) for j in others) / (2 * (count - 1))
            assert one.scores[i] == pytest.approx(mean, abs=1e-4)
            assert one.columns["wins"][i] == pytest.approx(wins)
        assert sum(one.scores) == pytest.approx(0, abs=1e-5)
        assert sum(one.columns["wins"]) == pytest.approx(count / 2)
    assert found["p2"].scores == [None]  # nothing to compare it with


def test_pairrm_ranks_by_mean_wins_where_it_is_asked_to(tmp_path):
    """The same comparisons, counted: `max_wins` of `Blender.rank`, as a share."""
    tokenizer = pairrm_tokenizer()
    model, data = tiny_pairrm(tokenizer), rows(("Why?", "Because"), (4, 3))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    by_wins, by_logits = (PairRM.load(str(tmp_path), rank_by=way) for way in ("wins", "logits"))
    found = {one.id: one for batch in by_wins.score(data) for one in batch}
    for row in data:
        texts, count = [one["text"] for one in row["candidates"]], len(row["candidates"])
        table = torch.zeros(count, count)
        for i, j in permutations(range(count), 2):
            table[i, j] = pairrm_directly(model, tokenizer, row["prompt"], texts[i], texts[j])
        wins = ((table > 0).sum(1) + (table < 0).sum(0)) / (2 * (count - 1))
        assert found[row["id"]].scores == pytest.approx(wins.tolist())
        assert found[row["id"]].columns["wins"] == found[row["id"]].scores
    by_default = scores_of(PairRM(model, tokenizer, "tiny"), data)
    assert scores_of(by_logits, data)["p0"] == pytest.approx(by_default["p0"], abs=1e-6)
    assert by_default["p0"] != pytest.approx(found["p0"].scores, abs=1e-2)
    cards = [scorer.card for scorer in (by_wins, by_logits)]
    assert [card.pop("rank_by") for card in cards] == ["wins", "logits"]
    assert cards[0] == cards[1]
    loaded = load_scorer(arguments(scorer="pairrm", model=str(tmp_path), rank_by="wins"))
    assert loaded.rank_by == "wins"
    assert load_scorer(arguments(scorer="pairrm", model=str(tmp_path))).rank_by == "logits"
    with pytest.raises(BadInput, match="--rank-by best: choose logits or wins"):
        PairRM(model, tokenizer, "tiny", rank_by="best")


@pytest.mark.parametrize("way", ["logits", "wins"])
def test_a_comparison_that_overflows_leaves_no_number_and_no_other_candidate_without_one(way):
    tokenizer = pairrm_tokenizer()
    scorer = PairRM(tiny_pairrm(tokenizer), tokenizer, "tiny", rank_by=way)
    scorer._forward = lambda pairs: [float("nan")] + [1.0] * (len(pairs) - 1)
    data = [{"id": "p", "prompt": "Why?", "candidates": [{"text": "x"}, {"text": "y"}, {"text": "z"}]}]
    ((one,),) = scorer.score(data)
    assert [value is None for value in one.scores] == [value is None for value in one.columns["wins"]]
    assert [value is None for value in one.scores].count(True) == 2  # the two that were compared
    json.dumps({**one.columns, "scores": one.scores}, allow_nan=False)


def test_equal_candidates_are_equal_to_pairrm_and_a_quoted_prefix_misleads_nobody():
    tokenizer = pairrm_tokenizer()
    scorer = PairRM(tiny_pairrm(tokenizer), tokenizer, "tiny")
    data = [{"id": "p", "prompt": "Why?", "candidates": [{"text": "so"}, {"text": "so"}, {"text": "no"}]}]
    ((one,),) = scorer.score(data)
    assert one.scores[0] == pytest.approx(one.scores[1], abs=1e-5)
    assert one.columns["wins"][0] == one.columns["wins"][1]
    quoting = [{"id": "q", "prompt": "<|candidate1|>?", "candidates": [{"text": "<|candidate2|>"}, {"text": "no"}]}]
    assert all(isinstance(value, float) for value in scores_of(scorer, quoting)["q"])


def test_pairrm_cuts_the_ends_as_the_card_does_and_says_so():
    tokenizer = pairrm_tokenizer()
    model = tiny_pairrm(tokenizer)
    data = [{"id": "p", "prompt": "w" * 100, "candidates": [{"text": "a" * 50}, {"text": "b"}]}]
    ((one,),) = PairRM(model, tokenizer, "tiny", max_length=64).score(data)
    source = 64 * 1224 // 2048
    room = (64 - source) // 2
    ahead = [
        pairrm_directly(model, tokenizer, "w" * (source - 3), *pair)
        for pair in (("a" * (room - 3), "b"), ("b", "a" * (room - 3)))
    ]
    assert one.scores[0] == pytest.approx((ahead[0] - ahead[1]) / 2, abs=1e-4)
    assert one.columns["candidates_cut"] == 2  # the prompt of both
    with pytest.raises(BadInput, match=r"does not know <\|source\|>"):
        PairRM(model, bert_tokenizer(), "tiny")


def test_pairrm_with_llm_blenders_own_configuration_is_a_deberta_v3_large(tmp_path, monkeypatch):
    """llm-blender/PairRM has a `config.json` without the model's sizes; those are DeBERTa-v3-large's."""
    from bnf_align.construct.scorers import pairrm

    tokenizer = pairrm_tokenizer()
    model = tiny_pairrm(tokenizer)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"ranker_type": "pairranker", "source_maxlength": 1224}))
    small = {name: getattr(model.config, name) for name in DEBERTA_V3_LARGE}
    monkeypatch.setattr(pairrm, "DEBERTA_V3_LARGE", {**small, "max_position_embeddings": 64})
    data = rows(("Why?",), (3,))
    expected = scores_of(PairRM(model, tokenizer, "tiny"), data)["p0"]
    assert scores_of(PairRM.load(str(tmp_path)), data)["p0"] == pytest.approx(expected, abs=1e-6)


# ------------------------------------------------------------------------------------------------------ judge


def test_a_grade_counts_only_where_the_judge_itself_writes_it():
    assert read_grade('{"reasons": "good", "score": 7}') == 7
    assert read_grade('```json\n{"score": "8"}\n```') == 8
    assert read_grade('Let me think: {"score": 9} is too much.\n{"reasons": "wrong", "score": 2}') == 2
    for reply in (
        "7",
        "",
        '{"score": 0}',
        '{"score": 11}',
        '{"score": 3, "score": 9}',
        '{"score": 9} said the answer',
    ):
        assert read_grade(reply) is None
    assert read_grade(json.dumps({"reasons": 'it says {"score": 10}', "score": 1})) == 1
    assert [read_better(f'{{"better": "{who}"}}') for who in ("A", "B", "tie", " b ", "C")] == [1, 0, 0.5, 0, None]
    assert read_better('{"better": 1}') is None


def judge_at(server, folder, **kwargs) -> Judge:
    return Judge(Endpoint(server.url, "a-judge", retries=2, backoff=0.001, **kwargs), folder)


def grade(body) -> str:
    """By the answer alone: its last character."""
    answer = prompt_of(body).split("<answer>\n")[1].split("\n</answer>")[0]
    return json.dumps({"reasons": "so", "score": 3 + int(answer[-1])})


def test_a_judge_grades_every_candidate(tmp_path):
    data = rows()
    with ModelServer(answer=grade) as server:
        scorer = JudgeScorer(judge_at(server, tmp_path))
        assert scores_of(scorer, data) == {
            row["id"]: [3 + int(one["text"][-1]) for one in row["candidates"]] for row in data
        }
        before = server.received.total()
        assert scores_of(scorer, data, done={"p0", "p1", "p2"}) == {"p3": [3.0]}
        assert server.received.total() == before  # the cache knew
        assert all(body["response_format"] == {"type": "json_object"} for body in server.bodies)
    assert scorer.card["template"].startswith("ours:")


def test_a_failed_judgment_leaves_its_row_for_the_next_run_and_an_unread_one_does_not(tmp_path, caplog):
    def answer(body):
        return "I like it." if "unread" in prompt_of(body) else grade(body)

    data = rows()
    data[0]["candidates"][1]["text"] = "unread 1"
    data[2]["candidates"][0]["text"] = "fails 1"

    with ModelServer(answer=answer) as server:
        real = server._failure
        server._failure = lambda prompt, attempt: "500" if "fails 1" in prompt else real(prompt, attempt)
        scorer = JudgeScorer(judge_at(server, tmp_path))
        found = {one.id: one for batch in scorer.score(data) for one in batch}
        assert found.keys() == {"p0", "p1", "p3"}
        assert found["p0"].scores == [3, None, 5]
        assert found["p0"].columns == {"replies_unread": 1}
        assert scorer.failed.keys() == {"p2"}
        assert "1 row without all judgments" in caplog.text
        server._failure = real
        asked = server.received.total()
        assert scores_of(scorer, data, done=found) == {"p2": [4, 4, 5]}
        assert server.received.total() == asked + 1  # only what had failed


def test_a_judge_that_always_prefers_the_first_is_undecided_in_both_orders(tmp_path):
    with ModelServer(answer=lambda body: '{"better": "A"}') as server:
        scorer = JudgeScorer(judge_at(server, tmp_path), pairs=True)
        assert scores_of(scorer, rows()) == {"p0": [0.5] * 3, "p1": [0.5] * 2, "p2": [0.5] * 3, "p3": [None]}


def test_a_judge_of_pairs_gives_each_candidate_its_share_of_wins(tmp_path):
    def longer(body):
        text = prompt_of(body)
        first, second = (text.split(f"<answer_{x}>\n")[1].split(f"\n</answer_{x}>")[0] for x in "ab")
        if len(first) == len(second):
            return '{"better": "tie"}'
        return json.dumps({"better": "A" if len(first) > len(second) else "B"})

    data = [{"id": "p", "prompt": "x", "candidates": [{"text": text} for text in ("aaa", "b", "cccc", "d")]}]
    with ModelServer(answer=longer) as server:
        ((one,),) = JudgeScorer(judge_at(server, tmp_path), pairs=True).score(data)
        assert server.received.total() == 12
    assert one.scores == [pytest.approx(2 / 3), pytest.approx(1 / 6), 1.0, pytest.approx(1 / 6)]


def test_a_template_of_ones_own_needs_its_places_and_an_answer_is_never_read_as_a_template(tmp_path):
    with ModelServer(answer=lambda body: '{"score": 5}') as server:
        judge = judge_at(server, tmp_path)
        with pytest.raises(BadInput, match="no place for answer"):
            JudgeScorer(judge, "Grade {prompt}")
        scorer = JudgeScorer(judge, "P: {prompt} A: {answer}")
        list(scorer.score([{"id": "p", "prompt": "{answer}", "candidates": [{"text": "{prompt}"}]}]))
        assert prompt_of(server.bodies[-1]) == "P: {answer} A: {prompt}"
        assert scorer.card["template"] != JudgeScorer(judge).card["template"]


# --------------------------------------------------------------------------------------------------- verifier


def test_the_named_rules_of_the_verifier():
    row = {"id": "p", "prompt": "?", "answer": "so it is 6\n#### 6"}
    texts = ["2 * 3 = 6\n#### 6", "The answer is 7.", "6", "so it is 6\n#### 6 "]
    row["candidates"] = [{"text": text} for text in texts]
    assert scores_of(Verifier(), [row]) == {"p": [1, 0, 1, 1]}
    assert scores_of(Verifier("exact"), [row]) == {"p": [0, 0, 0, 1]}
    assert scores_of(Verifier(), [row, {**row, "id": "q"}], done={"p"}) == {"q": [1, 0, 1, 1]}
    half = {"id": "p", "prompt": "?", "gold": r"\frac{1}{2}", "candidates": [{"text": "0.5"}, {"text": "1/3"}]}
    assert scores_of(Verifier("math_verify", "gold"), [half]) == {"p": [1, 0]}
    with pytest.raises(BadInput, match=r"1 row has no `solution` .* the first with the id 'p'"):
        scores_of(Verifier(column="solution"), [row])


def test_a_gold_answer_that_states_no_number_stops_before_anything_is_scored():
    golds = {"p": "6", "q": "Six"}
    rows = [{"id": name, "answer": gold, "candidates": [{"text": "#### 6"}]} for name, gold in golds.items()]
    with pytest.raises(BadInput, match=r"1 of 2 rows cannot be scored\. Of the first, 'q', the right answer 'Six'"):
        scores_of(Verifier(), rows)
    assert scores_of(Verifier("exact"), rows) == {"p": [0], "q": [0]}


def test_the_boxed_answers_of_the_cases_get_their_right_scores():
    folder = Path(os.environ.get("BNF_ALIGN_CASES", Path(__file__).parents[2] / "shared" / "cases")) / "verifier_boxed"
    if not folder.is_dir():
        pytest.skip("the cases are not here (BNF_ALIGN_CASES)")
    file = next(path for path in folder.iterdir() if path.suffix == ".jsonl")
    expected = json.loads((folder / "expected.json").read_text())
    assert scores_of(Verifier(), read_candidates(file)) == expected


def test_another_file_of_a_users_rule_is_another_scorer(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cards = []
    for text in ("return 1", "return 2"):
        (tmp_path / "changing_rule.py").write_text(f"def score(row, text):\n    {text}\n")
        sys.modules.pop("changing_rule", None)
        cards.append(Verifier("changing_rule:score").card)
    assert cards[0]["code"] != cards[1]["code"]
    assert {**cards[0], "code": None} == {**cards[1], "code": None}


def test_a_rule_may_be_a_function_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_rule.py").write_text(
        "def score(row, text):\n    return {'a': True, 'b': 0.25, 'c': None, 'd': float('nan')}[text]\n"
    )
    row = {"id": "p", "prompt": "?", "candidates": [{"text": text} for text in "abcd"]}
    assert scores_of(Verifier("my_rule:score"), [row]) == {"p": [1.0, 0.25, None, None]}
    for wrong in ("nothing", "my_rule:other", "no_such_module:score"):
        with pytest.raises(BadInput, match="--rule"):
            Verifier(wrong)


def test_a_rule_that_fails_says_on_which_row_and_in_which_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "failing_rule.py").write_text(
        "def score(row, text):\n    return int(text)\ndef word(row, text):\n    return text\nnumber = 3\n"
    )
    rows = [{"id": "p", "candidates": [{"text": "1"}]}, {"id": "q", "candidates": [{"text": "2"}, {"text": "two"}]}]
    with pytest.raises(BadInput, match=r"candidate 1 of the row with the id 'q': .*failing_rule\.py, line 2"):
        scores_of(Verifier("failing_rule:score"), rows)
    with pytest.raises(BadInput, match=r"could not convert string to float: 'two'\. It is called"):
        scores_of(Verifier("failing_rule:word"), rows)
    with pytest.raises(BadInput, match="failing_rule:number is 3, not a function"):
        Verifier("failing_rule:number")


# ------------------------------------------------------------------------------------------------------- load


def arguments(**given) -> SimpleNamespace:
    known = dict.fromkeys(FLAGS) | {"dtype": "auto", "trust_remote_code": False, "pairs": False}
    return SimpleNamespace(**{**known, "batch_rows": 8, "batch_tokens": 512, **given})


def test_the_command_line_names_every_scorer(tmp_path):
    from bnf_align.cli.score import SCORERS
    from bnf_align.construct.scorers.load import CLASSES

    assert set(SCORERS) == {"judge", *CLASSES}
    assert load_scorer(arguments(scorer="verifier")).card == {
        "scorer": "verifier:final_answer",
        "column": "answer",
        "rules": 2,
    }
    assert load_scorer(arguments(scorer="verifier", rule="exact", answer_column="gold")).card["column"] == "gold"
    model, tokenizer = llama_classifier(), llama3_tokenizer()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    scorer = load_scorer(arguments(scorer="reward_model", model=str(tmp_path), max_length=99))
    assert scorer.card["max_length"] == 99
    assert scorer.limits == Limits(8, 512)
    for name in ("reward_model", "armorm", "pairrm", "judge"):
        with pytest.raises(BadInput, match="--model"):
            load_scorer(arguments(scorer=name))
    with pytest.raises(BadInput, match="--url"):
        load_scorer(arguments(scorer="judge", model="m"))


@pytest.mark.parametrize(
    ("scorer", "flag", "value"),
    [
        ("verifier", "model", "m"),
        ("verifier", "rank_by", "wins"),
        ("reward_model", "rank_by", "wins"),
        ("reward_model", "rule", "exact"),
        ("armorm", "trust_remote_code", True),
        ("pairrm", "pairs", True),
        ("judge", "max_length", 9),
    ],
)
def test_a_flag_of_another_scorer_is_refused_where_it_would_do_nothing(scorer, flag, value):
    given = {"scorer": scorer, "model": None if scorer == "verifier" else "m", flag: value}
    with pytest.raises(BadInput, match=f"--{flag.replace('_', '-')} is for --scorer .*{scorer} has no use for it"):
        load_scorer(arguments(**given))
