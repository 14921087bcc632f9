"""A small Llama with random weights and a tokenizer trained on your data: a base for trying things out offline.

    python benchmarks/small_llama.py DATA OUT [--vocab_size 1024] [--seed 0]

DATA is what `bnf-align train --dataset_name` takes. The tokenizer is a byte-level BPE, so it can write any text; its
chat template puts the role before each message and <|end|> behind it.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from bnf_align.data.read import iter_rows
from bnf_align.data.rows import preference_rows

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIALS = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
SIZES = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}


def texts(source: str) -> Iterator[str]:
    """Every text of the rows, messages one by one."""
    rows, _ = preference_rows(iter_rows(source), source=source)
    for row in rows:
        for name in ("prompt", "chosen", "rejected", "completion"):
            value = row.get(name, "")
            yield from [value] if isinstance(value, str) else (message["content"] for message in value)


def small_tokenizer(source: str, vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the texts of `source`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts(source), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")
    fast.chat_template = TEMPLATE
    return fast


def main() -> None:
    """Make the model and save it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("out", type=Path)
    parser.add_argument("--vocab_size", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    tokenizer = small_tokenizer(arguments.data, arguments.vocab_size)
    set_seed(arguments.seed)
    names = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SIZES, **names))
    tokenizer.save_pretrained(arguments.out)
    model.save_pretrained(arguments.out)
    print(f"{model.num_parameters():,} random weights and {len(tokenizer):,} tokens are in {arguments.out}")


if __name__ == "__main__":
    main()
