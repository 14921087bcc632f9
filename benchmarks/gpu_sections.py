"""What `gpu.py` measures: the sizes, and of each section its rows with their claims and thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import torch
from device import Device
from gpu_head import HEADS, LOSSES, PEERS, Shape, gradients, heads
from gpu_models import Setting, first_weights, training_steps
from plan_memory import LLAMA
from protocol import REPORTED, Estimate

OURS = "high <= 1.01"
ROUNDED_TWICE = f"figure <= {2**-8}"
"""Slopes are rounded to bfloat16 before they are multiplied, and gradients after it, each by at most 2^-9."""

Rows = dict[str, tuple[str, str]]
"""Claim and threshold of each id."""

BIG = LLAMA | {"hidden_size": 4096, "vocab_size": 128_256}
SMALL = {"num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "tie_word_embeddings": True} | {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "vocab_size": 128_256,
}
TINY = {"num_hidden_layers": 1, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 32} | {
    "vocab_size": 300
}


class Sizes(NamedTuple):
    """How large everything is, and how often it is timed."""

    ceiling: int
    gradient: Shape
    head: Shape
    full: Setting
    lora: Setting
    weight: Setting
    sharpness: float
    padded_rows: int
    head_rounds: int
    full_rounds: int
    lora_rounds: int


FULL = Setting(SMALL, torch.float32, lora=False, checkpointing=False, pairs=8, length=1024, budget=8192)
REAL = Sizes(
    ceiling=8192,
    gradient=(128, 4096, 128_256),
    head=(8192, 4096, 128_256),
    full=FULL,
    lora=FULL._replace(config=BIG, dtype=torch.bfloat16, lora=True, checkpointing=True),
    weight=FULL._replace(pairs=128, length=4096),
    sharpness=8.0,
    padded_rows=8,
    head_rounds=50,
    full_rounds=30,
    lora_rounds=15,
)
TINIEST = FULL._replace(config=TINY, pairs=2, length=12, budget=24)
TOY = Sizes(
    ceiling=64,
    gradient=(16, 32, 100),
    head=(32, 16, 100),
    full=TINIEST,
    lora=TINIEST._replace(dtype=torch.bfloat16, lora=True, checkpointing=True),
    weight=TINIEST._replace(pairs=6, length=40, budget=80),
    sharpness=8.0,
    padded_rows=3,
    head_rounds=2,
    full_rounds=2,
    lora_rounds=2,
)


class Section(NamedTuple):
    """Rows that are measured together, and how."""

    rows: Rows
    measure: Callable[[Device], dict[str, Estimate]]


def sections(sizes: Sizes) -> dict[str, Section]:
    """All sections by name; what is quick comes first."""
    size = sizes.ceiling
    found = {
        "ceiling": Section(
            {"ceiling": (f"FLOP/s of a bfloat16 matmul of {size} x {size}, random numbers", REPORTED)},
            lambda device: {"ceiling": device.ceiling(size)},
        ),
        "gradient": Section(gradient_rows(sizes.gradient), partial(gradients, shape=sizes.gradient)),
    }
    for name, runs in (("head", HEADS), ("peers", PEERS)):
        what = f"the head with bfloat16 weights, forward and backward, {'x'.join(map(str, sizes.head))}"
        measure = partial(heads, prefix=name, runs=runs, shape=sizes.head, rounds=sizes.head_rounds, ceiling=size)
        found[name] = Section(cost_rows(name, what, runs, "above what was held before"), measure)
    for name, setting, rounds, text in (
        ("1b", sizes.full, sizes.full_rounds, "Llama-3.2-1B shape, all weights trained in float32"),
        ("8b-lora", sizes.lora, sizes.lora_rounds, "Llama-3-8B shape in bfloat16, LoRA, activation checkpointing"),
    ):
        what = f"a step, {text}, bfloat16 autocast, {setting.tokens} tokens, {setting.budget} a micro-batch"
        measure = partial(training_steps, name=name, setting=setting, rounds=rounds, ceiling=size)
        rows = cost_rows(name, what, LOSSES, "weights and AdamW's states included") | model_rows(name, what)
        found[name] = Section(rows, measure)
    measure = partial(first_weights, setting=sizes.weight, sharpness=sizes.sharpness, batch=sizes.padded_rows)
    return found | {"weight": Section(weight_rows(sizes), measure)}


def gradient_rows(shape: Shape) -> Rows:
    """Of the section gradient."""
    setting = f"in float64, bfloat16 weights, the larger of dL/dh and dL/dW, {'x'.join(map(str, shape))}"
    oracles = dict.fromkeys(LOSSES, "autograd through all logits") | {"bnf": "Eq. 4"}
    claims = {loss: f"relative error of the gradient of {loss} against {oracles[loss]} {setting}" for loss in LOSSES}
    return {f"gradient-{loss}": (claim, ROUNDED_TWICE) for loss, claim in claims.items()}


def cost_rows(prefix: str, what: str, names: Iterable[str], memory: str) -> Rows:
    """Of `device.compared`, and memory and share of the ceiling."""
    share = "share of the matmul ceiling reached by the matmuls, without fused attention, of"
    rows: Rows = {f"{prefix}-noise-floor": (f"time of {what}, BNF over itself (A/A)", REPORTED)}
    for name in names:
        rows[f"{prefix}-ms-{name}"] = (f"milliseconds of {what}, {name}", REPORTED)
        rows[f"{prefix}-memory-{name}"] = (f"MiB at the peak of {what}, {memory}, {name}", REPORTED)
        if name in LOSSES:
            rows[f"{prefix}-ceiling-{name}"] = (f"{share} {what}, {name}", REPORTED)
        if name == "sft":
            rows[f"{prefix}-time-bnf-sft"] = (f"time of {what}, BNF over SFT", OURS)
        elif name != "bnf":
            rows[f"{prefix}-time-{name}-bnf"] = (f"time of {what}, {name} over BNF", REPORTED)
    return rows


def model_rows(name: str, what: str) -> Rows:
    """What a model has besides `cost_rows`."""
    passes = "the reference's forward passes over the same tokens"
    return {
        f"{name}-tokens-bnf": (f"tokens per second in {what}, bnf", REPORTED),
        f"{name}-ms-reference": (f"milliseconds of {passes}; {what}", REPORTED),
        f"{name}-reference-pass": (f"time of {passes} over that of BNF; {what}", REPORTED),
    }


def weight_rows(sizes: Sizes) -> Rows:
    """Of the section weight."""
    model = f"Llama-3.2-1B shape, random weights with the final norm times {sizes.sharpness:g}, bfloat16 autocast"
    setting = f"{model}, {2 * sizes.weight.pairs} responses, reference in sorted batches"
    ways = {"sorted": "the same batches", "padded": f"random order, {sizes.padded_rows} rows padded"}
    rows: Rows = {}
    for name, way in ways.items():
        where = f"before the first step, {setting}, policy in {way}"
        rows[f"weight-{name}"] = (f"mean BNF weight of a token {where}", REPORTED)
        rows[f"difference-{name}"] = (f"mean |log pi - log r| of a token in nats {where}", REPORTED)
    return rows
