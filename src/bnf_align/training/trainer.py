"""The trainer: an optimizer step is one batch, whatever memory makes of it.

`transformers.Trainer` runs the loop (optimizer, schedule, checkpoints, logs, callbacks). What is ours: the rows become
responses with a reference column before the loop starts, a batch is a whole optimizer step, cut by memory alone, and
the loss is one row of `losses.LOSSES`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from accelerate.utils.memory import clear_device_cache
from peft import PeftConfig, PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, set_seed
from transformers.trainer_callback import ProgressCallback
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from bnf_align.config import LEARNING_RATE, LORA_LEARNING_RATE, BNFConfig, PreferenceConfig
from bnf_align.data.batching import Step, StepDataset, StepLoader, StepSampler
from bnf_align.data.prepare import Rows
from bnf_align.data.responses import MicroBatch
from bnf_align.head import HeadCall, ask
from bnf_align.losses import CompletionLogps, eq4_value, kto_kl
from bnf_align.models import add_adapter, evaluation_mode, load, save_processor, teach_end_of_turn
from bnf_align.records import BadInput, rows_text
from bnf_align.reference.step0 import StepZero, compare, not_the_reference, tolerance_of
from bnf_align.training.callbacks import LineCallback
from bnf_align.training.checkpoints import WriteCard, checkpoint_to_resume, date_of_the_run, rewards_until
from bnf_align.training.health import COLOURS, Metrics, health, recent
from bnf_align.training.prepare import named_sources, starting_point
from bnf_align.training.record import RunRecord
from bnf_align.training.sharding import check_sharding
from bnf_align.upstream import OpenTrainer

EVALUATION_STEP = 1024
"""Examples that evaluation cuts at a time; changes no result."""

NOT_TAKEN = {
    "compute_metrics": "evaluation keeps sums of losses and log-probabilities, no predictions; see --eval_task",
    "preprocess_logits_for_metrics": "evaluation keeps sums of losses and log-probabilities, no predictions",
    "compute_loss_func": "the loss is a row of losses.LOSSES, chosen by loss_type",
    "data_collator": "steps are padded by their own lengths",
    "model_init": "the reference is the model that is passed",
}
"""Arguments of `transformers.Trainer` that would be ignored, and why."""


class NotFinite(BadInput):
    """Training has diverged: a loss, a gradient or weights are NaN or infinite."""


@contextmanager
def settings_of_transformers(flags: str = "These settings") -> Iterator[None]:
    """Where transformers refuses settings, a message that names the `flags` instead of a traceback."""
    try:
        yield
    except (ValueError, TypeError, ArithmeticError, ImportError, OSError) as error:
        if isinstance(error, BadInput):
            raise
        raise BadInput(f"{flags}: transformers refuses them: {error}") from error


class PreferenceTrainer(OpenTrainer):
    """Trains a causal language model on preferences with any objective of `losses.LOSSES`.

    Args:
        model: A model, or the folder or hub name of one. Its weights at this moment are the reference.
        args: Settings; `PreferenceConfig()` if None.
        train_dataset: Rows of TRL's two types, plain or conversational: `prompt, chosen, rejected` and
            `prompt, completion, label`, mixed if you like. A `datasets.Dataset` or any list of dicts.
        eval_dataset: The same; or a dict of such, by name.
        processing_class: The tokenizer; the model's own if None.
        peft_config: Train a fresh adapter of this kind; the reference is then the model under it.
        callbacks: As in `transformers.Trainer`.
        optimizers: As in `transformers.Trainer`.
        optimizer_cls_and_kwargs: As in `transformers.Trainer`.
        others: What `transformers.Trainer` takes besides; refused by name.

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
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        optimizer_cls_and_kwargs: tuple[Any, dict[str, Any]] | None = None,
        **others: Any,
    ) -> None:
        for name, value in others.items():
            if name not in NOT_TAKEN:
                raise TypeError(f"{type(self).__name__} takes no argument {name!r}.")
            if value is not None:
                raise BadInput(f"{name} is not supported: {NOT_TAKEN[name]}.")
        args = copy.copy(args) if args is not None else self.config_class(output_dir="outputs")
        policy: Any = model
        if isinstance(model, str):
            policy, processing_class, _ = load(model, tokenizer=processing_class, trainable=True)
        args.fold_batch_size()
        if args.learning_rate is None:
            has_adapter = peft_config is not None or isinstance(policy, PeftModel)
            args.learning_rate = LORA_LEARNING_RATE if has_adapter else LEARNING_RATE
        args.template_date = date_of_the_run(args)
        self.spec, self.loss_kwargs = args.loss, args.hyperparameters
        self.beta = float(self.loss_kwargs.get("beta", 1.0))
        sources = named_sources(train_dataset, eval_dataset)
        policy, tokenizer, self.prepared = starting_point(policy, processing_class, sources, args)
        set_seed(args.seed)  # a fresh adapter starts from random numbers
        if peft_config is not None:
            policy = add_adapter(policy, peft_config, args)
        steps = self.prepared.steps
        with settings_of_transformers():
            super().__init__(
                model=policy,
                args=args,
                train_dataset=steps.get("train"),
                eval_dataset={name: steps[f"eval_{name}"] for name in eval_dataset}
                if isinstance(eval_dataset, dict)
                else steps.get("eval"),
                processing_class=tokenizer,
                callbacks=callbacks,
                optimizers=optimizers,
                optimizer_cls_and_kwargs=optimizer_cls_and_kwargs,
            )
        check_sharding(self)
        teach_end_of_turn(self.model, tokenizer)
        if self.pop_callback(ProgressCallback) is not None:
            self.add_callback(LineCallback)
        self.add_callback(WriteCard(self))
        self.metrics = Metrics(self.spec, self.beta, self.args.device)
        self.model_name: str = policy.config.name_or_path or "a model given in Python"
        self.tokens_seen = 0  # by this rank, without padding
        self.record = RunRecord(self)
        self._step_0 = self.spec.reference and args.check_step_0  # still to be checked
        self.rewards = torch.zeros(2, device=self.args.device)
        """Sum and number of the rewards of all responses trained on so far, over all ranks; for BCO's delta."""
        self._scored: list[tuple[Tensor, Tensor]] = []
        """Of each micro-batch of this step: the rows' numbers in the source, and their log-probabilities."""

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers has it; BadInput where it refuses the settings."""
        with settings_of_transformers(
            f"--optim {getattr(self.args.optim, 'value', '')}, --optim_args {self.args.optim_args}"
        ):
            return super().create_optimizer(*args, **kwargs)

    def create_scheduler(self, num_training_steps: int, *args: Any, **kwargs: Any) -> Any:
        """As transformers has it; BadInput where it refuses the settings, now or at a later step."""
        kind, options = self.args.lr_scheduler_type, self.args.lr_scheduler_kwargs
        with settings_of_transformers(
            f"--lr_scheduler_type {getattr(kind, 'value', kind)}, --lr_scheduler_kwargs {options}"
        ):
            given = self.lr_scheduler
            schedule = super().create_scheduler(num_training_steps, *args, **kwargs)
            for factor in getattr(schedule, "lr_lambdas", ()) if given is None else ():
                for step in (num_training_steps // 2, num_training_steps):
                    factor(step)
            return schedule

    # ------------------------------------------------------------------------------------------------ the loop

    def get_train_dataloader(self) -> StepLoader:
        """A loader of whole optimizer steps, this rank's share of each."""
        if self.train_dataset is None:
            raise ValueError("Training needs a train_dataset.")
        args = self.args
        assert args.batch_size is not None  # since `fold_batch_size`
        sampler = StepSampler(len(self.train_dataset), args.batch_size, args.order_seed, args.dataloader_drop_last)
        return self._loader(self.train_dataset, sampler)

    def _loader(self, steps: StepDataset, sampler: StepSampler) -> StepLoader:
        names = ("num_workers", "persistent_workers", "prefetch_factor", "multiprocessing_context", "in_order")
        options = {name: getattr(self.args, f"dataloader_{name}") for name in names}
        pinned = self.args.dataloader_pin_memory and self.args.device.type == "cuda"
        return StepLoader(steps, sampler, pin_memory=pinned, **options)

    def training_step(self, model: nn.Module, step: Step, num_items_in_batch: Any = None) -> Tensor:  # type: ignore[override]
        """Forward and backward of one optimizer step, micro-batch by micro-batch; returns its mean loss."""
        model.train()
        if callable(start := getattr(self.optimizer, "train", None)):  # schedule-free optimizers
            start()
        check = self._step_0 and self.state.global_step == 0
        tolerance = self._tolerance()
        step_0 = torch.zeros(4, device=self.args.device)
        self._scored = []
        point = self._reference_point(model, [step])
        world, total = self.args.world_size, torch.zeros((), device=self.args.device)
        rewards = torch.zeros_like(self.rewards)
        for i, batch in enumerate(step.micro_batches):
            self.tokens_seen += int(batch["attention_mask"].sum())
            last = i == len(step.micro_batches) - 1
            with nullcontext() if last or self.syncs_each_micro_batch() else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    loss, completions = self._loss(model, batch, point, step.size)
                self.accelerator.backward(loss * world)  # ranks average their gradients, the step's mean is a sum
            total += loss.detach()
            if self.spec.running_reward:
                rewards += torch.stack([self.beta * completions.logratio.sum(), (completions.length > 0).sum()])
            if check:
                step_0 += compare(completions, tolerance)
        if check:
            self._check_step_0(model, step, step_0, tolerance)
        if self.args.torch_empty_cache_steps and self.state.global_step % self.args.torch_empty_cache_steps == 0:
            clear_device_cache()
        if self.spec.running_reward:
            self.rewards += self.accelerator.reduce(rewards)
        self._total = self.accelerator.reduce(total)
        return self._total  # on every rank, because Trainer does not always average over them

    def compute_loss(  # type: ignore[override]
        self, model: nn.Module, batch: MicroBatch, point: Tensor | None = None, size: int = 1, **_: Any
    ) -> Tensor:
        """The sum of the losses of one micro-batch over `size`; its metrics are added."""
        return self._loss(model, batch, point, size)[0]

    def _loss(
        self, model: nn.Module, batch: MicroBatch, point: Tensor | None, size: int
    ) -> tuple[Tensor, CompletionLogps]:
        on_host, batch = batch, self.on_device(batch)
        wants_eq4 = self.args.log_eq4_value and self.spec.reference and not model.training
        if (token_weights := self.spec.token_weights) is not None:
            objective: Any = {"token_weights": lambda tokens: token_weights(tokens, **self.loss_kwargs) / size}
        else:
            objective = {"loss": lambda completions: self._losses(completions, batch, point)[0].sum() / size}
        call = HeadCall(on_host, **objective, entropy=wants_eq4, device=self.args.device)
        loss = ask(model, batch, call)
        self._add_metrics(call.completions, batch, point)
        if wants_eq4:
            values = eq4_value(call.completions, batch["label"], call.entropy)
            self.metrics.add("bnf/eq4_loss", values, call.completions.length > 0)
        self._scored.append((on_host["row"], call.completions.logp))
        return loss, call.completions

    def _losses(self, completions: CompletionLogps, batch: MicroBatch, point: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B,) or (P,) losses, and which are present: a rank without a share of the step brings nothing scored."""
        if self.spec.pairwise:
            sides = completions.halves()
            losses, present = self.spec.function(*sides, **self.loss_kwargs), sides[0].length > 0
        else:
            extra = () if point is None else (point,)
            losses = self.spec.function(completions, batch["label"], *extra, **self.loss_kwargs)
            present = completions.length > 0
        return torch.where(present, losses, 0.0), present

    @torch.no_grad()
    def _add_metrics(self, completions: CompletionLogps, batch: MicroBatch, point: Tensor | None) -> None:
        losses, present = self._losses(completions, batch, point)
        self.metrics.add("loss", losses, present)
        if self.spec.pairwise and self.spec.reference:
            chosen, rejected = completions.halves()
            self.metrics.add("rewards/accuracies", (chosen.logratio > rejected.logratio).float(), present)
        self.metrics.add_completions(completions, batch["label"], batch["end"])

    @torch.no_grad()
    def _reference_point(self, model: nn.Module, steps: Iterable[Step]) -> Tensor | None:
        """What a loss measures from, or None.

        KTO's z0: the mean log-ratio of the mismatched completions of `steps` over all ranks, at least 0.
        BCO's delta: the mean reward of all responses trained on so far.
        """
        if self.spec.running_reward:
            delta = self.rewards[0] / self.rewards[1].clamp(min=1)
            self.metrics.add("delta", delta)
            return delta
        if not self.spec.mismatched:
            return None
        sums = torch.zeros(2, device=self.args.device)
        for step in steps:
            for batch in step.kl_rows:
                with self.compute_loss_context_manager():
                    call = HeadCall(batch, device=self.args.device)
                    ask(model, self.on_device(batch), call)
                sums += torch.stack([kto_kl(call.completions).sum(), (call.completions.length > 0).sum()])
        total, count = self.accelerator.reduce(sums)
        kl = (total / count).clamp(min=0)
        self.metrics.add("kl", kl)
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
        model = self.evaluation_model()
        if model is None:
            raise BadInput("FSDP shards the model when training starts: evaluate with --eval_on_start true.")
        if callable(stop := getattr(self.optimizer, "eval", None)):  # schedule-free optimizers
            stop()
        training_metrics, self.metrics = self.metrics, Metrics(self.spec, self.beta, self.args.device)
        with evaluation_mode(model):
            point = self._reference_point(model, dataloader)
            for step in dataloader:
                self._scored = []
                for batch in step.micro_batches:
                    with self.compute_loss_context_manager():
                        self.compute_loss(model, batch, point)
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        means = self.metrics.read(self.accelerator.reduce)
        self.metrics = training_metrics
        found = {f"{metric_key_prefix}_{name}": value for name, value in means.items()}
        return EvalLoopOutput(None, None, found, num_samples=len(dataloader.dataset))  # type: ignore[arg-type]

    # ------------------------------------------------------------------------------------- what must not go on

    def _tolerance(self) -> float:
        rounded = [parameter.dtype for parameter in self.accelerator.unwrap_model(self.model).parameters()]
        rounded = [dtype for dtype in rounded if dtype.is_floating_point] + [torch.float32]
        if self.args.bf16 or getattr(self.model, "is_quantized", False):
            rounded.append(torch.bfloat16)
        return max(map(tolerance_of, rounded))

    @torch.no_grad()
    def _check_step_0(self, model: nn.Module, step: Step, sums: Tensor, tolerance: float) -> None:
        """Stop, on every rank, where the policy is not the reference before anything has moved.

        Raises:
            BadInput: With what was measured and the likely cause.
        """
        self._step_0 = False

        def in_evaluation_mode() -> Tensor:
            batch = step.micro_batches[0]
            call = HeadCall(batch, device=self.args.device)
            with evaluation_mode(model), self.compute_loss_context_manager():
                ask(model, self.on_device(batch), call)
            return compare(call.completions, tolerance)

        if not self.args.disable_dropout:  # then training mode differs, as was asked for
            sums = in_evaluation_mode()
        found = [StepZero(*part) for part in self.accelerator.gather(sums[None]).tolist()]
        if all(part.holds(tolerance) for part in found):
            return
        again = [StepZero(*part) for part in self.accelerator.gather(in_evaluation_mode()[None]).tolist()]
        random = self.args.disable_dropout and all(part.holds(tolerance) for part in again)
        raise BadInput(not_the_reference(found, tolerance, self.prepared.reference, random))

    def check_gradient(self, norm: Any) -> None:
        """Stop, on every rank, before a step that would spoil the weights.

        Raises:
            NotFinite: If the loss or the gradient is NaN or infinite.
        """
        norm = torch.as_tensor(norm.full_tensor() if hasattr(norm, "full_tensor") else norm, device=self._total.device)
        if bool(torch.isfinite(self._total) & torch.isfinite(norm)):  # the one place where a step waits for the device
            return
        assert self.lr_scheduler is not None
        what = "gradient" if torch.isfinite(self._total) else "loss"
        scored = [(rows, logps.cpu()) for rows, logps in self._scored]
        broken = _numbers(gather_object([row for rows, logps in scored for row in rows[~logps.isfinite()].tolist()]))
        of_step = _numbers(gather_object([row for rows, _ in scored for row in rows.tolist()]))
        where = f"Not finite in {rows_text(broken)}" if broken else f"The step has {rows_text(of_step)}"
        raise NotFinite(
            f"Step {self.state.global_step + 1}: the {what} is NaN or infinite, and the step is not taken. {where} of "
            f"the training data. The learning rate is {self.lr_scheduler.get_last_lr()[0]:.2g}: a smaller one, or a "
            f"longer --warmup_steps, keeps weights finite. {self._last_checkpoint()}"
        )

    def _last_checkpoint(self) -> str:
        whole = sorted(Path(str(self.args.output_dir)).glob("checkpoint-*"), key=lambda path: path.stat().st_mtime)
        return f"The last checkpoint is {whole[-1]}." if whole else "No checkpoint was saved (--save_strategy steps)."

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save weights, tokenizer and settings; into the output folder also `run.json` and the card, last.

        Raises:
            NotFinite: If weights are NaN or infinite; nothing is written then.
        """
        assert self.model is not None
        finite = torch.stack([p.detach().isfinite().all() for p in self.model.parameters() if p.requires_grad]).all()
        finite = finite.full_tensor() if hasattr(finite, "full_tensor") else finite
        if not bool(self.accelerator.reduce(finite.to(self.args.device, torch.float32)) >= self.args.world_size):
            raise NotFinite(
                f"Weights are NaN or infinite after step {self.state.global_step}, and are not saved. A smaller "
                f"--learning_rate keeps them finite. {self._last_checkpoint()}"
            )
        super().save_model(output_dir, _internal_call=True)
        if self.args.should_save and not isinstance(self.model, PeftModel):
            save_processor(self.model, output_dir or str(self.args.output_dir))
        if output_dir is None or Path(output_dir) == Path(str(self.args.output_dir)):
            self.record.write()
        if self.args.push_to_hub and not _internal_call:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Trainer's own card, written before it pushes, would replace ours."""
        self.record.write()

    # ------------------------------------------------------------------------------------------- what it says

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Trainer's log line, with the metrics since the last one; the closing line has what no line had yet."""
        if "loss" in logs or "train_runtime" in logs:  # Trainer has the loss itself
            means = self.metrics.read(self.accelerator.reduce)
            logs |= {name: value for name, value in means.items() if name != "loss"}
        found = health(logs | (recent([*self.state.log_history, logs]) if "bnf/saturated" in logs else {}))
        if "bnf/saturated" in logs:
            logs["bnf/health"] = COLOURS.index(found.colour)
        super().log(logs, start_time)
        self.record.write_health()
        if self.args.stop_on_collapse and found.colour == "red" and self.is_in_train:
            raise BadInput(
                f"Step {self.state.global_step}: stopped, as --stop_on_collapse says. {found.text} "
                f"{self._last_checkpoint()}"
            )

    def floating_point_ops(self, step: Step) -> float:  # type: ignore[override]
        """Floating-point operations of a step on this rank, for `total_flos`."""
        return float(sum(super(PreferenceTrainer, self).floating_point_ops(batch) for batch in step.micro_batches))

    def train(  # type: ignore[override]
        self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any
    ) -> TrainOutput:
        """Train; `save_model` then writes the weights, and after them `run.json` and a model card.

        Args:
            resume_from_checkpoint: A checkpoint folder; True or "latest" for the last whole one of the output folder.
            kwargs: For `transformers.Trainer.train`.

        Raises:
            BadInput: If the checkpoint is damaged or of another run, the policy is not the reference before the first
                step, or a loss or gradient is not finite.
        """
        checkpoint = checkpoint_to_resume(resume_from_checkpoint, self)
        if checkpoint and self.spec.running_reward:
            self.rewards = self.rewards.new_tensor(rewards_until(checkpoint))
        self.record.start()
        output = super().train(resume_from_checkpoint=checkpoint, **kwargs)
        self.record.finish()
        return output


def _numbers(rows: Iterable[int]) -> list[int]:
    """Row numbers, each once, without the -1 of padding rows."""
    return sorted({row for row in rows if row >= 0})


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
