"""A micro-batch on fake tensors: the model itself runs forward and backward, with shapes and dtypes but no memory."""

from __future__ import annotations

import copy
import weakref
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal, NamedTuple

import torch
from peft import PeftConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig
from transformers.integrations.moe import ExpertsInterface
from transformers.pytorch_utils import Conv1D

from bnf_align.config import PreferenceConfig
from bnf_align.head.chunked_lm_head import CPU_CHUNK_BYTES, DEVICE_CHUNK_BYTES
from bnf_align.models import auto_class, beyond_text, of_text
from bnf_align.upstream import (
    FakeTensorMode,
    TorchDispatchMode,
    attention_of,
    flops_of,
    gated,
    set_attention,
    set_experts,
    storage_of,
    tree_iter,
)

Passes = Literal["reference", "forward", "training"]
"""Without gradients; forward as in training, to see what is kept; forward and backward."""


HEAP_BYTES = 32 * 2**20
"""glibc gives blocks from this size on back to the system when they are freed, and keeps smaller ones."""


class Trace(NamedTuple):
    """What a micro-batch takes beside weights and optimizer states."""

    activations: int
    """Bytes that are kept when its forward pass reaches the head."""
    passed: int
    """Bytes that it has formed and let go of by then, in blocks that the C library keeps."""
    peaks: dict[int, int]
    """Bytes of gradients that have been formed -> the most bytes of everything else meanwhile."""
    flops: int
    """Of the forward pass below the head, without attention kernels, which tell nobody."""

    def peak(self, share: int = 1) -> int:
        """Bytes at the peak, where each device keeps one in `share` of the gradients' bytes."""
        return max(most + gradients // share for gradients, most in self.peaks.items())


@dataclass(frozen=True)
class Hardware:
    """What a run is planned for; None is not known."""

    devices: int = 1
    memory: int | None = None
    """Bytes of one device."""
    tflops: float | None = None
    """Peak of one device in bfloat16, in TFLOP/s."""
    sharded: bool | None = None
    """FSDP2; None leaves the choice to the plan."""
    accelerator: bool = False
    """Not a CPU: the head's tiles are larger, and it multiplies in bfloat16."""
    bf16: bool = False
    """bfloat16 autocast."""
    process: int = 0
    """Bytes that the process holds besides the model and its training, where they share one memory (CPU)."""


@dataclass(eq=False)
class FakeModel:
    """A causal language model of shapes; for the arguments see `make_plan`."""

    model_config: PretrainedConfig
    config: PreferenceConfig
    hardware: Hardware
    dtype: torch.dtype = torch.float32
    peft_config: PeftConfig | None = None
    attention: str | None = None
    quantised_bits: int | None = None

    def __post_init__(self) -> None:
        self.mode = FakeTensorMode()
        self.weights, self.trace = cache(self._weights), cache(self._trace)
        self.model = self.weights(self.dtype)
        self.lm: Any = inner(self.model)
        """The causal language model without its adapter's wrapper."""

    def _weights(self, dtype: torch.dtype) -> Any:
        """The model, adapter included; a `dtype` other than its own is what FSDP2 hands to its layers."""
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model_config = copy.deepcopy(self.model_config)
            model = auto_class(model_config).from_config(model_config, dtype=dtype)
            quantised = {id(layer.weight) for layer in linears(model)} if self.quantised_bits else None
            for name in beyond_text(model):
                model.get_submodule(name).requires_grad_(False)
            if self.peft_config is not None:
                model = get_peft_model(model, of_text(model, self.peft_config))
        made: dict[int, Tensor] = {}
        with self.mode:  # meta -> fake tensors of a CPU, which has autocast
            for module in model.modules():
                weights = list(module.named_parameters(recurse=False, remove_duplicate=False))
                for name, values in [*weights, *module.named_buffers(recurse=False, remove_duplicate=False)]:
                    if id(values) not in made:
                        # peft widens whatever of a quantised model is not quantised.
                        wide = quantised is not None and values.is_floating_point() and id(values) not in quantised
                        like = torch.empty(values.shape, dtype=torch.float32 if wide else values.dtype)
                        weight = isinstance(values, nn.Parameter)
                        made[id(values)] = nn.Parameter(like, values.requires_grad) if weight else like
                    setattr(module, name, made[id(values)])
        chosen = self.attention or attention_of(model)
        set_attention(model, "planned_flash" if "flash" in chosen or "flex" in chosen else chosen)
        set_experts(model, "planned")
        return model.train()

    def _trace(
        self, rows: int, length: int, scored: float, checkpointing: bool, sharded: bool, passes: Passes
    ) -> Trace:
        """Run `rows` responses of `length` tokens, a share `scored` of which the head sees."""
        training = passes != "reference"
        model = self.weights(torch.bfloat16 if sharded and self.hardware.bf16 else self.dtype)
        lm, live = inner(model), _Live(model, self.dtype.itemsize)
        if checkpointing and training:
            lm.activation_checkpointing_enable({"use_reentrant": False})
            lm.enable_input_require_grads()
        reached: list[tuple[int, int, int]] = []
        handles = [lm.base_model.register_forward_hook(lambda *_: reached.append(live.state))]
        handles += [p.register_post_accumulate_grad_hook(live.formed) for p in model.parameters() if p.requires_grad]
        try:
            with self.mode, live:
                autocast = torch.autocast("cpu", torch.bfloat16, enabled=self.hardware.bf16)
                with autocast, torch.set_grad_enabled(training):
                    ids = torch.zeros(rows, length, dtype=torch.long)
                    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
                    scored_rows = torch.zeros(max(1, int(rows * length * scored)), dtype=torch.long)
                    if self.config.head == "logits":
                        logits = lm(**inputs).logits.flatten(0, 1).index_select(0, scored_rows)
                        loss = logits.float().log_softmax(-1).gather(1, scored_rows[:, None]).sum()
                    else:
                        hidden = lm.base_model(**inputs).last_hidden_state
                        hidden = hidden.flatten(0, 1).index_select(0, scored_rows)
                        loss = _FusedHead.apply(hidden, lm.get_output_embeddings().weight, self, training)
                reached.append(live.state)  # for models that pass their `base_model` over
                if passes == "training":
                    loss.backward()
        finally:
            for handle in handles:
                handle.remove()
            model.zero_grad()
            if checkpointing and training:
                lm.activation_checkpointing_disable()
                lm.disable_input_require_grads()
        kept, passed, flops = reached[0]
        return Trace(kept, passed, dict(live.peaks), flops)

    def head_bytes(self, tokens: int) -> dict[str, int]:
        """Bytes that the fused head takes for `tokens` scored tokens: buffers of logits, gradients in float32."""
        weight, text = self.lm.get_output_embeddings().weight, self.lm.config.get_text_config()
        softcap = getattr(text, "final_logit_softcapping", None)
        accelerator, bf16 = self.hardware.accelerator, self.hardware.bf16
        tile = min(DEVICE_CHUNK_BYTES if accelerator else CPU_CHUNK_BYTES, 4 * tokens * len(weight))
        tile = tile * (2 if softcap else 1) + (tile // 2 if accelerator and bf16 else 0)
        return {
            "tile": tile,
            "dX": 4 * tokens * weight.shape[1],
            "dW": 4 * weight.numel() if weight.requires_grad else 0,
        }


def inner(model: Any) -> Any:
    """The causal language model in `model`, which may be an adapter around it."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def linears(lm: Any) -> list[Any]:
    """The linear layers of the model without its output head; adapters' own and GPT-2's Conv1D among them."""
    head = lm.get_output_embeddings()
    return [layer for layer in lm.modules() if layer is not head and isinstance(layer, (nn.Linear, Conv1D))]


class _Live(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, the model's own left out."""

    def __init__(self, model: nn.Module, itemsize: int) -> None:
        super().__init__()
        own = [*model.parameters(), *model.buffers()]
        self.known: dict[int, int] = dict.fromkeys(map(storage_of, own), 0)
        self.rest = self.passed = self.gradients = self.flops = 0
        self.peaks = {0: 0}
        self.itemsize = itemsize  # FSDP2 keeps gradients as wide as the weights it shards

    @property
    def state(self) -> tuple[int, int, int]:
        """Bytes kept, bytes passed, and flops until now."""
        return self.rest, self.passed, self.flops

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if (count := flops_of(func)) is not None:
            self.flops += count(*args, **(kwargs or {}), out_val=output)
        for values in tree_iter(output):
            if isinstance(values, Tensor) and (name := storage_of(values)) not in self.known:
                storage = values.untyped_storage()
                weakref.finalize(storage, self._freed, name)
                self.known[name] = storage.nbytes()
                self.rest += storage.nbytes()
        self.peaks[self.gradients] = max(self.peaks.get(self.gradients, 0), self.rest)
        return output

    def formed(self, parameter: Tensor) -> None:
        """The gradient of `parameter` is there, to stay until the optimizer's step."""
        assert parameter.grad is not None
        self.rest -= self.known.pop(storage_of(parameter.grad), 0)
        self.known[storage_of(parameter.grad)] = 0
        self.gradients += parameter.numel() * self.itemsize
        self.peaks[self.gradients] = self.rest

    def _freed(self, storage: int) -> None:
        size = self.known.pop(storage, 0)
        self.rest -= size
        self.passed += size if size < HEAP_BYTES else 0


class _FusedHead(torch.autograd.Function):
    """Takes what the fused head takes, whose own code asks which device it is on."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, model: FakeModel, training: bool) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.model, wanted = model, training and model.config.loss.separable
        ctx.gradients = _sweep(model, hidden, weight, wanted)
        return hidden.new_zeros((), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        hidden, weight = ctx.saved_tensors
        gradients, ctx.gradients = ctx.gradients or _sweep(ctx.model, hidden, weight, True), []
        of_hidden, of_weight = (None if g is None else g.to(hidden.dtype) for g in gradients)
        return of_hidden, None if of_weight is None else of_weight.to(weight.dtype), None, None


def _sweep(model: FakeModel, hidden: Tensor, weight: Tensor, wanted: bool) -> list[Tensor | None]:
    new = partial(hidden.new_empty, dtype=torch.float32)
    # Rounded for autocast; a CPU multiplies in float32.
    half = model.hardware.bf16 and model.hardware.accelerator
    operand = weight.to(torch.bfloat16 if half else torch.float32)
    tile = new(model.head_bytes(len(hidden))["tile"] // 4)
    gradients = [new(hidden.shape), new(weight.shape) if weight.requires_grad else None] if wanted else []
    del operand, tile
    return gradients


class _FlashAttention(torch.autograd.Function):
    """Keeps what flash attention keeps: queries, keys, values, the output and one sum per query."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows, heads, length, _ = q.shape
        output = q.new_empty(rows, length, heads, v.shape[-1])
        ctx.save_for_backward(q, k, v, output, q.new_empty(rows, heads, length, dtype=torch.float32))
        return output

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        return tuple(torch.empty_like(values) for values in ctx.saved_tensors[:3])


def _flash(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any) -> tuple[Tensor, None]:
    # Under autocast rotary positions widen queries and keys; the kernels take all three in the narrowest dtype.
    dtype = min((q.dtype, k.dtype, v.dtype), key=lambda dtype: dtype.itemsize)
    return _FlashAttention.apply(q.to(dtype), k.to(dtype), v.to(dtype)), None


def _experts(self: Any, hidden: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """A mixture of experts whose router sends as many tokens to each: shapes cannot say where a token goes."""
    tokens, top_k = top_k_index.shape
    each = -(-tokens * top_k // self.num_experts)
    chosen = hidden[hidden.new_zeros(self.num_experts * each, dtype=torch.long)].unflatten(0, (-1, each))

    def multiplied(values: Tensor, weight: Tensor) -> Tensor:
        return torch.bmm(values, weight if self.is_transposed else weight.transpose(1, 2))

    up = multiplied(chosen, self.gate_up_proj if self.has_gate else self.up_proj)
    output = multiplied(gated(self, up), self.down_proj)
    output = output.flatten(0, 1)[: tokens * top_k] * top_k_weights.flatten()[:, None]
    return output.view(tokens, top_k, -1).sum(1).to(hidden.dtype)


AttentionInterface.register("planned_flash", _flash)
ExpertsInterface.register("planned", _experts)
