"""Give a causal language model the argument `head_call`: its forward pass then answers without logits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from types import MethodType
from typing import Any, Literal

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Partial
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from bnf_align.head.call import HeadCall
from bnf_align.head.chunked_lm_head import Head
from bnf_align.records import BadInput
from bnf_align.upstream import attention_of, set_attention

Implementation = Literal["fused", "logits"]

WITHOUT_KERNELS = "flash_by_positions"


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
        BadInput: If the fused head does not know this model's body or head, or gives other log-probabilities than its
            logits; if these are not finite.
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
        # A class whose body has another name than transformers thinks is its own base model and gives logits.
        if (hidden := getattr(self.base_model(*args, **kwargs), "last_hidden_state", None)) is None:
            raise BadInput(
                f"The fused head finds no body in {type(self).__name__} that gives hidden states: transformers knows "
                f"it as {self.base_model_prefix!r}. Take the model's own logits, --head logits."
            )
        return head_call.through_head(hidden, head_of(self))

    lm.forward = MethodType(forward, lm)
    if check and implementation == "fused" and can_be_tried(lm):
        _compare_with_logits(lm)


def head_of(lm: PreTrainedModel) -> Head:
    """The head of `lm` as it stands now; BadInput if it is more than a weight and a bias: adapted, or quantised."""
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
    # Names and meanings of the factors as in TRL's `add_fused_lm_head`.
    factors = [getattr(config, name, None) for name in ("logit_scale", "output_multiplier", "lm_head_multiplier")]
    if (scaling := getattr(config, "logits_scaling", None)) is not None:  # HyperCLOVA X alone multiplies by it
        factors.append(scaling if config.model_type == "hyperclovax" else 1 / scaling)
    scale = next((factor for factor in factors if factor is not None), None)
    return Head(weight, bias, getattr(config, "final_logit_softcapping", None), scale)


def _whole(weights: Tensor | None) -> Tensor | None:
    """`weights` unsharded. Where FSDP2 holds the head as a unit of its own they are a DTensor inside forward."""
    if not isinstance(weights, DTensor):
        return weights
    # Each rank has its own tokens, so gradients are to be averaged; without this each would keep a slice of its own.
    return weights.full_tensor(grad_placements=[Partial("avg")] * weights.device_mesh.ndim)


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
    expected = call.through_logits(logits)
    if not expected.isfinite().all():
        raise BadInput(f"{type(lm).__name__}'s log-probabilities of eight tokens are not finite. {_not_finite(lm)}")
    difference = float((fused - expected).abs().max())
    # Logits of a half-precision model are rounded to its dtype, the fused head's are not. Some models set those of
    # padding to -inf.
    largest = logits[logits.isfinite()].abs().max()
    tolerance = float((2 * torch.finfo(logits.dtype).eps + 1e-5) * (1 + largest))
    if not difference <= tolerance:
        raise BadInput(
            f"The fused head's log-probabilities differ from those of {type(lm).__name__}'s own logits by up to "
            f"{difference:.2g} nats on eight tokens (rounding explains {tolerance:.2g}): this model treats its hidden "
            "states or logits in a way that the head does not know, and would be trained on other probabilities than "
            "it generates with. Take the model's own logits, --head logits."
        )


def _not_finite(lm: PreTrainedModel) -> str:
    """Why a model's log-probabilities are not finite, and what mends it."""
    spoiled = [name for name, weight in lm.named_parameters() if not weight.isfinite().all()]
    if spoiled:
        return (
            f"{len(spoiled)} of its {len(list(lm.parameters()))} parameters hold NaN or infinite values, {spoiled[0]} "
            "first: the files are damaged, or a training run left them so. Nothing can be trained from them. Load the "
            "model that the run started from, or its last checkpoint from before its loss was NaN."
        )
    return f"Its weights are: its numbers leave the range of {lm.dtype}. Load it with --dtype bfloat16 or float32."


# ----------------------------------------------------- trial runs before training, wherever the weights of a model lie


def can_be_tried(model: nn.Module) -> bool:
    """Whether a process can run `model` on its own: the weights are here (not meta) and whole (not sharded)."""
    return not any(weight.is_meta or isinstance(weight, DTensor) for weight in model.parameters())


@contextmanager
def without_flash_kernels(lm: Any) -> Iterator[None]:
    """`lm`, and if its attention is a flash one, with PyTorch's own instead, borders of responses found as there.

    The kernels take half precision on an accelerator, while the weights may still be float32 and on the CPU. What a
    trial asks (does the fused head give the model's log-probabilities? do packed responses see each other?) needs
    their semantics alone.
    """
    attention = attention_of(lm)
    if "flash" in attention:
        set_attention(lm, WITHOUT_KERNELS)
    try:
        yield
    finally:
        if "flash" in attention:
            set_attention(lm, attention)


def _by_positions(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    position_ids: Tensor | None = None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention that knows of packed responses from `position_ids` alone: a layer without them mixes all."""
    length = query.shape[2]
    mask = torch.ones(1, length, length, dtype=torch.bool, device=query.device).tril()
    if position_ids is not None:
        response = (position_ids == 0).cumsum(-1)
        mask = mask & (response[:, :, None] == response[:, None])
    return sdpa_attention_forward(module, query, key, value, mask[:, None], scaling=scaling)


AttentionInterface.register(WITHOUT_KERNELS, _by_positions)
