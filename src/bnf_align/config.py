"""What a run can be told. Everything that `transformers.TrainingArguments` takes, and what preferences add to it."""

from __future__ import annotations

import datetime
import json
import math
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import TrainingArguments
from transformers.trainer_pt_utils import AcceleratorConfig

from bnf_align.losses import LOSSES, LossSpec
from bnf_align.records import BadInput, counted

LEARNING_RATE = 1e-6
LORA_LEARNING_RATE = 1e-5


def _option(default: Any, text: str, **kwargs: Any) -> Any:
    """A field with the help text that `train --help-all` prints."""
    return field(default=default, metadata={"help": text}, **kwargs)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which no key may stand twice: the first would be lost in silence."""
    if twice := sorted(name for name, count in Counter(name for name, _ in pairs).items() if count > 1):
        raise BadInput(f"{twice[0]!r} stands twice in one JSON object: keep one of them.")
    return dict(pairs)


def _json_object(name: str, value: Any) -> dict[str, Any] | None:
    """A dict, from itself or from the JSON text that a flag brings."""
    wrong = "is not a JSON object"
    if isinstance(value, str):
        try:
            value = json.loads(value, object_pairs_hook=_once)
        except json.JSONDecodeError as error:
            wrong = f"is not JSON ({error})"
    if not isinstance(value, dict | None):
        raise BadInput(f"--{name} {value!r} {wrong}. Write --{name} '{{\"name\": value}}'.")
    return value


LEAST, MOST = math.nextafter(0, 1), sys.float_info.max
"""The smallest number above 0 and the largest finite one; NaN lies between no two."""

NUMBERS: dict[str, tuple[float, float, str]] = {
    **dict.fromkeys(("learning_rate", "weight_decay"), (0, MOST, "a finite number from 0 up is needed")),
    "max_grad_norm": (0, MOST, "a finite number from 0 up is needed; 0 switches clipping off"),
    "num_train_epochs": (LEAST, 10**6, "a number above 0, and of a million at most, is needed"),
    **dict.fromkeys(("adam_beta1", "adam_beta2"), (0, math.nextafter(1, 0), "a number from 0 to below 1 is needed")),
    "adam_epsilon": (0, MOST, "a finite number from 0 up is needed"),
    "warmup_steps": (0, MOST, "a share below 1 or a number of steps is needed"),
    "max_length": (2, MOST, "at least 2 tokens are needed, one of the prompt and one of the answer"),
    "max_tokens_per_micro_batch": (1, MOST, "at least 1 token is needed"),
    **dict.fromkeys(
        ("batch_size", "per_device_train_batch_size", "gradient_accumulation_steps"), (1, MOST, "at least 1 is needed")
    ),
    "eval_fraction": (0, 0.999999, "a share from 0 up to, not including, 1 is needed"),
    **dict.fromkeys(
        ("logging_steps", "save_steps", "eval_steps"), (LEAST, MOST, "a share below 1 or a number of steps is needed")
    ),
    "dataset_num_proc": (1, 1024, "a number from 1 to 1,024 is needed"),
    "show_tokens": (0, MOST, "a number of responses is needed"),
    "router_aux_loss_coef": (
        0,
        0,
        "0 is needed. Mixtures of experts are trained without their router loss: it is a product of means over one "
        "forward pass, and would make a step depend on its micro-batches",
    ),
    **dict.fromkeys(("seed", "data_seed"), (0, 2**32 - 1, "a whole number from 0 to 4,294,967,295 is needed")),
}
"""Setting -> the least and the greatest value that make sense, and what to say of another."""

_OFF: tuple[Any, ...] = (None, False, 0, "", "no", [])
_EVALUATION = (
    *("label_names", "prediction_loss_only", "include_for_metrics", "batch_eval_metrics"),
    *("eval_use_gather_object", "eval_accumulation_steps"),
)
_OWN_EVALUATION = "evaluation here keeps sums of losses and log-probabilities, no predictions"

REFUSED: dict[str, tuple[tuple[Any, ...] | Callable[[Any], bool], str]] = {
    "fp16": (_OFF, "gradients of small weights underflow in float16; use bf16 or float32"),
    "fp16_full_eval": (_OFF, "log-probabilities need at least bfloat16"),
    "bf16_full_eval": (_OFF, "evaluation runs in the dtype of training, or the reference would not fit; use --bf16"),
    "deepspeed": (_OFF, "use DDP, or FSDP2 through `accelerate launch`"),
    "parallelism_config": (_OFF, "context, sequence and tensor parallelism are not tested"),
    "auto_find_batch_size": (
        _OFF,
        "it changes the step; lower --max_tokens_per_micro_batch instead, which changes no result",
    ),
    "per_device_eval_batch_size": ((8,), "evaluation cuts by --max_tokens_per_micro_batch, which changes no result"),
    "label_smoothing_factor": (
        _OFF,
        "it smooths the labels of a cross-entropy; label_smoothing of loss_kwargs is DPO's",
    ),
    "neftune_noise_alpha": (_OFF, "noise would separate the policy from the reference"),
    "train_sampling_strategy": (("random",), "steps are drawn at random and sorted by length inside"),
    "length_column_name": (("length",), "lengths are counted from the tokens"),
    "average_tokens_across_devices": ((True,), "a step's loss is always the mean over its responses on all devices"),
    **dict.fromkeys(
        ("use_liger_kernel", "liger_kernel_config"),
        (_OFF, "it replaces the forward pass after the reference was computed with another one"),
    ),
    "torch_compile": (_OFF, "the fused head cannot be traced, and reference and policy would use other kernels"),
    **dict.fromkeys(("torch_compile_backend", "torch_compile_mode"), (_OFF, "the fused head cannot be traced")),
    "optim": (
        lambda value: not ("layerwise" in str(value) or "lomo" in str(value).lower()),
        "it updates weights during every backward pass, so a step of several micro-batches is not one step. Choose "
        "adamw_torch_fused, or galore_adamw or apollo_adamw without _layerwise",
    ),
    "accelerator_config": (
        lambda value: _only_sync_each_batch(value),
        "only gradient_accumulation_kwargs.sync_each_batch and use_configured_state are read. Steps come from "
        "--batch_size and micro-batches from --max_tokens_per_micro_batch; num_steps would bring accumulation back",
    ),
    "fsdp": (_OFF, "shard through `accelerate launch --config_file recipes/accelerate/fsdp2.yaml`"),
    "remove_unused_columns": ((False,), "the columns are known"),
    "eval_do_concat_batches": ((True,), _OWN_EVALUATION),
    **dict.fromkeys(_EVALUATION, (_OFF, _OWN_EVALUATION)),
    "do_predict": (_OFF, "there is nothing to predict; `bnf-align generate` answers prompts"),
    "hub_token": (_OFF, "it would be saved with every checkpoint; set the environment variable HF_TOKEN instead"),
}
"""Setting of `TrainingArguments` -> the values that are supported, and why others are not. All others are honoured."""


def _only_sync_each_batch(value: Any) -> bool:
    """Whether an accelerator_config (a dict or an object) sets nothing that is not read here."""
    given = asdict(value) if isinstance(value, AcceleratorConfig) else dict(value or {})
    accumulation = given.get("gradient_accumulation_kwargs") or {}
    known = asdict(AcceleratorConfig())
    read = ("gradient_accumulation_kwargs", "use_configured_state")
    return accumulation.get("num_steps") in (None, 1) and all(
        name in read or setting == known.get(name, setting) for name, setting in given.items()
    )


@dataclass
class PreferenceConfig(TrainingArguments):
    """Settings of a `PreferenceTrainer`: `TrainingArguments` with defaults for alignment, and the fields below.

    Raises:
        BadInput: For an unknown loss, a hyper-parameter that the loss does not take, or a setting that preference
            training does not support (fp16, DeepSpeed, automatic batch sizes, ...), each named.
    """

    loss_type: str = _option("bnf", f"The objective: {', '.join(LOSSES)}.")
    loss_kwargs: dict[str, Any] | str | None = _option(
        None, "Hyper-parameters of the objective as JSON, such as '{\"beta\": 0.1}'. bnf has none."
    )
    batch_size: int | None = _option(
        None,
        "Pairs or single responses in one optimizer step, over all devices. Default: per_device_train_batch_size x "
        "gradient_accumulation_steps x devices.",
    )
    max_tokens_per_micro_batch: int = _option(
        8192,
        "Memory: padded tokens in one forward pass on one device. Changes no result; lower it when out of memory.",
    )
    packing: bool = _option(
        False,
        "Put the responses of a micro-batch one after another in one row instead of padding them. For attention of "
        "variable length: --attn_implementation flash_attention_2.",
    )
    head: Literal["fused", "logits"] = _option(
        "fused", "fused: no logits are kept. logits: through the model's own logits, the fallback and the oracle."
    )
    max_length: int | None = _option(4096, "Tokens of prompt and completion together; longer completions are cut.")
    ref_cache_dir: str | None = _option(
        None, "Folder of the reference cache, shared between runs. Default: ~/.cache/bnf-align/reference."
    )
    disable_dropout: bool = _option(True, "Switch dropout off, so that the policy starts out equal to the reference.")
    check_step_0: bool = _option(
        True, "Before the first optimizer step, stop if the policy is not the reference (mean log-ratio, BNF weight)."
    )
    stop_on_collapse: bool = _option(
        False, "Stop at the first log line whose health is red; the checkpoints before it stay."
    )
    router_aux_loss_coef: float | None = _option(
        None, "0 alone is taken: mixtures of experts are trained without their router loss."
    )
    log_eq4_value: bool = _option(False, "Evaluation also logs bnf/eq4_loss, the value of the paper's Eq. 4.")

    map: list[str] | None = _option(None, "Columns under other names: prompt=question chosen=good rejected=bad.")
    label_map: list[str] | None = _option(None, "What labels mean: good=up bad=down unsure=drop.")
    role_map: list[str] | None = _option(None, "Roles under other names: bot=assistant human=user.")
    conflicting_labels: str = _option(
        "drop",
        "One answer labelled up and down: leave it out (drop), keep all (keep), or go by the majority (majority).",
    )
    merge_system_prompt: bool = _option(
        False, "Put a system message in front of the first user turn, for templates without a system role."
    )
    score_thoughts: bool = _option(
        True,
        "Score reasoning that an answer brings (reasoning_content, <think>) with it; false: what follows it alone.",
    )
    template_date: str | None = _option(
        None,
        "The date that chat templates write as today's, 2026-11-30 for example. Default: that of the checkpoint to "
        "resume from, else today's.",
    )
    eval_fraction: float = _option(0.0, "Share of the prompts to hold out, with all their rows, and evaluate on.")
    chat_template_path: str | None = _option(None, "A chat template: a .jinja file, or a folder or hub name with one.")
    eos_token: str | None = _option(None, "The token that ends a plain-text completion.")
    dataset_num_proc: int | None = _option(
        None, "Processes that tokenise. Default: one, and more where rows are many. Changes no result."
    )
    show_tokens: int = _option(0, "Print this many responses token by token, with what is scored, before training.")

    # Defaults that differ from TrainingArguments.
    output_dir: str | None = _option("", "Folder that receives the model, its checkpoints and run.json.")
    learning_rate: float | None = _option(  # type: ignore[assignment]
        None, f"Peak learning rate. Default: {LEARNING_RATE} for all weights, {LORA_LEARNING_RATE} for LoRA."
    )
    num_train_epochs: float = _option(1.0, "Passes over the data.")
    lr_scheduler_type: str = _option("cosine", "Learning-rate schedule.")
    warmup_steps: float = _option(0.1, "Warm-up: a share of all steps if below 1, else a number of steps.")
    bf16: bool | None = _option(  # type: ignore[assignment]
        None, "bfloat16 autocast. Default: on where the device has it, off on CPU."
    )
    logging_steps: float = _option(10, "Optimizer steps between two log lines; a share of all steps if below 1.")
    logging_nan_inf_filter: bool = _option(False, "Hide NaN losses from the log. Off: they must be seen.")
    remove_unused_columns: bool = _option(False, "Not used: the columns are known.")
    ddp_find_unused_parameters: bool | None = _option(False, "Not needed: every parameter takes part in every step.")

    def __post_init__(self) -> None:
        self.loss_kwargs = _json_object("loss_kwargs", self.loss_kwargs)
        if self.loss_type not in LOSSES:
            raise BadInput(f"loss_type {self.loss_type!r} is not known. Choose one of {', '.join(LOSSES)}.")
        if self.head not in ("fused", "logits"):
            raise BadInput(f"--head {self.head} is not known. Choose fused or logits.")
        try:
            self.loss.check(self.loss_type, self.hyperparameters)
        except ValueError as error:
            raise BadInput(str(error)) from None
        try:
            datetime.date.fromisoformat(self.template_date or "2026-11-30")
        except ValueError:
            raise BadInput(f"--template_date {self.template_date}: a date is needed, such as 2026-11-30.") from None
        if self.bf16 is None:
            self.bf16 = not self.use_cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        for name, (low, high, what) in NUMBERS.items():
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and low <= value <= high):
                raise BadInput(f"--{name} {value}: {what}.")
        if self.max_steps != -1 and self.max_steps < 1:
            raise BadInput(
                f"--max_steps {self.max_steps}: at least 1 step is needed, or -1 for all of --num_train_epochs."
            )
        for name in ("lr_scheduler_kwargs", "gradient_checkpointing_kwargs", "fsdp_config"):
            if str(getattr(self, name)).startswith("{"):
                setattr(self, name, _json_object(name, getattr(self, name)))
        own = self.accelerator_config
        if not isinstance(own, AcceleratorConfig):
            text = Path(own).read_text(encoding="utf-8") if isinstance(own, str) and Path(own).is_file() else own
            self.accelerator_config = _json_object("accelerator_config", text)
        for name, (supported, reason) in REFUSED.items():
            value = getattr(self, name)
            if not (supported(value) if callable(supported) else value in supported):
                shown = name if name == "hub_token" else f"{name} {value}"
                raise BadInput(f"{shown} is not supported: {reason}.")
        super().__post_init__()

    @property
    def loss(self) -> LossSpec:
        """The objective's entry in `LOSSES`."""
        return LOSSES[self.loss_type]

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Every hyper-parameter of the objective: its signature's default, or what `loss_kwargs` says."""
        return {**self.loss.hyperparameters, **(self.loss_kwargs or {})}  # type: ignore[dict-item]

    @property
    def order_seed(self) -> int:
        """Seed of the order of the rows."""
        return self.seed if self.data_seed is None else self.data_seed

    def step_size(self, devices: int) -> int:
        """Units in one optimizer step over all devices: `batch_size`, or what TRL's keys multiply to.

        Raises:
            BadInput: If both are given and differ.
        """
        per_device, accumulated = self.per_device_train_batch_size, self.gradient_accumulation_steps
        product = per_device * accumulated * devices
        if self.batch_size not in (None, product) and (per_device, accumulated) != (8, 1):
            raise BadInput(
                f"--batch_size {self.batch_size} beside --per_device_train_batch_size {per_device} x "
                f"--gradient_accumulation_steps {accumulated} x {counted(devices, 'device')} = {product}: "
                "they are two ways to say how large a step is. Give one of them."
            )
        return product if self.batch_size is None else self.batch_size

    def fold_batch_size(self) -> None:
        """Make the optimizer step one batch: what TRL's keys multiply to, or `batch_size`; accumulation becomes 1.

        Idempotent, so one config can serve two trainers.

        Raises:
            BadInput: If the two differ, or `batch_size` cannot be dealt evenly to the devices.
        """
        self.batch_size = self.step_size(self.world_size)
        if self.batch_size % self.world_size:
            raise BadInput(f"batch_size {self.batch_size} is not a multiple of the {self.world_size} devices.")
        self.per_device_train_batch_size = self.batch_size // self.world_size
        self.gradient_accumulation_steps = 1


@dataclass
class BNFConfig(PreferenceConfig):
    """Settings of a `BNFTrainer`. BNF has no loss hyper-parameter: there is none to set here."""

    loss_type: str = field(default="bnf", init=False)
    loss_kwargs: dict[str, Any] | str | None = field(default=None, init=False)
