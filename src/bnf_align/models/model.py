"""A model as training needs it, and what is refused by name."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import datasets
import torch
from peft import PeftConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from bnf_align.config import PreferenceConfig
from bnf_align.data.template import end_token_id
from bnf_align.records import BadInput

logger = logging.getLogger(__name__)


def refuse_unsupported(model: PreTrainedModel | PeftModel, config: PreferenceConfig, *data: Any) -> None:
    """Stop, by name, before what would train something else than it says.

    Raises:
        BadInput: For vision models, float16 weights, router losses, frozen adapters, streaming data, and several
            devices in one process.
    """
    model_config = model.config
    if getattr(model_config, "vision_config", None) is not None:
        raise BadInput(f"{type(model).__name__} is a vision model: only text models are supported.")
    if getattr(model_config, "output_router_logits", False):
        raise BadInput(
            "This mixture-of-experts model adds a router loss, which is a mean per forward pass and would depend on "
            "how a step is cut. Set output_router_logits to false in the model's config."
        )
    if next(model.parameters()).dtype == torch.float16:
        raise BadInput("float16 weights are not supported: gradients underflow. Load them with --dtype bfloat16.")
    if isinstance(model, PeftModel) and not any(parameter.requires_grad for parameter in model.parameters()):
        raise BadInput("The adapter is frozen. Load it with PeftModel.from_pretrained(..., is_trainable=True).")
    if any(isinstance(rows, datasets.IterableDataset) for rows in data):
        raise BadInput("Streaming data sets are not supported: steps are planned from the lengths. Load it whole.")
    if config.n_gpu > 1:
        raise BadInput(
            f"{config.n_gpu} devices in one process are not supported. Run one process per device: "
            "accelerate launch -m bnf_align train ..., or hide the others with CUDA_VISIBLE_DEVICES=0."
        )
    positions = getattr(model_config, "max_position_embeddings", None)
    if positions and config.max_length and config.max_length > positions:
        logger.warning(f"max_length {config.max_length} is above the {positions} positions that the model knows.")


NOISE = ("jitter_noise", "input_jitter_noise", "moe_jitter_eps")
"""What mixtures of experts multiply their inputs with in training: random like a dropout, under other names."""


def disable_dropout(model: torch.nn.Module) -> None:
    """Switch off every dropout of a model and of its adapters: in training mode it then is what it is in evaluation.

    One rule for models and for adapters, fresh or continued: with `disable_dropout` none is left, without it all stay.
    A rate is kept in a dropout module, as a number of the module that passes it to a function (OPT's `dropout`,
    layerdrop), by adapter in a dict (PEFT), or in the configuration, which some modules read in every forward pass.
    """
    for adapter in getattr(model, "peft_config", {}).values():
        for name, rate in vars(adapter).items():
            if "dropout" in name and rate:
                logger.warning(
                    f"{name} {rate} is off like every dropout, for training has to start at its reference. "
                    "--disable_dropout false keeps all of them."
                )
    for module in model.modules():
        own, config = vars(module), vars(module).get("config")
        if isinstance(module, BaseTunerLayer):
            for rates in [rates for name, rates in own.items() if "drop" in name and isinstance(rates, dict)]:
                rates.update(dict.fromkeys(rates, 0.0))
        for place in (own, vars(config) if isinstance(config, PreTrainedConfig) else {}):
            for name, rate in place.items():
                if isinstance(rate, float) and ("drop" in name or name in NOISE):
                    place[name] = 0.0
        if "Dropout" in type(module).__name__ and hasattr(module, "p"):
            module.p = 0.0  # type: ignore[assignment]


def prepare_quantised(model: Any, config: PreferenceConfig) -> Any:
    """Make a quantised base trainable under adapters (QLoRA); one that is on it already stays trainable.

    It raises norms to float32, so it comes before the reference pass.
    """
    if getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False):
        adapter = [p for p in model.parameters() if p.requires_grad] if isinstance(model, PeftModel) else []
        checkpointing = bool(config.gradient_checkpointing)
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
        for parameter in adapter:  # peft freezes all that is there
            parameter.requires_grad_()
    return model


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside, quantised layers in training mode; afterwards every module in the mode it was in.

    Outside training mode they take other kernels: policy and reference would differ from the first step on, and on a
    CPU with AVX-512 bitsandbytes repacks the weights for a kernel that has no gradient, for good.
    """
    modes = [(module, module.training) for module in model.modules()]
    for module, _ in modes:
        module.training = type(module).__module__.startswith("bitsandbytes")
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
            # FSDP2 gathers norm and head together and lets go of them when the head's forward ends, which never ran,
            # or in the backward pass, which does not come.
            if isinstance(module, FSDPModule):
                module.reshard()


def teach_end_of_turn(model: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """Add the token that ends an answer to the model's `generation_config`, before it is saved.

    A base model that learned a chat template still names its old EOS alone, and what serves it would not stop.
    """
    model = model.get_base_model() if isinstance(model, PeftModel) else model
    if (config := getattr(model, "generation_config", None)) is None:
        return
    own = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    ends = [*own, tokenizer.eos_token_id, end_token_id(tokenizer)]
    config.eos_token_id = list(dict.fromkeys(token for token in ends if token is not None)) or None


def add_adapter(model: Any, peft_config: PeftConfig, config: PreferenceConfig) -> PeftModel:
    """`model` under a fresh adapter.

    Raises:
        BadInput: For prompt learning, which moves positions, and for adapters on the output head.
    """
    if peft_config.is_prompt_learning:
        raise BadInput(f"{peft_config.peft_type} is not supported: virtual tokens move every position. Use LoRA.")
    adapted = get_peft_model(model, peft_config)
    if config.disable_dropout:
        disable_dropout(adapted)
    if isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise BadInput("An adapter on the output head is not supported. Leave lm_head out of --lora_target_modules.")
    if config.gradient_checkpointing:
        # Else nothing below the first adapter asks for a gradient, and checkpointing would compute none.
        model.enable_input_require_grads()
    return adapted
