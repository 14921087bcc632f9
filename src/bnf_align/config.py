"""What a run can be told. Everything that `transformers.TrainingArguments` takes, and what preferences add to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from transformers import TrainingArguments

from bnf_align.losses import LOSSES, LossSpec
from bnf_align.records import BadInput

LEARNING_RATE = 1e-6
LORA_LEARNING_RATE = 1e-5


def _option(default: Any, text: str, **kwargs: Any) -> Any:
    """A field with the help text that `train --help-all` prints."""
    return field(default=default, metadata={"help": text}, **kwargs)


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
        if isinstance(self.loss_kwargs, str):
            self.loss_kwargs = json.loads(self.loss_kwargs)
        if self.loss_type not in LOSSES:
            raise BadInput(f"loss_type {self.loss_type!r} is not known. Choose one of {', '.join(LOSSES)}.")
        if self.head not in ("fused", "logits"):
            raise BadInput(f"--head {self.head} is not known. Choose fused or logits.")
        try:
            self.loss.check(self.loss_type, self.hyperparameters)
        except ValueError as error:
            raise BadInput(str(error)) from None
        if self.bf16 is None:
            self.bf16 = not self.use_cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        self._refuse_unsupported()
        super().__post_init__()

    @property
    def loss(self) -> LossSpec:
        """The objective's entry in `LOSSES`."""
        return LOSSES[self.loss_type]

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Every hyper-parameter of the objective: its signature's default, or what `loss_kwargs` says."""
        given = self.loss_kwargs if isinstance(self.loss_kwargs, Mapping) else {}
        return {**self.loss.hyperparameters, **given}

    def _refuse_unsupported(self) -> None:
        refused = {
            "fp16": (self.fp16, "gradients of small weights underflow in float16; use bf16 or float32"),
            "fp16_full_eval": (self.fp16_full_eval, "log-probabilities need at least bfloat16"),
            "deepspeed": (self.deepspeed, "use DDP, or FSDP2 through `accelerate launch`"),
            "auto_find_batch_size": (
                self.auto_find_batch_size,
                "it changes the step; lower --max_tokens_per_micro_batch instead, which changes no result",
            ),
            "label_smoothing_factor": (self.label_smoothing_factor, "no preference loss defines it"),
            "parallelism_config": (self.parallelism_config, "context, sequence and tensor parallelism are not tested"),
            "neftune_noise_alpha": (self.neftune_noise_alpha, "noise would separate the policy from the reference"),
            "train_sampling_strategy": (
                self.train_sampling_strategy != "random",
                "steps are drawn at random and sorted by length inside",
            ),
        }
        for name, (is_set, reason) in refused.items():
            if is_set:
                raise BadInput(f"{name} is not supported: {reason}.")

    def fold_batch_size(self) -> None:
        """Make the optimizer step one batch: what TRL's keys multiply to, or `batch_size`; accumulation becomes 1.

        Idempotent, so one config can serve two trainers.

        Raises:
            BadInput: If `batch_size` cannot be dealt evenly to the devices.
        """
        if self.batch_size is None:
            self.batch_size = self.per_device_train_batch_size * self.gradient_accumulation_steps * self.world_size
        if self.batch_size % self.world_size:
            raise BadInput(f"batch_size {self.batch_size} is not a multiple of the {self.world_size} devices.")
        self.per_device_train_batch_size = self.batch_size // self.world_size
        self.gradient_accumulation_steps = 1


@dataclass
class BNFConfig(PreferenceConfig):
    """Settings of a `BNFTrainer`. BNF has no loss hyper-parameter: there is none to set here."""

    loss_type: str = field(default="bnf", init=False)
    loss_kwargs: dict[str, Any] | str | None = field(default=None, init=False)
