"""What a forward pass keeps for its backward pass, by running the model on the meta device: shapes, no memory."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode
from transformers import AttentionInterface, AutoModelForCausalLM, PretrainedConfig
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.modeling_layers import GradientCheckpointingLayer


@dataclass(frozen=True)
class Activations:
    """Bytes that one response of a given length keeps; a micro-batch of B such responses keeps B times as much."""

    layers: tuple[int, ...]
    """What is first kept in each decoder layer."""
    inputs: tuple[int, ...]
    """The hidden states that enter each layer: what gradient checkpointing keeps."""
    outside: int
    """Kept before and after the layers."""
    widest: int
    """The widest single tensor, as a rule inside the MLP: the unit of what a backward pass needs for a moment."""
    casts: int
    """Weights rounded for autocast; they do not grow with the responses."""

    def forward(self, rows: float, checkpointing: bool) -> int:
        """Kept when the forward pass of `rows` responses reaches the head."""
        return int(rows * (self.outside + sum(self.inputs if checkpointing else self.layers)))

    def backward(self, rows: float, checkpointing: bool) -> int:
        """At most kept during the backward pass: checkpointing has one layer's activations again at a time."""
        again = max(self.layers, default=0) if checkpointing else 0
        return self.forward(rows, checkpointing) + int(rows * again)

    def passing(self, rows: float) -> int:
        """Gradients on their way through a layer, or without gradients what a layer holds at once."""
        return int(rows * 2 * (self.widest + max(self.inputs, default=0)))


def meta_model(
    config: PretrainedConfig, dtype: torch.dtype, peft_config: PeftConfig | None = None, attention: str | None = None
) -> nn.Module:
    """The model of `config`, under a fresh adapter if asked for, with shapes and dtypes but without weights."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype)
        if peft_config is not None:
            model = get_peft_model(model, copy.deepcopy(peft_config))
    chosen = attention or model.config._attn_implementation or "sdpa"
    kind = "eager" if chosen == "eager" else "flash" if "flash" in chosen or "flex" in chosen else "sdpa"
    model.config._attn_implementation = f"planned_{kind}"
    return model.train()


def trace(model: nn.Module, length: int, autocast: torch.dtype | None) -> Activations:
    """Run one response of `length` tokens through the layers of `model` (of `meta_model`) and see what is kept."""
    lm: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    weights = {parameter.untyped_storage()._cdata for parameter in lm.parameters()}
    kept: dict[int, int] = {}
    alive: list[Any] = []  # a storage that is let go of could hand its number to the next one
    marks: list[tuple[int, int, int]] = []
    casting = _Autocast(autocast)

    def keep(values: Tensor) -> Tensor:
        storage = values.untyped_storage()
        if storage._cdata not in weights and storage._cdata not in casting.copies:
            kept[storage._cdata] = storage.nbytes()
            alive.append(storage)
        return values

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden = args[0] if args else kwargs["hidden_states"]
        marks.append((sum(kept.values()), 0, hidden.numel() * hidden.element_size()))

    def after(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        marks[-1] = (marks[-1][0], sum(kept.values()), marks[-1][2])

    blocks = [module for module in lm.modules() if isinstance(module, GradientCheckpointingLayer)]
    handles = [block.register_forward_pre_hook(before, with_kwargs=True) for block in blocks]
    handles += [block.register_forward_hook(after) for block in blocks]
    try:
        with saved_tensors_hooks(keep, _unchanged), casting:
            lm.base_model(input_ids=torch.zeros(1, length, dtype=torch.long, device="meta"), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    layers = tuple(end - start for start, end, _ in marks)
    return Activations(
        layers=layers,
        inputs=tuple(size for _, _, size in marks),
        outside=sum(kept.values()) - sum(layers),
        widest=max(kept.values(), default=0),
        casts=sum(copy.nbytes() for copy in casting.copies.values()),
    )


def _unchanged(values: Tensor) -> Tensor:
    return values


class _Autocast(TorchFunctionMode):
    """Autocast for the meta device, which has none: matmuls round their operands to `dtype`."""

    rounded = (nn.functional.linear, torch.matmul, torch.bmm, torch.addmm, Tensor.matmul, Tensor.__matmul__)

    def __init__(self, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.dtype = dtype
        self.copies: dict[int, Any] = {}
        """Storages of rounded weights."""

    def __torch_function__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.dtype is not None and func in self.rounded:
            args = tuple(self.operand(value) for value in args)
        return func(*args, **(kwargs or {}))

    def operand(self, value: Any) -> Any:
        """`value` as a matmul under autocast takes it."""
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        cast = value.to(self.dtype)
        if isinstance(value, nn.Parameter):
            self.copies[cast.untyped_storage()._cdata] = cast.untyped_storage()
        return cast


class _Attention(torch.autograd.Function):
    """Keeps what the memory-efficient attention kernels keep: their operands, the output and one sum per query."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, masked: bool) -> Tensor:
        rows, heads, length, _ = q.shape
        output = q.new_empty(rows, length, heads, v.shape[-1])
        sums = q.new_empty(rows, heads, length, dtype=torch.float32)
        # PyTorch turns a boolean mask into numbers of the operands' dtype in every layer anew.
        mask = q.new_empty(rows, 1, length, length if masked else 0)
        ctx.save_for_backward(q, k, v, output, sums, mask)
        return output

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise NotImplementedError("Planning runs no backward pass.")


def _kernel(masked: bool) -> Callable[..., tuple[Tensor, None]]:
    def attention(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
        if masked:  # then transformers repeats keys and values for the queries that share them
            groups = q.shape[1] // k.shape[1]
            k, v = repeat_kv(k, groups), repeat_kv(v, groups)
        return _Attention.apply(*_like_linear(q, k, v), masked), None

    return attention


def _eager(
    module: nn.Module, q: Tensor, k: Tensor, v: Tensor, *_: Any, softcap: float | None = None, **__: Any
) -> tuple[Tensor, None]:
    groups = q.shape[1] // k.shape[1]
    k, v = repeat_kv(k, groups), repeat_kv(v, groups)
    scores = torch.matmul(q, k.transpose(2, 3))
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)
    return torch.matmul(weights, v).transpose(1, 2).contiguous(), None


def _like_linear(*values: Tensor) -> tuple[Tensor, ...]:
    """Queries, keys and values in the narrowest of their dtypes: under autocast rotary positions widen two of them."""
    dtype = min((value.dtype for value in values), key=lambda dtype: dtype.itemsize)
    return tuple(value.to(dtype) for value in values)


AttentionInterface.register("planned_sdpa", _kernel(masked=True))
AttentionInterface.register("planned_flash", _kernel(masked=False))
AttentionInterface.register("planned_eager", _eager)
