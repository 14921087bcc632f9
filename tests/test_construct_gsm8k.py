"""Data of the public GSM8K: train questions through served models, and 5,276 real solutions through the verifier."""

import gzip
import json
import math
import os
import threading
from pathlib import Path

import pytest
import torch

from bnf_align.cli.main import main
from bnf_align.engines import Request, Sampling
from bnf_align.engines.local import LocalEngine
from bnf_align.journal import read_jsonl
from construct_runs import write
from model_server import ModelServer, prompt_of
from tiny_models import CHATML_TEMPLATE, byte_tokenizer, chatml_tokenizer
from tiny_nets import tiny_llama
from transformers_server import served


def data(name: str) -> Path:
    where = os.environ.get("BNF_ALIGN_DATA")
    if not where:
        pytest.skip("needs the public data: set BNF_ALIGN_DATA to its folder")
    return Path(where) / name


def test_the_verifier_agrees_with_every_label_of_5276_solutions(tmp_path):
    with gzip.open(data("gsm8k/test.jsonl.gz"), "rt") as file:
        gold = {row["question"]: row["answer"] for row in map(json.loads, file)}
    solutions = list(read_jsonl(data("preference/gsm8k_model_solutions.unpaired.jsonl.gz")))
    assert len(solutions) == 5276
    by_prompt: dict[str, list] = {}
    for row in solutions:
        by_prompt.setdefault(row["prompt"], []).append(row)
    rows = [
        {
            "id": str(i),
            "prompt": prompt,
            "answer": gold[prompt],
            "candidates": [{"text": row["completion"]} for row in own],
            "labels": [row["label"] for row in own],
        }
        for i, (prompt, own) in enumerate(by_prompt.items())
    ]
    candidates, scored = tmp_path / "c.jsonl", tmp_path / "s.jsonl"
    write(candidates, rows)
    assert main(["score", str(candidates), "--scorer", "verifier", "--out", str(scored)]) == 0
    found = [
        (score, label) for row in read_jsonl(scored) for score, label in zip(row["scores"], row["labels"], strict=True)
    ]
    assert len(found) == 5276
    assert sum(score != label for score, label in found) == 0
    assert 0 < sum(label for _, label in found) < 5276


def test_gsm8k_questions_are_answered_by_a_served_tiny_model(tmp_path):
    engine = LocalEngine(tiny_llama(300, max_position_embeddings=4096), chatml_tokenizer(), "m")
    one_at_a_time = threading.Lock()

    def answer(body):
        sampling = Sampling(body["temperature"], body["top_p"], body["max_tokens"], seed=body["seed"])
        with one_at_a_time:
            ((found,),) = engine.generate([Request("one", body["messages"])], sampling)
        return found.texts[0]

    out, scored = tmp_path / "c.jsonl", tmp_path / "s.jsonl"
    with ModelServer(answer=answer) as server:
        where = ["--prompts", str(data("gsm8k/train.jsonl.gz")), "--limit", "8", "--chat", "--out", str(out)]
        assert main(["generate", *where, "--model", "m", "--url", server.url, "--max-new-tokens", "16"]) == 0
    rows = list(read_jsonl(out))
    texts = [one["text"] for row in rows for one in row["candidates"]]
    assert (len(rows), len(texts)) == (8, 40)
    assert len(set(texts)) > 30  # a random model may end at once, twice
    assert main(["score", str(out), "--scorer", "verifier", "--out", str(scored)]) == 0
    assert {score for row in read_jsonl(scored) for score in row["scores"]} == {0.0}  # it has learned nothing


def test_gsm8k_questions_go_through_a_served_model_to_pairs(tmp_path):
    """A server that answers some right and some wrong, as a real model does: the pairs are right against wrong."""
    with gzip.open(data("gsm8k/train.jsonl.gz"), "rt") as file:
        gold = {row["question"]: row["answer"] for row in map(json.loads, file)}
    candidates, scored, out = (tmp_path / f"{name}.jsonl" for name in ("candidates", "scored", "set"))

    def answer(body):
        right = gold[prompt_of(body)]
        return right if body["seed"] % 3 == 0 else f"Let me see.\n#### {body['seed'] % 1000 + 0.5}"

    with ModelServer(answer=answer) as server:
        where = ["--prompts", str(data("gsm8k/train.jsonl.gz")), "--limit", "300", "--chat", "--out", str(candidates)]
        assert main(["generate", *where, "--model", "m", "--url", server.url, "--concurrency", "32"]) == 0
        assert server.served.total() == 1500
        assert {body["temperature"] for body in server.bodies} == {0.8}
    assert main(["score", str(candidates), "--scorer", "verifier", "--out", str(scored)]) == 0
    assert main(["select", str(scored), "--out", str(out)]) == 0
    rows = list(read_jsonl(out))
    # A prompt has a pair unless all five are right or all are wrong.
    assert abs(len(rows) / 300 - (1 - (1 / 3) ** 5 - (2 / 3) ** 5)) < 0.1
    for row in rows:
        assert row["chosen"][0]["content"] == gold[row["prompt"][0]["content"]]
        assert row["rejected"][0]["content"].startswith("Let me see.")


