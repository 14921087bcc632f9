"""Packing: what must hold before responses may stand one after another in a row."""

from __future__ import annotations

import logging
from typing import Any

import torch
from accelerate import PartialState
from peft import PeftModel

from bnf_align.data.responses import MicroBatch, packed
from bnf_align.head import HeadCall, ask, can_be_tried, without_flash_kernels
from bnf_align.models import evaluation_mode
from bnf_align.records import BadInput
from bnf_align.upstream import attention_of

logger = logging.getLogger(__name__)

VARIABLE_LENGTH = ("flash", "flex")
"""Attention implementations that compute nothing between two responses; the others compute it and mask it out."""


def check_packing(model: Any) -> None:
    """Stop where packed responses would see each other, and say where packing costs more than it saves.

    transformers finds the borders of packed responses in their positions, for the layers that look for them. Recurrent
    layers, convolutions, positions that a model counts itself and the masks of some models do not. So two responses
    are tried, packed and in rows of their own; `model` has a head attached.

    Raises:
        BadInput: If their log-probabilities differ by more than rounding explains.
    """
    lm: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    attention = attention_of(lm)
    if can_be_tried(model):
        tokens = torch.arange(24, device=lm.device).view(2, 12) % lm.config.get_text_config().vocab_size
        rows: MicroBatch = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        rows["completion_mask"] = (torch.arange(12, device=lm.device) > 0).expand(2, -1)
        with torch.no_grad(), evaluation_mode(model), without_flash_kernels(lm):
            apart, together = (ask(model, batch, HeadCall(batch)) for batch in (rows, packed(rows)))
        difference = float((apart - together).abs().max())
        rounding = torch.bfloat16 if getattr(lm, "is_quantized", False) else lm.dtype
        tolerance = float((2 * torch.finfo(rounding).eps + 1e-5) * (1 + apart.abs().max()))
        if not difference <= tolerance:
            raise BadInput(
                f"--packing: in {type(lm).__name__} with {attention} attention packed responses see each other. The "
                f"log-probabilities of two short ones differ by up to {difference:.2g} nats from those in rows of "
                f"their own (rounding explains {tolerance:.2g}), so an answer would be trained behind those to other "
                "prompts. Leave --packing out."
            )
    if not any(name in str(attention) for name in VARIABLE_LENGTH) and PartialState().is_main_process:
        logger.warning(
            f"packing: {attention} attention computes what lies between two responses and masks it out, so its cost "
            "grows with the square of --max_tokens_per_micro_batch. Packing saves time with --attn_implementation "
            "flash_attention_2, where that is installed."
        )
