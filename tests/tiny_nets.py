"""Tiny random models of the architectures that the recipes train, built in code."""

import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
)

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    # Far from uniform, so that probabilities differ from token to token and a mistake shows.
    "initializer_range": 0.3,
}


def tiny_llama(vocab_size: int = 300, seed: int = 0, **config) -> PreTrainedModel:
    return _build(LlamaForCausalLM, LlamaConfig(vocab_size=vocab_size, **{**SIZES, **config}), seed)


def tiny_mistral(vocab_size: int = 300, seed: int = 0, **config) -> PreTrainedModel:
    return _build(MistralForCausalLM, MistralConfig(vocab_size=vocab_size, **{**SIZES, **config}), seed)


def tiny_gemma2(vocab_size: int = 300, seed: int = 0, **config) -> PreTrainedModel:
    sizes = {**SIZES, "head_dim": 8, "final_logit_softcapping": 2.0, "attn_implementation": "eager", **config}
    return _build(Gemma2ForCausalLM, Gemma2Config(vocab_size=vocab_size, **sizes), seed)


def perturbed(model: PreTrainedModel, scale: float = 0.05, seed: int = 7) -> PreTrainedModel:
    """`model` a little away from itself, so that policy and reference differ."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += scale * torch.randn(parameter.shape, generator=generator) * parameter.std()
    return model


def _build(model_class, config, seed: int) -> PreTrainedModel:
    torch.manual_seed(seed)
    return model_class(config).eval()
