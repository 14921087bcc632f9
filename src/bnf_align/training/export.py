"""After training: an adapter merged into its base, or a model in another dtype, checked before and after."""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from bnf_align.models import load, load_config, save_processor, teach_end_of_turn
from bnf_align.records import BadInput
from bnf_align.reference.step0 import tolerance_of

PROBES = (
    "The quick brown fox jumps over the lazy dog, and nobody in the village was surprised to see it.",
    "Question: a train leaves at 9:40 and arrives at 11:05. How long does it take?\nAnswer: 1 hour and 25 minutes.",
    "def mean(values):\n    return sum(values) / len(values)\n\nprint(mean([3, 4, 5]))  # 4.0\n",
    "Thank you for writing. I am sorry that your order is late; it will be with you on Thursday.",
)
"""Texts on which log-probabilities are compared."""


@dataclass(frozen=True)
class Exported:
    """What `export` wrote, and how far log-probabilities moved on the way, in nats per token."""

    out: Path
    base: str
    adapter: str | None
    dtype: str
    tokens: int
    """Of the probes."""
    merging: float
    """Mean |log-ratio| of the merged model against the adapter on its base, both in float32."""
    rounding: float
    """Mean |log-ratio| of the saved files, loaded again, against the merged model in float32."""


def export(
    name_or_path: str,
    out: str | Path,
    *,
    dtype: str = "auto",
    quantization_config: Any = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Exported:
    """Write a model without an adapter into the folder `out`, with its tokenizer; it appears whole or not at all.

    The base is loaded in float32 (4 bytes a weight), the adapter is merged there, and the result is rounded to
    `dtype` once. A base that an adapter was trained on in 4 or 8 bits is quantised the same way and dequantised first:
    those are the weights that the adapter learnt to correct.

    Args:
        name_or_path: An adapter or a model: a folder, a hub name, or a GGUF file.
        out: A folder that is not there, or is empty.
        dtype: Of the weights that are saved: float32, bfloat16, float16; "auto" is the one the base is stored in.
        quantization_config: How the base was quantised in training.
        revision: Branch, tag or commit of `name_or_path` on the hub.
        trust_remote_code: Run code that comes with the model.

    Raises:
        BadInput: If `out` has files, anything cannot be loaded, or log-probabilities move by more than rounding
            explains.
    """
    out = Path(out).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"{out} is there already and is not an empty folder. Give another --out.")
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    model, tokenizer, source = load(name_or_path, quantization_config=quantization_config, **options)
    if dtype == "auto":
        dtype = str(load_config(source.base, source.revision, trust_remote_code).dtype or "float32")
    stored = getattr(torch, dtype.removeprefix("torch."))
    expected = probe_logps(model, tokenizer)
    if getattr(model, "is_quantized", False):
        base = (model.unload() if isinstance(model, PeftModel) else model).dequantize()
        model = load(name_or_path, base=base.float(), **options).model
    if isinstance(model, PeftModel):
        model = model.merge_and_unload(safe_merge=True)
    merged = probe_logps(model, tokenizer)
    merging = _moved(expected, merged, f"merging {source.adapter} into {source.base}")
    for parameter in model.parameters():
        parameter.data = parameter.data.to(stored).float()
    rounded = probe_logps(model, tokenizer)
    teach_end_of_turn(model, tokenizer)
    temporary = out.with_name(f".{out.name}.{uuid.uuid4().hex}.tmp")
    try:
        model.to(stored).save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        save_processor(model, temporary)
        saved = probe_logps(load(str(temporary), trust_remote_code=trust_remote_code).model, tokenizer)
        _moved(rounded, saved, "saving")
        if out.exists():
            out.rmdir()
        os.replace(temporary, out)
    except OSError as error:
        raise BadInput(f"{out} cannot be written: {error.strerror or error}. Choose another place.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    rounding = float((saved - merged).abs().mean())
    name = str(stored).removeprefix("torch.")
    return Exported(out, source.base, source.adapter, name, len(merged), merging, rounding)


@torch.no_grad()
def probe_logps(model: Any, tokenizer: PreTrainedTokenizerBase) -> Tensor:
    """(tokens,) log-probabilities of the probes' tokens, one text at a time."""
    found = []
    for text in PROBES:
        ids = torch.tensor([tokenizer(text)["input_ids"]], device=model.device)
        logps = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        found.append(logps.gather(1, ids[0, 1:, None])[:, 0].cpu())
    return torch.cat(found)


def _moved(before: Tensor, after: Tensor, doing: str) -> float:
    """Mean |log-ratio|, nats per token; BadInput where rounding in float32 does not explain it."""
    moved, tolerance = float((after - before).abs().mean()), tolerance_of(torch.float32)
    if not moved <= tolerance:
        raise BadInput(
            f"Log-probabilities of {len(before)} tokens moved by {moved:.2g} nats on average in {doing}, and rounding "
            f"explains {tolerance:.2g}. Nothing was written. Serve the adapter on its base, and report the model."
        )
    return moved
