"""Is the planned peak memory what a run takes? On CPU, Llamas with random weights, float32, all trained.

    python benchmarks/plan_memory.py [NAME ...]   without names writes the row `plan-memory` of results/claims.csv
    python benchmarks/plan_memory.py --models     the table of docs/plan.md: nothing is run

Measured is the peak resident memory of a fresh process from its start, interpreter and imports included; planned is
`plan` of its own run.json. The allocator is the system's, as a user has it.
"""

from __future__ import annotations

import json
import multiprocessing
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import protocol
import torch
from peft import LoraConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import Gemma2Config, LlamaConfig, LlamaForCausalLM, MistralConfig, PreTrainedTokenizerFast

from bnf_align import PreferenceConfig, PreferenceTrainer
from bnf_align.plan.plan import Hardware, make_plan
from bnf_align.plan.workload import assumed

SMOLLM2 = {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
SMOLLM2 |= {"num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True}
HEADS = {"num_attention_heads": 8}
SHAPES: dict[str, dict[str, Any]] = {
    "SmolLM2-135M": SMOLLM2,
    "58M": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "vocab_size": 32000, **HEADS},
    "67M": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 6, "vocab_size": 16000, **HEADS},
    "52M tied": {
        "hidden_size": 640,
        "intermediate_size": 1728,
        "num_hidden_layers": 8,
        "vocab_size": 20000,
        "tie_word_embeddings": True,
        **HEADS,
    },
}
RUNS: dict[str, tuple[str, int, dict[str, Any]]] = {
    # Shape, characters of the longest response, settings.
    "SmolLM2-135M, 8 responses": ("SmolLM2-135M", 256, {"max_tokens_per_micro_batch": 2048}),
    "SmolLM2-135M, 1024 tokens each": ("SmolLM2-135M", 1024, {"max_tokens_per_micro_batch": 2048, "batch_size": 1}),
    "58M, 2048 tokens": ("58M", 320, {"max_tokens_per_micro_batch": 2048}),
    "58M, 2048 tokens, checkpointing": (
        "58M",
        320,
        {"max_tokens_per_micro_batch": 2048, "activation_checkpointing": True},
    ),
    "67M, 1024 tokens": ("67M", 320, {"max_tokens_per_micro_batch": 1024}),
    "67M, 8192 tokens": ("67M", 320, {"max_tokens_per_micro_batch": 8192}),
    "52M tied, 2048 tokens, dpo": ("52M tied", 320, {"max_tokens_per_micro_batch": 2048, "loss_type": "dpo"}),
}


def tokenizer() -> PreTrainedTokenizerFast:
    """A token per byte."""
    vocabulary = [*sorted(pre_tokenizers.ByteLevel.alphabet()), "<eos>"]
    bytewise = Tokenizer(models.BPE({token: number for number, token in enumerate(vocabulary)}, []))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytewise.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bytewise, eos_token="<eos>", pad_token="<eos>")


