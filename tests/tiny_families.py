"""Tiny checkpoints of the families that people align: each of its real class, built from its real config."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, PreTrainedModel

from bnf_align.models import auto_class

SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,  # far from uniform, so that a mistake shows
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
MOST_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
EXPERTS = {"num_experts": 4, **MOST_EXPERTS}
ROUTED = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, **MOST_EXPERTS}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
LATENT = {
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "head_dim": 4,
    "num_key_value_heads": 4,
}
DELTA = {
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
MAMBA = {
    "layers_block_type": ["linear_attention", "moe", "full_attention", "mlp"],
    "ssm_state_size": 8,
    "mamba_num_heads": 4,
    "mamba_head_dim": 8,
    "n_groups": 2,
    "chunk_size": 8,
    "moe_shared_expert_intermediate_size": 16,
}
PER_LAYER = {"hidden_size_per_layer_input": 4, "layer_types": ["sliding_attention", "full_attention"]}
THREE_AXES = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}}
TOWER = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "image_size": 32,
    "patch_size": 8,
}
QWEN_TOWER = {
    "depth": 1,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_heads": 2,
    "patch_size": 8,
    "out_hidden_size": 32,
}
LLAMA_TOWER = {**TOWER, "vision_output_dim": 16, "projector_input_dim": 16, "projector_output_dim": 16}


@dataclass(frozen=True, eq=False)
class Family:
    """A family of models and what its tiny checkpoint is built from."""

    name: str
    kind: str
    """Its `model_type`."""
    text: dict[str, Any] = field(default_factory=dict)
    """Of the text model, beside `SIZES`."""
    template: str | None = None
    """TRL's file of its chat template; None: TRL ships none."""
    tower: dict[str, Any] | None = None
    """Of the vision tower; None: it reads text alone."""
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    """Modules that get an adapter."""


FAMILIES = [
    Family("Llama 3.x", "llama", {}, "llama3_2"),
    Family("Llama 4, text", "llama4_text", {**LOCAL, "intermediate_size_mlp": 48}),
    Family("Llama 4", "llama4", {**LOCAL, "intermediate_size_mlp": 48}, None, LLAMA_TOWER),
    Family("Qwen2.5", "qwen2", {}, "qwen2_5"),
    Family("Qwen2.5-VL", "qwen2_5_vl", THREE_AXES, "qwen2_5_vl", {**QWEN_TOWER, "fullatt_block_indexes": [0]}),
    Family("Qwen3", "qwen3", {}, "qwen3"),
    Family("Qwen3-MoE", "qwen3_moe", EXPERTS, "qwen3"),
    Family("Qwen3-VL", "qwen3_vl", THREE_AXES, "qwen3_vl", {**QWEN_TOWER, "deepstack_visual_indexes": [0]}),
    Family("Qwen3.5, text", "qwen3_5_text", DELTA, "qwen3_5_think"),
    Family("Qwen3.5", "qwen3_5", DELTA, "qwen3_5_think", QWEN_TOWER),
    Family("Qwen3.5-MoE", "qwen3_5_moe", {**DELTA, **EXPERTS}, "qwen3_5_think", QWEN_TOWER),
    Family("Gemma 2", "gemma2", {}, "gemma"),
    Family("Gemma 3, text", "gemma3_text", {}, "gemma3"),
    Family("Gemma 3", "gemma3", {}, "gemma3", TOWER),
    Family("Gemma 4, text", "gemma4_text", PER_LAYER, "gemma4_v5"),
    Family("Gemma 4", "gemma4", PER_LAYER, "gemma4_v5", TOWER),
    Family("Mistral", "mistral"),
    Family("Ministral", "ministral"),
    Family("Ministral 3, text", "ministral3"),
    Family("Mistral 3, Ministral 3", "mistral3", {"model_type": "ministral3"}, None, TOWER),
    Family("Phi-4", "phi3", targets=("qkv_proj",)),
    Family("OLMo 2", "olmo2"),
    Family("OLMo 3", "olmo3"),
    Family("SmolLM2", "llama", {"tie_word_embeddings": True}),
    Family("SmolLM3", "smollm3"),
    Family("gpt-oss", "gpt_oss", LOCAL, "gptoss"),
    Family("GLM-4.5", "glm4_moe", ROUTED, "glm4moe"),
    Family("DeepSeek-V3", "deepseek_v3", {**ROUTED, **LATENT}, "deepseekv3", targets=("q_b_proj",)),
    Family("Nemotron-H", "nemotron_h", {**MAMBA, **ROUTED}, "nemotron_3_nano"),
    Family("LFM2", "lfm2", {"layer_types": ["conv", "full_attention"]}, "lfm2_v2"),
    Family("Granite", "granite"),
    Family("Granite-MoE", "granitemoe", LOCAL),
]


def tiny_config(family: Family, vocab_size: int, **text: Any) -> Any:
    """The config of a family's tiny checkpoint."""
    own = {**SIZES, **copy.deepcopy(family.text), "vocab_size": vocab_size, **text}
    if "hidden_size_per_layer_input" in own:
        own["vocab_size_per_layer_input"] = vocab_size
    if family.tower is None:
        return AutoConfig.for_model(family.kind, **own)
    more = {"mm_tokens_per_image": 4} if family.kind == "gemma3" else {}
    tower = dict(family.tower)
    if family.kind.startswith("qwen3"):
        tower["num_position_embeddings"] = 16
    if family.kind == "qwen2_5_vl":
        tower["window_size"] = 16
    return AutoConfig.for_model(family.kind, text_config=own, vision_config=tower, **more)


def tiny(family: Family, vocab_size: int, seed: int = 0, **text: Any) -> PreTrainedModel:
    """A family's tiny model, random, and the same for the same seed."""
    torch.manual_seed(seed)
    config = tiny_config(family, vocab_size, **text)
    return auto_class(config).from_config(config).eval()
