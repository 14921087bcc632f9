"""A model and its tokenizer from a folder or the hub, as generating needs them; an adapter brings its base along."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import cached_file

from bnf_align.records import BadInput


def load_pretrained(
    name_or_path: str,
    adapter: str | None,
    dtype: str,
    device: str | None,
    trust_remote_code: bool,
    **kwargs: Any,
) -> tuple[Any, PreTrainedTokenizerBase]:
    """A model in evaluation mode and its tokenizer; for the arguments see `LocalEngine.load`.

    Raises:
        BadInput: If there is no such model, or the hub that has it cannot be reached.
    """
    if device is None:
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        device = accelerator.type if accelerator else "cpu"
    if dtype == "auto":
        dtype = "float32" if device == "cpu" else "bfloat16"
    kwargs["trust_remote_code"] = trust_remote_code
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(name_or_path, dtype=dtype, device_map=device, **kwargs)
    except OSError as error:
        raise BadInput(f"The model {name_or_path} cannot be loaded: {str(error).splitlines()[0]}") from error
    # Where `name_or_path` is an adapter the library has put it on its base, and this is the base's name.
    sources = [name_or_path, model.name_or_path]
    if adapter is not None:
        sources.insert(0, adapter)
        model = PeftModel.from_pretrained(model, adapter)
    return model.eval(), _tokenizer(sources, trust_remote_code)


def _tokenizer(sources: Sequence[str], trust_remote_code: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of the first source that has one; an adapter may be saved with it or without."""
    for source in sources[:-1]:
        with suppress(OSError):
            cached_file(source, "tokenizer_config.json")
            return AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
    return AutoTokenizer.from_pretrained(sources[-1], trust_remote_code=trust_remote_code)
