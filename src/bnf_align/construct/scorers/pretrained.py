"""A scorer's weights from a folder or the hub: safetensors, complete, and somebody else's code only when asked for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from bnf_align.models.pretrained import for_inference, reading, refuse_missing
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
    where = {"revision": revision, "trust_remote_code": trust_remote_code}
    with reading(f"--model {name_or_path}, as a scorer,"):
        tokenizer = AutoTokenizer.from_pretrained(name_or_path, **where)
        model, info = model_class.from_pretrained(
            name_or_path,
            use_safetensors=True,  # any other kind of weights is a program that loading runs
            output_loading_info=True,
            **for_inference(dtype),
            **where,
            **kwargs,
        )
    refuse_missing(f"--model {name_or_path}", info["missing_keys"], model_class.__name__)
    return model.eval(), tokenizer
