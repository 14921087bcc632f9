"""The trainer: an optimizer step is one batch, whatever memory makes of it.

`transformers.Trainer` runs the loop (optimizer, schedule, checkpoints, logs, callbacks). What is ours: the rows become
responses with a reference column before the loop starts, a batch is a whole optimizer step, cut by memory alone, and
the loss is one row of `losses.LOSSES`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, set_seed
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from bnf_align.config import LEARNING_RATE, LORA_LEARNING_RATE, BNFConfig, PreferenceConfig
from bnf_align.data.batching import Step, StepDataset, StepLoader, StepSampler
from bnf_align.data.responses import MicroBatch
from bnf_align.head import HeadCall, ask
from bnf_align.losses import CompletionLogps, eq4_value, kto_kl
from bnf_align.models import add_adapter, evaluation_mode, load, teach_end_of_turn
from bnf_align.records import BadInput
from bnf_align.training.checkpoints import latest_checkpoint
from bnf_align.training.health import Tally
from bnf_align.training.prepare import Rows, named_sources, starting_point
from bnf_align.training.progress import LineCallback
from bnf_align.training.record import RunRecord
from bnf_align.training.sharding import check_sharding

EVALUATION_STEP = 1024
"""Units that evaluation cuts at a time; changes no result."""


class PreferenceTrainer(Trainer):
    """Trains a causal language model on preferences with any objective of `losses.LOSSES`.

    Args:
        model: A model, or the folder or hub name of one. Its weights at this moment are the reference.
        args: Settings; `PreferenceConfig()` if None.
        train_dataset: Rows of TRL's two types, plain or conversational: `prompt, chosen, rejected` and
            `prompt, completion, label`, mixed if you like. A `datasets.Dataset` or any list of dicts.
        eval_dataset: The same; or a dict of such, by name.
        processing_class: The tokenizer; the model's own if None.
        peft_config: Train a fresh adapter of this kind; the reference is then the model under it.
        kwargs: `callbacks`, `optimizers`, `optimizer_cls_and_kwargs` of `transformers.Trainer`.

    Raises:
        BadInput: For rows or settings that cannot be trained on; the message says what mends it.
    """

    config_class: type[PreferenceConfig] = PreferenceConfig
    loss_is_scaled_for_ga = True
    args: PreferenceConfig
    train_dataset: StepDataset | None
    eval_dataset: StepDataset | dict[str, StepDataset] | None

    def __init__(
        self,
        model: str | PreTrainedModel | PeftModel,
        args: PreferenceConfig | None = None,
        train_dataset: Rows | None = None,
        eval_dataset: Rows | dict[str, Rows] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: PeftConfig | None = None,
        **kwargs: Any,
    ) -> None:
        args = copy.copy(args) if args is not None else self.config_class(output_dir="outputs")
        policy: Any = model
        if isinstance(model, str):
            policy, processing_class, _ = load(model, tokenizer=processing_class, trainable=True)
        args.fold_batch_size()
        if args.learning_rate is None:
            has_adapter = peft_config is not None or isinstance(policy, PeftModel)
            args.learning_rate = LORA_LEARNING_RATE if has_adapter else LEARNING_RATE
        self.spec, self.loss_kwargs = args.loss, args.hyperparameters
        self.beta = float(self.loss_kwargs.get("beta", 1.0))
        sources = named_sources(train_dataset, eval_dataset)
        policy, tokenizer, self.prepared = starting_point(policy, processing_class, sources, args)
        set_seed(args.seed)  # a fresh adapter starts from random numbers
        if peft_config is not None:
            policy = add_adapter(policy, peft_config, args)
        steps = dict(self.prepared.steps)
        training = steps.pop("train", None)
        evaluation = {name.removeprefix("eval_"): dataset for name, dataset in steps.items()}
        super().__init__(
            model=policy,
            args=args,
            train_dataset=training,
            eval_dataset=evaluation.get("eval", evaluation or None),
            processing_class=tokenizer,
            **kwargs,
        )
        check_sharding(self)
        teach_end_of_turn(self.model, tokenizer)
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(LineCallback)
        self.tally = Tally(self.spec, self.beta, self.args.device)
        self.model_name: str = policy.config._name_or_path or "a model given in Python"
        self.tokens_seen = 0  # by this rank, without padding
        self.record = RunRecord(self)

    # ------------------------------------------------------------------------------------------------ the loop

    def get_train_dataloader(self) -> StepLoader:
        """A loader of whole optimizer steps, this rank's share of each."""
        if self.train_dataset is None:
            raise ValueError("Training needs a train_dataset.")
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        assert self.args.batch_size is not None  # since `fold_batch_size`
        sampler = StepSampler(len(self.train_dataset), self.args.batch_size, seed, self.args.dataloader_drop_last)
        return self._loader(self.train_dataset, sampler)

    def _loader(self, steps: StepDataset, sampler: StepSampler) -> StepLoader:
        return StepLoader(
            steps,
            sampler,
            num_workers=self.args.dataloader_num_workers,
            persistent_workers=self.args.dataloader_persistent_workers,
            pin_memory=False,  # micro-batches go to the device one at a time
        )

    def training_step(self, model: nn.Module, step: Step, num_items_in_batch: Any = None) -> Tensor:  # type: ignore[override]
        """Forward and backward of one optimizer step, micro-batch by micro-batch; returns its mean loss."""
        model.train()
        if callable(start := getattr(self.optimizer, "train", None)):  # schedule-free optimizers
            start()
        kl = self._reference_point(model, [step])
        world, total = self.args.world_size, torch.zeros((), device=self.args.device)
        always_sync = self.accelerator.gradient_state.plugin_kwargs.get("sync_each_batch", False)
        for i, batch in enumerate(step.micro_batches):
            last = i == len(step.micro_batches) - 1
            self.tokens_seen += int(batch["attention_mask"].sum())
            with nullcontext() if last or always_sync else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    loss = self.compute_loss(model, batch, kl=kl, size=step.size)
                self.accelerator.backward(loss * world)  # ranks average their gradients, the step's mean is a sum
            total += loss.detach()
        return self.accelerator.reduce(total)  # on every rank, because Trainer does not always average over them

    def compute_loss(  # type: ignore[override]
        self, model: nn.Module, batch: MicroBatch, kl: Tensor | None = None, size: int = 1, **_: Any
    ) -> Tensor:
        """The sum of the losses of one micro-batch over `size`; its metrics are added to the tally."""
        batch = self._prepare_inputs(batch)
        wants_eq4 = self.args.log_eq4_value and self.spec.reference and not model.training
        call = HeadCall(
            batch,
            lambda completions: self._losses(completions, batch, kl)[0].sum() / size,
            separable=self.spec.separable,
            entropy=wants_eq4,
        )
        loss = ask(model, batch, call)
        self._add_metrics(call.completions, batch, kl)
        if wants_eq4:
            values = eq4_value(call.completions, batch["label"], call.entropy)
            self.tally.add("bnf/eq4_loss", values, call.completions.length > 0)
        return loss

    def _losses(self, completions: CompletionLogps, batch: MicroBatch, kl: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B,) or (P,) losses, and which are present: a rank without a share of the step brings nothing scored.

        The head calls it once per tile, so it must change nothing.
        """
        if self.spec.pairwise:
            sides = completions.halves()
            losses, present = self.spec.function(*sides, **self.loss_kwargs), sides[0].length > 0
        else:
            extra = () if kl is None else (kl,)
            losses = self.spec.function(completions, batch["label"], *extra, **self.loss_kwargs)
            present = completions.length > 0
        return torch.where(present, losses, 0.0), present

    @torch.no_grad()
    def _add_metrics(self, completions: CompletionLogps, batch: MicroBatch, kl: Tensor | None) -> None:
        losses, present = self._losses(completions, batch, kl)
        self.tally.add("loss", losses, present)
        if self.spec.pairwise and self.spec.reference:
            chosen, rejected = completions.halves()
            self.tally.add("rewards/accuracies", (chosen.logratio > rejected.logratio).float(), present)
        self.tally.add_completions(completions, batch["label"], batch["end"])

    @torch.no_grad()
    def _reference_point(self, model: nn.Module, steps: Iterable[Step]) -> Tensor | None:
        """KTO's z0: the mean log-ratio of the mismatched completions of `steps` over all ranks, at least 0."""
        if not self.spec.mismatched:
            return None
        sums = torch.zeros(2, device=self.args.device)
        for step in steps:
            for batch in step.mismatched:
                with self.compute_loss_context_manager():
                    batch = self._prepare_inputs(batch)
                    call = HeadCall(batch)
                    ask(model, batch, call)
                sums += torch.stack([kto_kl(call.completions).sum(), (call.completions.length > 0).sum()])
        total, count = self.accelerator.reduce(sums)
        kl = (total / count).clamp(min=0)
        self.tally.add("kl", kl)
        return kl

    # ---------------------------------------------------------------------------------------------- evaluation

    def get_eval_dataloader(self, eval_dataset: str | StepDataset | None = None) -> StepLoader:  # type: ignore[override]
        """A loader over all evaluation units in file order, this rank's share of them."""
        steps: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        if isinstance(eval_dataset, str) and isinstance(self.eval_dataset, dict):
            steps = self.eval_dataset[eval_dataset]
        if not isinstance(steps, StepDataset):
            raise ValueError("Give eval_dataset when the trainer is made: its reference is the model before training.")
        return self._loader(steps, StepSampler(len(steps), EVALUATION_STEP, seed=None))

    @torch.no_grad()
    def evaluation_loop(  # type: ignore[override]
        self, dataloader: StepLoader, description: str, *_: Any, metric_key_prefix: str = "eval", **__: Any
    ) -> EvalLoopOutput:
        """Mean loss and metrics over all units, each counted once, whatever the micro-batches and ranks."""
        model = self._evaluation_model()
        training_tally, self.tally = self.tally, Tally(self.spec, self.beta, self.args.device)
        with evaluation_mode(model):
            kl = self._reference_point(model, dataloader)
            for step in dataloader:
                for batch in step.micro_batches:
                    with self.compute_loss_context_manager():
                        self.compute_loss(model, batch, kl=kl)
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        means = self.tally.read(self.accelerator.reduce)
        self.tally = training_tally
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in means.items()}
        return EvalLoopOutput(None, None, metrics, num_samples=len(dataloader.dataset))  # type: ignore[arg-type]

    def _evaluation_model(self) -> nn.Module:
        assert self.model is not None
        if self.is_fsdp_enabled and not self.accelerator._models:
            raise BadInput("Under FSDP the model is sharded when training starts: evaluate with --eval_on_start true.")
        model = self._wrap_model(self.model, training=False)
        if not self.accelerator._models and model is self.model:  # evaluation before training: autocast and device
            model = self.accelerator.prepare_model(model, evaluation_mode=True)
        return model

    # ------------------------------------------------------------------------------------------- what it says

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's log line, with the metrics since the last one; the closing line has what no line had yet."""
        if "loss" in logs or "train_runtime" in logs:  # Trainer has the loss itself
            means = self.tally.read(self.accelerator.reduce)
            logs |= {name: value for name, value in means.items() if name != "loss"}
        super().log(logs, start_time)

    def floating_point_ops(self, step: Step) -> float:  # type: ignore[override]
        """Floating-point operations of a step on this rank, for `total_flos`."""
        return float(sum(super(PreferenceTrainer, self).floating_point_ops(batch) for batch in step.micro_batches))

    def _track_num_input_tokens(self, step: Step) -> None:
        for batch in step.micro_batches:
            super()._track_num_input_tokens(batch)

    def _run_epoch(self, *arguments: Any, **named: Any) -> None:
        # Resumed at its end within an epoch, as --max_steps leaves it, Trainer would take one more step.
        if self.state.global_step < self.state.max_steps:
            super()._run_epoch(*arguments, **named)

    def train(  # type: ignore[override]
        self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any
    ) -> TrainOutput:
        """Train, and leave `run.json` and a model card in the output folder.

        Args:
            resume_from_checkpoint: A checkpoint folder; True or "latest" for the last whole one of the output folder.
            kwargs: For `transformers.Trainer.train`.
        """
        if resume_from_checkpoint in (True, "latest"):
            resume_from_checkpoint = latest_checkpoint(str(self.args.output_dir))
        self.record.start()
        output = super().train(resume_from_checkpoint=resume_from_checkpoint, **kwargs)
        self.record.finish()
        return output


class BNFTrainer(PreferenceTrainer):
    """Aligns a model from thumbs up and thumbs down with the BNF loss, which has no hyper-parameter.

    Example:
        trainer = BNFTrainer(
            model="meta-llama/Meta-Llama-3-8B-Instruct",
            args=BNFConfig(output_dir="llama3-8b-bnf", learning_rate=6e-7),
            train_dataset=load_dataset("princeton-nlp/llama3-ultrafeedback-armorm", split="train"),
        )
        trainer.train()
    """

    config_class: type[PreferenceConfig] = BNFConfig

    def __init__(self, model: str | PreTrainedModel | PeftModel, args: BNFConfig | None = None, **kwargs: Any) -> None:
        if args is not None and args.loss_type != "bnf":
            raise BadInput(f"BNFTrainer trains with bnf, args say {args.loss_type}. Use PreferenceTrainer.")
        super().__init__(model, args, **kwargs)