def digits_llama(folder: Path) -> str:
    """A model that answers `#### ` and a digit: what comes next follows from the last token alone.

    Attention and MLP add nothing, and a token's hidden state is its own axis, so a row of the head is a distribution.
    """
    merges = (("#", "#"), ("##", "##"), ("####", "Ġ"))  # the mark and its space are one token
    tokenizer = byte_tokenizer(["<|im_start|>", "<|im_end|>"], merges=merges, eos_token="<|im_end|>")
    tokenizer.chat_template = CHATML_TEMPLATE
    size = 320
    model = tiny_llama(300, hidden_size=size, num_hidden_layers=1, max_position_embeddings=4096)
    newline, mark, *digits = tokenizer("\n#### 123456789", add_special_tokens=False)["input_ids"]
    assert len(digits) == 9
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    logits = torch.full((300, 300), -50.0)  # after, next
    logits[newline, mark] = 0
    logits[mark, digits] = math.log(0.11)
    logits[mark, digits[4]] = math.log(0.12)
    logits[digits, end] = math.log(0.9)
    logits[digits, digits[0]] = math.log(0.1)
    with torch.no_grad():
        layer = model.model.layers[0]
        for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
            weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(300, size))
        model.lm_head.weight.copy_(logits.T @ torch.eye(300, size) / math.sqrt(size))  # the norm is sqrt(size)
    # As chat models have it: without `do_sample` the server takes the likeliest token at every temperature.
    model.generation_config.update(do_sample=True, eos_token_id=end, pad_token_id=end)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_gsm8k_questions_go_through_transformers_serve_to_pairs(tmp_path):
    model = digits_llama(tmp_path / "model")
    with gzip.open(data("gsm8k/train.jsonl.gz"), "rt") as file:
        questions = [row for row in map(json.loads, file) if row["answer"][-2] == " "][:10]
    gold = {row["question"]: row["answer"].split("#### ")[1] for row in questions}
    assert len(gold) == 10
    assert all(len(number) == 1 for number in gold.values())
    greedy, own, sampled, scored, out = (tmp_path / f"{name}.jsonl" for name in ("g", "own", "s", "scored", "set"))
    ask = ["generate", "--prompts", write(tmp_path / "q.jsonl", questions), "--chat", "--model", model]
    ask += ["--max-new-tokens", "8"]
    with served(model) as url:
        ask_server = [*ask, "--url", url, "--concurrency", "4"]
        assert main([*ask_server, "--temperature", "0", "-n", "1", "--out", str(greedy)]) == 0
        assert main([*ask_server, "-n", "10", "--out", str(sampled)]) == 0
    assert main([*ask, "--temperature", "0", "-n", "1", "--out", str(own)]) == 0
    assert greedy.read_bytes() == own.read_bytes()  # texts, finish reasons, tokens
    assert {one["text"] for row in read_jsonl(greedy) for one in row["candidates"]} == {"#### 5"}
    assert main(["score", str(sampled), "--scorer", "verifier", "--out", str(scored)]) == 0
    rows = list(read_jsonl(scored))
    assert [row["prompt"][0]["content"] for row in rows] == list(gold)
    best = {row["id"]: f"#### {gold[row['prompt'][0]['content']]}" for row in rows}
    right = {row["id"]: [one["text"] == best[row["id"]] for one in row["candidates"]] for row in rows}
    assert {row["id"]: row["scores"] for row in rows} == right
    assert 0 < sum(map(sum, right.values())) < 50  # one in ten
    assert main(["select", str(scored), "--out", str(out)]) == 0
    pairs = list(read_jsonl(out))
    assert [pair["id"] for pair in pairs] == [name for name, own_right in right.items() if any(own_right)]
    for pair in pairs:
        assert pair["chosen"] == [{"role": "assistant", "content": best[pair["id"]]}]
        assert pair["rejected"][0]["content"] != best[pair["id"]]
