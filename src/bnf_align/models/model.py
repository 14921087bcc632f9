"""A model as training needs it, and what is refused by name."""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import datasets
import torch
from peft import PeftConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from torch.distributed.fsdp import FSDPModule
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from bnf_align.config import PreferenceConfig
from bnf_align.data.template import end_token_id
from bnf_align.records import BadInput

logger = logging.getLogger(__name__)


def refuse_unsupported(model: PreTrainedModel | PeftModel, config: PreferenceConfig, *data: Any) -> None:
    """Stop, by name, before what would train something else than it says.

    Raises:
        BadInput: For float16 weights, frozen adapters, streaming data, and several devices in one process.
    """
    model_config = model.config.get_text_config()
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
    if coefficient := getattr(model_config, "router_aux_loss_coef", None):
        logger.warning(
            f"This mixture of experts is trained without its router loss (router_aux_loss_coef {coefficient} in its "
            "config): nothing but the objective moves the router, and nothing evens out how often experts are chosen."
        )
    positions = getattr(model_config, "max_position_embeddings", None)
    if positions and config.max_length and config.max_length > positions:
        logger.warning(f"max_length {config.max_length} is above the {positions} positions that the model knows.")


def beyond_text(model: Any) -> list[str]:
    """Names of the outermost modules that no text runs through: vision and audio towers, and what leads from them.

    `model` comes without an adapter's wrapper.
    """
    if model.config.get_text_config() is model.config:
        return []
    text = {id(p) for part in (model.get_decoder(), model.get_output_embeddings()) for p in part.parameters()}
    names: list[str] = []
    for name, module in model.named_modules():
        if not name.startswith(tuple(f"{outer}." for outer in names)):
            weights = {id(parameter) for parameter in module.parameters()}
            if weights and not weights & text:
                names.append(name)
    return names


def train_text_alone(model: Any) -> None:
    """Freeze what no text runs through: it stays as it is, and is saved with the rest."""
    lm = model.get_base_model() if isinstance(model, PeftModel) else model
    frozen = [p for name in beyond_text(lm) for p in lm.get_submodule(name).parameters()]
    for parameter in frozen:
        parameter.requires_grad_(False)
    if frozen:
        logger.warning(
            f"Text trains the text model of this {type(lm).__name__}; {', '.join(beyond_text(lm))} "
            f"({sum(p.numel() for p in frozen):,} weights) stay as they are, and are saved with it."
        )


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


def evaluated(model: Any) -> Any:
    """The model in evaluation mode, but for its quantised layers, which stay in training mode.

    Outside it they take other kernels: policy and reference would differ from the first step on, and on a CPU with
    AVX-512 in bfloat16 bitsandbytes repacks the weights, for good, for a kernel that has no gradient, rounds more and
    takes no narrow layer.
    """
    for module in model.modules():
        module.training = type(module).__module__.startswith("bitsandbytes")
    return model


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """`evaluated` inside; afterwards every module in the mode it was in."""
    modes = [(module, module.training) for module in model.modules()]
    evaluated(model)
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


def of_text(model: Any, peft_config: PeftConfig) -> PeftConfig:
    """A copy of `peft_config` that puts nothing on what no text runs through; its own exclusions stay."""
    peft_config = copy.deepcopy(peft_config)
    if others := beyond_text(model):
        own = getattr(peft_config, "exclude_modules", None) or []
        patterns = [own] if isinstance(own, str) else [rf"(.*\.)?{re.escape(name)}" for name in own]
        patterns += [rf"{re.escape(name)}(\..*)?" for name in others]
        peft_config.exclude_modules = "|".join(patterns)  # type: ignore[attr-defined]
    return peft_config


def add_adapter(model: Any, peft_config: PeftConfig, config: PreferenceConfig) -> PeftModel:
    """`model` under a fresh adapter, which leaves out what no text runs through.

    Raises:
        BadInput: For prompt learning, which moves positions, for adapters on the output head, and where the model has
            not what an adapter is put on.
    """
    if peft_config.is_prompt_learning:
        raise BadInput(f"{peft_config.peft_type} is not supported: virtual tokens move every position. Use LoRA.")
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    for setting, flag, kind, known in (
        ("modules_to_save", "--lora_modules_to_save", "module", modules),
        ("target_parameters", "--lora_target_parameters", "parameter", parameters),
    ):
        for name in getattr(peft_config, setting, None) or ():
            if not any(f".{one}".endswith(f".{name}") for one in known):  # PEFT would pass over it
                raise BadInput(f"{flag} {name}: {type(model).__name__} has no {kind} of that name.")
    try:
        adapted = get_peft_model(model, of_text(model, peft_config))
    except ValueError as error:
        linear = {name.rpartition(".")[2] for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
        raise BadInput(
            f"PEFT puts no adapter of this kind on {type(model).__name__}: {str(error)[:300].rstrip('.')}. Name the "
            f"modules that get one, --lora_target_modules q_proj v_proj. It has {', '.join(sorted(linear))}."
        ) from error
    if config.disable_dropout:
        disable_dropout(adapted)
    if isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise BadInput("An adapter on the output head is not supported. Leave lm_head out of --lora_target_modules.")
    if config.gradient_checkpointing:
        # Else nothing below the first adapter asks for a gradient, and checkpointing would compute none.
        model.enable_input_require_grads()
    return adapted
