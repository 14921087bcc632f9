"""The tiny model: a word-level tokenizer and a Llama of 0.65 million parameters, both ordinary transformers objects.

Each number of the world is one token: arithmetic on digits is too fragile at this size.
"""

from __future__ import annotations

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from bnf_align.lab.world import WORDS

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
MAX_TOKENS = 48
"""Positions of the model: the longest text of the world has 33 tokens, its end token included."""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per word of the world; decoding joins the words with spaces, so it gives the text back."""
    vocabulary = {word: number for number, word in enumerate((PAD, EOS, UNKNOWN, *WORDS))}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNKNOWN,
        model_max_length=MAX_TOKENS,
        clean_up_tokenization_spaces=False,  # it would turn "gets 8 ?" into "gets 8?", which is another token
    )


def build_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """The untrained model, float32, on the CPU; the same seed gives the same weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=MAX_TOKENS,
        initializer_range=0.05,  # the 0.02 of large models learns too slowly at this width
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LlamaForCausalLM(config)
