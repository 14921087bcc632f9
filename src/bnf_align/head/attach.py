"""Give a causal language model the argument `head_call`: its forward pass then answers without logits."""

from __future__ import annotations

from functools import wraps
from types import MethodType
from typing import Any, Literal

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial
from transformers import PretrainedConfig, PreTrainedModel

from bnf_align.head.call import Head, HeadCall
from bnf_align.head.trial import can_be_tried, without_flash_kernels
from bnf_align.records import BadInput

Implementation = Literal["fused", "logits"]


def attach(
    model: PreTrainedModel | PeftModel, implementation: Implementation = "fused", *, check: bool = True
) -> None:
    """Let `model(..., head_call=call)` answer a `HeadCall`; without one the forward pass is what it was.

    The inner causal language model gets an instance attribute `forward`, so generation, saving, adapters put around
    it later, DDP and FSDP2 go on as before. Attaching again replaces the implementation.

    Args:
        model: A causal language model, or an adapter around one.
        implementation: "fused" goes from hidden states to the answer; "logits" through the model's own logits: the
            oracle, and the fallback for heads that are adapted, quantised or unknown.
        check: Compare both on eight tokens. Left out by itself where weights are sharded or not there yet (meta).

    Raises:
        BadInput: If the fused head does not know this model's head, or gives other log-probabilities than its logits.
    """
    lm: Any = model.get_base_model() if isinstance(model, PeftModel) else model

    # The class is asked at each call: FSDP2 swaps it, and a bound method would stay with this model in a deep copy.
    @wraps(type(lm).forward)
    def forward(self: Any, *args: Any, head_call: HeadCall | None = None, **kwargs: Any) -> Any:
        if head_call is None:
            return type(self).forward(self, *args, **kwargs)
        kwargs = {name: value for name, value in kwargs.items() if value is not None} | {"use_cache": False}
        if implementation == "logits":
            return head_call.through_logits(type(self).forward(self, *args, **kwargs).logits)
        return head_call.through_head(self.base_model(*args, **kwargs).last_hidden_state, head_of(self))

    lm.forward = MethodType(forward, lm)
    if check and implementation == "fused" and can_be_tried(lm):
        _compare_with_logits(lm)


def head_of(lm: PreTrainedModel) -> Head:
    """The head of `lm` as it stands now.

    Raises:
        BadInput: If it is more than a weight and a bias: adapted, or quantised.
    """
    layer = lm.get_output_embeddings()
    if any(isinstance(module, BaseTunerLayer) for module in layer.modules()):
        raise BadInput(
            "The output head has an adapter, which the fused head would pass over. Leave lm_head out of "
            "--lora_target_modules, or take the model's own logits, --head logits."
        )
    weight, bias = _whole(layer.weight), _whole(getattr(layer, "bias", None))
    assert weight is not None
    if weight.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64) or weight.dim() != 2:
        raise BadInput(
            f"The output head is quantised ({weight.dtype}, shape {tuple(weight.shape)}); the fused head takes plain "
            "weights. Leave lm_head out of the quantisation, or take the model's own logits, --head logits."
        )
    config = lm.config.get_text_config()
    return Head(weight, bias, getattr(config, "final_logit_softcapping", None), _logit_scale(config))


def _whole(weights: Tensor | None) -> Tensor | None:
    """`weights` unsharded. Where FSDP2 holds the head as a unit of its own they are a DTensor inside forward."""
    if not isinstance(weights, DTensor):
        return weights
    # Each rank has its own tokens, so gradients are to be averaged; without this each would keep a slice of its own.
    return weights.full_tensor(grad_placements=[Partial("avg")] * weights.device_mesh.ndim)


def _logit_scale(config: PretrainedConfig) -> float | None:
    """The factor of the logits; names and meanings as in TRL's `add_fused_lm_head`."""
    factors = [getattr(config, name, None) for name in ("logit_scale", "output_multiplier", "lm_head_multiplier")]
    if (scaling := getattr(config, "logits_scaling", None)) is not None:  # HyperCLOVA X alone multiplies by it
        factors.append(scaling if config.model_type == "hyperclovax" else 1 / scaling)
    return next((factor for factor in factors if factor is not None), None)


@torch.no_grad()
def _compare_with_logits(lm: PreTrainedModel) -> None:
    """Raise BadInput where the fused head and the model's own logits disagree on tokens 0 to 7."""
    tokens = torch.arange(8, device=lm.device)[None] % lm.config.get_text_config().vocab_size
    call = HeadCall({"input_ids": tokens, "completion_mask": torch.arange(8, device=lm.device)[None] > 0})
    training = lm.training
    lm.eval()
    try:
        with without_flash_kernels(lm):
            fused = lm(input_ids=tokens, head_call=call)
            logits = lm(input_ids=tokens, use_cache=False).logits
    finally:
        lm.train(training)
    difference = float((fused - call.through_logits(logits)).abs().max())
    # Logits of a half-precision model are rounded to its dtype, the fused head's are not.
    tolerance = float((2 * torch.finfo(logits.dtype).eps + 1e-5) * (1 + logits.abs().max()))
    if not difference <= tolerance:
        raise BadInput(
            f"The fused head's log-probabilities differ from those of {type(lm).__name__}'s own logits by up to "
            f"{difference:.2g} nats on eight tokens (rounding explains {tolerance:.2g}): this model treats its hidden "
            "states or logits in a way that the head does not know, and would be trained on other probabilities than "
            "it generates with. Take the model's own logits, --head logits."
        )
