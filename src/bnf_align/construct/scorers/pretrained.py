"""A scorer's weights from a folder or the hub: safetensors, complete, and somebody else's code only when asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bnf_align.records import BadInput

COMMIT = re.compile(r"[0-9a-f]{40}")


def load_scorer_model(
    model_class: Any,
    name_or_path: str,
    *,
    dtype: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    **kwargs: Any,
) -> tuple[Any, PreTrainedTokenizerBase]:
    """A model in evaluation mode and its tokenizer.

    Args:
        model_class: What to load it as.
        name_or_path: A folder or a hub name.
        dtype: Of the weights; "auto" takes bfloat16 on an accelerator and float32 on a CPU.
        revision: A commit of the hub name.
        trust_remote_code: Run the model's own code, of that commit.
        kwargs: For `from_pretrained`.

    Raises:
        BadInput: If it cannot be loaded, weights are missing, or foreign code would be run from a moving branch.
    """
    if trust_remote_code and not Path(name_or_path).exists() and not COMMIT.fullmatch(revision or ""):
        raise BadInput(
            f"--trust-remote-code runs code that comes with {name_or_path}, and a branch may hold other code "
            "tomorrow. Read it, and pin what you have read with --revision and the 40 digits of its commit."
        )
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    device = accelerator.type if accelerator else "cpu"
    kwargs |= {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, **_tokenizer_arguments(kwargs))
        model, info = model_class.from_pretrained(
            name_or_path,
            dtype={"auto": "float32" if device == "cpu" else "bfloat16"}.get(dtype, dtype),
            device_map=device,
            use_safetensors=True,  # any other kind of weights is a program that loading runs
            output_loading_info=True,
            **kwargs,
        )
    except (OSError, ValueError) as error:
        raise BadInput(f"--model {name_or_path} cannot be loaded as a scorer: {error}") from error
    except RuntimeError as error:  # transformers' word for it, after a report of the weights and their shapes
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise BadInput(
            f"--model {name_or_path} has weights of other shapes than this scorer's, as the report above lists them: "
            "a reward model has one label. Is it one?"
        ) from error
    if info["missing_keys"]:
        missing = sorted(info["missing_keys"])
        raise BadInput(
            f"--model {name_or_path} lacks {len(missing):,} weights of a {model_class.__name__}, the first "
            f"{missing[0]}: they would be drawn at random, and so would the scores. Is it a reward model?"
        )
    return model.eval(), tokenizer


def _tokenizer_arguments(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: kwargs[name] for name in ("revision", "trust_remote_code")}
