"""The model and its tokenizer as training needs them, and what is refused by name."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import PeftConfig, PeftModel, get_peft_model, prepare_model_for_kbit_training
from peft.tuners.tuners_utils import BaseTunerLayer
from torch.distributed.fsdp import FSDPModule
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from bnf_align.config import PreferenceConfig
from bnf_align.records import BadInput

logger = logging.getLogger(__name__)


def load_model(path: str, **kwargs: Any) -> PreTrainedModel | PeftModel:
    """The causal language model at `path`; where `path` holds an adapter, its base with the adapter, to be continued.

    Args:
        path: A folder or a hub name.
        kwargs: For `from_pretrained`: `dtype` (default float32), `revision`, `attn_implementation`, ...

    Raises:
        BadInput: If there is no such model.
    """
    kwargs.setdefault("dtype", torch.float32)
    if (Path(path) / "trainer_state.json").exists():
        logger.warning(
            f"{path} is a checkpoint of a run: its weights become the reference. To go on with that run instead, give "
            "the model that it started from and --resume_from_checkpoint."
        )
    try:
        if (Path(path) / "adapter_config.json").exists():
            base = PeftConfig.from_pretrained(path).base_model_name_or_path
            model = AutoModelForCausalLM.from_pretrained(base, **kwargs)
            return PeftModel.from_pretrained(model, path, is_trainable=True)
        return AutoModelForCausalLM.from_pretrained(path, **kwargs)
    except OSError as error:  # no such folder, no such hub name, or no network
        raise BadInput(
            f"--model_name_or_path {path} cannot be loaded: {str(error).splitlines()[0][:300]} Is it a folder with a "
            "config.json, or a name on the hub that you may read?"
        ) from error


def configured_tokenizer(
    source: str | PreTrainedTokenizerBase, chat_template_path: str | None = None, eos_token: str | None = None
) -> PreTrainedTokenizerBase:
    """A tokenizer with the chat template and end token asked for, and with a padding token.

    Args:
        source: The tokenizer, or the folder or hub name of one.
        chat_template_path: See `read_chat_template`.
        eos_token: A token of the vocabulary.

    Raises:
        BadInput: If it is no text tokenizer, or what is asked for is not there.
    """
    tokenizer = _tokenizer_at(source) if isinstance(source, str) else source
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise BadInput(
            f"processing_class is a {type(tokenizer).__name__}: vision and audio are not supported, text is."
        )
    if chat_template_path:
        tokenizer.chat_template = read_chat_template(chat_template_path)
    if eos_token:
        if tokenizer.convert_tokens_to_ids(eos_token) in (None, tokenizer.unk_token_id):
            raise BadInput(f"--eos_token {eos_token!r} is not a token of this tokenizer.")
        tokenizer.eos_token = eos_token
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _tokenizer_at(path: str, flag: str = "") -> PreTrainedTokenizerBase:
    if not path:
        raise BadInput("The model was made in Python and has no path to find its tokenizer by: pass processing_class.")
    try:
        return AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:  # not there, no network, or no tokenizer in the folder
        why = str(error).splitlines()[0][:300]
        raise BadInput(f"{flag}{path} is no model with a tokenizer, neither a folder nor on the hub: {why}") from error


def read_chat_template(path: str) -> str:
    """The template in a .jinja file, or the one of the tokenizer in a folder or on the hub."""
    if Path(path).is_file():
        return Path(path).read_text(encoding="utf-8")
    template = _tokenizer_at(path, "--chat_template_path ").chat_template
    if template is None:
        raise BadInput(f"--chat_template_path {path}: the tokenizer there has no chat template.")
    return str(template)


def refuse_unsupported(model: PreTrainedModel, config: PreferenceConfig, *data: Any) -> None:
    """Stop, by name, before what would train something else than it says.

    Raises:
        BadInput: For vision models, float16 weights, router losses, streaming data and several devices in one process.
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


def disable_dropout(model: PreTrainedModel) -> None:
    """Set every dropout to 0: modules, and the rates in the config that attention reads as a function argument."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]
    for name, value in vars(model.config).items():
        if isinstance(value, float) and name.endswith(("dropout", "pdrop", "dropout_prob")):
            setattr(model.config, name, 0.0)


def prepare_quantised(model: PreTrainedModel, config: PreferenceConfig) -> PreTrainedModel:
    """Make a quantised base trainable under adapters (QLoRA).

    It raises norms to float32, so it comes before the reference pass.
    """
    if getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False):
        checkpointing = bool(config.gradient_checkpointing)
        return prepare_model_for_kbit_training(model, use_gradient_checkpointing=checkpointing)
    return model


@contextmanager
def evaluation_mode(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode inside, and afterwards what it was before; quantised layers stay in training mode.

    Outside training mode they take other kernels: policy and reference would differ from the first step on, and on a
    CPU with AVX-512 bitsandbytes repacks the weights for a kernel that has no gradient, for good.
    """
    training = model.training
    model.eval()
    for module in model.modules():
        if type(module).__module__.startswith("bitsandbytes"):
            module.train()
    try:
        yield
    finally:
        model.train(training)
        # FSDP2 gathers norm and head together and lets go of them when the head's forward ends, which never ran, or in
        # the backward pass, which does not come.
        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()


def add_adapter(model: Any, peft_config: PeftConfig, config: PreferenceConfig) -> PeftModel:
    """`model` under a fresh adapter.

    Raises:
        BadInput: For prompt learning, which moves positions, and for adapters on the output head.
    """
    if peft_config.is_prompt_learning:
        raise BadInput(f"{peft_config.peft_type} is not supported: virtual tokens move every position. Use LoRA.")
    adapted = get_peft_model(model, peft_config)
    if isinstance(model.get_output_embeddings(), BaseTunerLayer):
        raise BadInput("An adapter on the output head is not supported. Leave lm_head out of --lora_target_modules.")
    if config.gradient_checkpointing:
        # Else nothing below the first adapter asks for a gradient, and checkpointing would compute none.
        model.enable_input_require_grads()
    return adapted
