"""Generation in process: our engine against `model.generate` row by row, and against transformers' batched pipeline.

    python benchmarks/generation.py

All sides decode the same prompts greedily with the same random Llama in float32, from texts on. Prompts have lognormal
lengths and come in random order. One token in so many ends a text, and the model's weights are wide enough for its
greedy texts to wander, so texts end at different times, as those of a trained model do. What is compared is tokens per
CPU second, each side's own tokens over its own time: rounding lets a few texts differ between batches.

The pipeline runs with several batch sizes, ours among them, and the fastest counts; its output is left as token ids.
Writes the rows generate-row-by-row and generate-pipeline of `results/claims.csv`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from protocol import Estimate, median_ratio, paired_seconds, write_claim
from steps import SIZES, byte_tokenizer, text
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, pipeline

from bnf_align.engines import Request, Sampling
from bnf_align.engines.local import LocalEngine

ROWS, PROMPT, LONGEST, NEW_TOKENS = 48, (60, 1.0), 512, 192
"""Prompts, (median, sigma) of their lognormal lengths, the longest, and the longest answer."""
VOCABULARY, ENDS = 32_000, 500
"""One token in 64 ends a text: answers have 62 tokens in the mean, and one in 20 has all of them."""
PIPELINE_BATCHES = (8, 64)
ROUNDS = 6

Side = Callable[[], list[int]]
"""Generates all answers and returns the tokens of each."""


def wandering_llama(vocabulary: int = VOCABULARY, ends: int = ENDS, **sizes: Any) -> PreTrainedModel:
    """Random weights, the same in every call; its first `ends` tokens above the bytes end a text."""
    torch.manual_seed(0)
    names = {"bos_token_id": None, "eos_token_id": 257, "pad_token_id": 256}
    config = LlamaConfig(vocab_size=vocabulary, **{"initializer_range": 0.1, **SIZES, **sizes}, **names)
    model = LlamaForCausalLM(config).eval()
    model.generation_config.eos_token_id = [257, *range(300, 300 + ends)]
    return model


def prompts(random: np.random.Generator, count: int) -> list[str]:
    """Random letters of lognormal lengths."""
    lengths = np.clip(random.lognormal(np.log(PROMPT[0]), PROMPT[1], count), 4, LONGEST)
    return [text(random, length) for length in lengths]


def sides(model: PreTrainedModel, rows: Sequence[str], batches: Sequence[int], new_tokens: int) -> dict[str, Side]:
    """What is compared, by name."""
    tokenizer = byte_tokenizer()
    tokenizer.padding_side = "left"
    greedy = {"do_sample": False, "max_new_tokens": new_tokens}
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer)
    found: dict[str, Side] = {
        "ours": partial(ours, LocalEngine(model, tokenizer, name="random"), rows, new_tokens),
        "row by row": partial(row_by_row, model, tokenizer, rows, greedy),
    }
    for size in batches:
        found[f"pipeline, batch {size}"] = partial(batched_pipeline, generator, rows, size, greedy)
    return found


def ours(engine: LocalEngine, rows: Sequence[str], new_tokens: int) -> list[int]:
    """The engine with its own batches."""
    requests = [Request(str(number), row) for number, row in enumerate(rows)]
    found = {one.id: one for batch in engine.generate(requests, Sampling(max_new_tokens=new_tokens)) for one in batch}
    return [int(found[request.id].tokens[0] or 0) for request in requests]


def row_by_row(model: Any, tokenizer: Any, rows: Sequence[str], greedy: dict[str, Any]) -> list[int]:
    """One prompt after another."""
    counts = []
    for row in rows:
        inputs = tokenizer(row, return_tensors="pt")
        answer = model.generate(**inputs, **greedy)[0, inputs["input_ids"].shape[1] :]
        tokenizer.decode(answer, skip_special_tokens=True)
        counts.append(len(answer))
    return counts


def batched_pipeline(generator: Any, rows: Sequence[str], size: int, greedy: dict[str, Any]) -> list[int]:
    """`pipeline("text-generation", batch_size=size)`, which pads the rows in the order in which they come."""
    answers = generator(list(rows), batch_size=size, return_tensors=True, **greedy)
    ends, counts = set(generator.model.generation_config.eos_token_id), []
    for start in range(0, len(rows), size):
        longest = max(map(len, rows[start : start + size]))  # a letter is a token
        for answer in answers[start : start + size]:
            tokens = answer[0]["generated_token_ids"][longest:]
            counts.append(next((i + 1 for i, token in enumerate(tokens) if token in ends), len(tokens)))
    return counts


def measured(found: dict[str, Side], rounds: int) -> tuple[dict[str, int], dict[str, np.ndarray]]:
    """Tokens of each side, and its tokens per CPU second in every round."""
    tokens = {name: sum(side()) for name, side in found.items()}
    seconds = paired_seconds(*found.values(), rounds=rounds, warm_up=0)  # counting has warmed up
    return tokens, {name: count / seconds[:, number] for number, (name, count) in enumerate(tokens.items())}


def write_rates(tokens: dict[str, int], rates: dict[str, np.ndarray], rows: int, **where: Any) -> None:
    """The rows generate-row-by-row and generate-pipeline."""
    medians = {name: float(np.median(rate)) for name, rate in rates.items()}
    fastest = max((name for name in rates if name.startswith("pipeline")), key=medians.__getitem__)
    all_of_them = "; ".join(f"{name} {medians[name]:.0f} ({tokens[name]})" for name in rates)
    for claim_id, other, words, threshold in (
        ("generate-row-by-row", "row by row", "model.generate row by row", "low >= 1.5"),
        ("generate-pipeline", fastest, f"transformers' {fastest}", "low >= 1.0"),
    ):
        claim = (
            f"generated tokens per CPU second, our engine over {words}; {rows} prompts, greedy, "
            f"{len(rates['ours'])} rounds; in tokens per second (tokens) {all_of_them}"
        )
        ratio: Estimate = median_ratio(rates["ours"], rates[other])
        write_claim(claim_id, claim, ratio, threshold, **where)


def main() -> None:
    """Time and write."""
    torch.set_num_threads(1)
    rows = prompts(np.random.default_rng(0), ROWS)
    write_rates(*measured(sides(wandering_llama(), rows, PIPELINE_BATCHES, NEW_TOKENS), ROUNDS), rows=len(rows))


if __name__ == "__main__":
    main()