def rows(longest: int, count: int) -> list[dict[str, str]]:
    """Pairs of up to `longest` characters a response, some shorter."""
    prompt = longest // 4
    return [
        {
            "prompt": "q" * prompt,
            "chosen": "a" * (longest - prompt - 1 - longest // 40 * (i % 4)),
            "rejected": "b" * (longest - prompt - 1 - longest // 50 * (i % 3)),
        }
        for i in range(count)
    ]


def train(shape: str, longest: int, options: dict[str, Any], folder: str) -> None:
    """Two steps; `folder` receives run.json."""
    torch.set_num_threads(1)
    config = LlamaConfig(**SHAPES[shape], bos_token_id=None, eos_token_id=None)
    settings = {"batch_size": 4, "max_steps": 2, "save_strategy": "no", "use_cpu": True, "report_to": "none"}
    settings |= {"output_dir": folder, "ref_cache_dir": f"{folder}/cache", "disable_tqdm": True}
    trainer = PreferenceTrainer(
        LlamaForCausalLM(config),
        PreferenceConfig(**{**settings, **options}),
        train_dataset=rows(longest, 2 * options.get("batch_size", 4)),
        processing_class=tokenizer(),
    )
    with redirect_stdout(sys.stderr):
        trainer.train()


LLAMA = {"num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336}
GEMMA = {"num_hidden_layers": 42, "num_attention_heads": 16, "num_key_value_heads": 8, "intermediate_size": 14336}
LARGE = {"num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 28672}
LORA = LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM")
BIG: dict[str, tuple[Any, dict[str, Any]]] = {
    "Llama-3-8B": (LlamaConfig(hidden_size=4096, vocab_size=128256, **LLAMA), {}),
    "Mistral-7B-v0.2": (MistralConfig(hidden_size=4096, vocab_size=32000, **LLAMA, sliding_window=None), {}),
    "Gemma-2-9B": (
        Gemma2Config(hidden_size=3584, vocab_size=256000, head_dim=256, **GEMMA),
        {"attention": "eager"},
    ),
    "Llama-3-70B": (LlamaConfig(hidden_size=8192, vocab_size=128256, **LARGE), {}),
    "Llama-3-70B, bfloat16 weights": (
        LlamaConfig(hidden_size=8192, vocab_size=128256, **LARGE),
        {"dtype": torch.bfloat16},
    ),
    "Llama-3-70B, LoRA on bfloat16 weights": (
        LlamaConfig(hidden_size=8192, vocab_size=128256, **LARGE),
        {"dtype": torch.bfloat16, "peft_config": LORA},
    ),
}


def print_models() -> None:
    """Eight devices of 80 GB and 312 TFLOP/s, 60,000 pairs, 500 tokens a response, FSDP2 and checkpointing."""
    config = PreferenceConfig(output_dir="-", use_cpu=True, batch_size=128, activation_checkpointing=True)
    print(
        "| model | parameters | DDP | FSDP2 x 8 | states | micro-batch | reference pass | suggestion | device hours |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (model, options) in BIG.items():
        work = assumed(60_000, 500, config, 8)
        ddp, fsdp = (
            make_plan(model, config, work, Hardware(8, memory, 312, sharded, True, True), **options)
            for sharded, memory in ((False, None), (True, 80 * 2**30))
        )
        memory, found = fsdp["memory_bytes"], fsdp["suggestion"]
        states = memory["weights"] + memory["gradients"] + memory["optimizer_states"]
        gib = [ddp["memory_bytes"]["total"], memory["total"], states, memory["gathered"] + memory["micro_batch"]]
        figures = " | ".join(f"{size / 2**30:.0f}" for size in [*gib, memory["reference_pass"]])
        how = f"{found['sharding']} x {found['devices']}, {found['max_tokens_per_micro_batch']}"
        print(f"| {name} | {fsdp['parameters'] / 1e9:.2f} B | {figures} | {how} | {fsdp['hours']['device']:.1f} |")


def main() -> None:
    """Print a table, and the claim if every run was made."""
    if sys.argv[1:] == ["--models"]:
        return print_models()
    print("| run | parameters | micro-batch | process | planned MiB | measured MiB | planned / measured |")
    print("|---|---|---|---|---|---|---|")
    ratios = []
    for name in sys.argv[1:] or RUNS:
        with tempfile.TemporaryDirectory() as folder:
            process = multiprocessing.get_context("spawn").Process(target=train, args=(*RUNS[name], folder))
            process.start()
            process.join()
            record = json.loads((Path(folder) / "run.json").read_text())
        plan, measured = record["plan"], record["peak_memory_bytes"]
        memory, work = plan["memory_bytes"], plan["workload"]
        planned = max(memory["total"], memory["reference_pass"])
        ratios.append(planned / measured)
        sizes = f"{plan['parameters'] / 1e6:.1f} M | {work['rows']} x {work['length']}"
        figures = " | ".join(f"{size / 2**20:.0f}" for size in (memory["process"], planned, measured))
        print(f"| {name} | {sizes} | {figures} | {ratios[-1]:.3f} |", flush=True)
    if not sys.argv[1:]:
        misses = [abs(ratio - 1) for ratio in ratios]
        claim = f"largest miss of the planned peak memory, import included, over {len(RUNS)} runs on CPU"
        worst = protocol.Estimate(max(misses), min(misses), max(misses))
        print(protocol.write_claim("plan-memory", claim, worst, "figure <= 0.15"))
    print(f"\n{protocol.machine()}; {protocol._versions()}")


if __name__ == "__main__":
    main()
