"""Private interfaces of other libraries that nothing public replaces: all of them, here, each with its reason.

`tests/test_upstream.py` says which of them a new version has changed.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

# A forward and backward pass without memory, for plans; what sees each operation, and the tensors it gives back.
from torch._subclasses.fake_tensor import FakeTensorMode as FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode
from torch.utils._pytree import tree_iter as tree_iter
from torch.utils.flop_counter import flop_registry
from transformers import Trainer


def commit_of(model: Any) -> str | None:
    """The commit of the hub name that a model was loaded from; None for a folder."""
    return getattr(model.config, "_commit_hash", None)


def attention_of(model: Any) -> str:
    """The name of the attention implementation that a model runs: the public setter has no getter."""
    return str(getattr(model.config, "_attn_implementation", None))


def set_attention(model: Any, name: str) -> None:
    """Let a model run the attention implementation `name`: the public setter refuses kernels that are not here."""
    model.config._attn_implementation = name


def experts_of(model: Any) -> str:
    """The name of the implementation of a mixture's experts; "None" for other models and older libraries."""
    return str(getattr(model.config, "_experts_implementation", None))


def set_experts(model: Any, name: str) -> None:
    """Let a mixture of experts run the implementation `name`."""
    model.config._experts_implementation = name


def gated(experts: Any, up: Tensor) -> Tensor:
    """What a mixture's experts make of the first of their two matmuls."""
    return experts._apply_gate(up) if experts.has_gate else experts.act_fn(up)


def flops_of(operation: Any) -> Any:
    """The function that counts an operation's FLOPs, of torch's own table; None for those that do not count."""
    return flop_registry.get(operation._overloadpacket)


def storage_of(values: Tensor) -> int:
    """The identity of a tensor's storage: two views of one memory have the same."""
    return int(values.untyped_storage()._cdata)  # data_ptr() is 0 for all fake ones


class OpenTrainer(Trainer):
    """`transformers.Trainer` with the few private methods that a step of several micro-batches needs."""

    def _run_epoch(self, *arguments: Any, **named: Any) -> None:
        # Resumed at its end within an epoch, as --max_steps leaves it, Trainer would take one more step.
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*arguments, **named)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        # The last place before the optimizer step, and the only one that knows the norm: `on_pre_optimizer_step` does
        # not, and computing it twice reads all gradients twice.
        norm = super()._get_grad_norm(model, grad_norm)
        self.check_gradient(norm)
        return norm

    def _track_num_input_tokens(self, inputs: Any) -> None:
        # Trainer hands over what the loader yields: a step, not a batch.
        for batch in inputs.micro_batches:
            super()._track_num_input_tokens(batch)

    def check_gradient(self, norm: Any) -> None:
        """Called before each optimizer step with the norm of the gradient."""

    def on_device(self, batch: dict[str, Tensor]) -> dict[str, Any]:
        """`batch` on the device of this process: `_prepare_inputs` without a public name."""
        return self._prepare_inputs(batch)

    def syncs_each_micro_batch(self) -> bool:
        """Whether the ranks' gradients meet after every micro-batch, as `sync_each_batch` asks."""
        # Under FSDP2 `no_sync` would keep the whole unsharded gradient on every device between micro-batches.
        return bool(
            self.is_fsdp_enabled or self.accelerator.gradient_state.plugin_kwargs.get("sync_each_batch", False)
        )

    def evaluation_model(self) -> nn.Module | None:
        """The model as evaluation runs it, wrapped and autocast; None where FSDP has not sharded it yet."""
        # Trainer's own way is the first lines of `evaluation_loop`, which we replace: the stock loop repeats rows.
        if self.is_fsdp_enabled and not self.accelerator._models:
            return None
        assert self.model is not None
        model: nn.Module = self._wrap_model(self.model, training=False)
        if not self.accelerator._models and model is self.model:  # before training: autocast and device
            model = self.accelerator.prepare_model(model, evaluation_mode=True)
        return model
