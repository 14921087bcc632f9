"""`bnf-align train`: rows and a model in, an aligned model out."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnf_align.outputs import check_targets
from bnf_align.records import BadInput, counted

if TYPE_CHECKING:
    from bnf_align.cli.arguments import Arguments, DataArguments, ModelArguments
    from bnf_align.config import PreferenceConfig
    from bnf_align.training.trainer import PreferenceTrainer

logger = logging.getLogger(__name__)

HELP = """\
usage: bnf-align train [--config RECIPE.yaml] --model_name_or_path M --dataset_name DATA --output_dir OUT [flags]

Align the model M with the preferences in DATA. Several devices: accelerate launch -m bnf_align train ...

  --model_name_or_path   folder or hub name of the model, or of an adapter to continue; or a GGUF file
  --dataset_name         .json, .jsonl, .csv or .parquet file (.gz too), folder, or hub name; pairs, thumbs, or both;
                         an export that `bnf-align import` knows is read as it is
  --output_dir           receives the model, run.json and a model card
  --config               YAML file with any of the flags; flags on the command line win

  --loss_type            bnf (default), nll_pll, sft, kto, dpo, ipo, rdpo, simpo, slic_hf, orpo, bnf_asymmetric,
                         bnf_contrastive, apo_zero, bco, topr, w_reinforce, npo, dpo_norm, rpo
  --loss_kwargs          its hyper-parameters as JSON; bnf has none
  --learning_rate        default 1e-6, with LoRA 1e-5
  --batch_size           pairs or single responses in one optimizer step, over all devices
  --max_tokens_per_micro_batch   memory; changes no result (default 8192)
  --packing              no padding; for --attn_implementation flash_attention_2, where that is installed
  --max_length           tokens of prompt and completion together (default 4096)
  --num_train_epochs     default 1
  --use_peft             LoRA; --load_in_4bit for QLoRA
  --eval_fraction        share of the prompts to keep out of training and evaluate on
  --eval_task            answer a slice of gsm8k, math_l5, crux, mmlu_redux or ifeval every --eval_task_steps
  --sample_prompts       a file of your own prompts, answered before and after, for run.json and the report
  --label_map            what labels mean, if they are not true/false, 1/0 or 1/-1: good=up bad=down
  --map                  columns under other names: prompt=question completion=answer label=rating
  --show_tokens          print that many responses token by token, with what is scored
  --ref_cache_dir        folder of the reference cache, shared between runs
  --resume_from_checkpoint   a checkpoint folder of this run, or latest

--help-all lists every flag, those of transformers.TrainingArguments among them."""


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    if "-h" in argv or "--help" in argv:
        print(HELP)
        return 0
    from bnf_align.cli import arguments
    from bnf_align.outputs import alone

    if "--help-all" in argv:
        arguments.parser().print_help()
        return 0
    parsed = arguments.parse(argv)
    parsed[1].step_size(parsed[1].world_size)
    _check_out(*parsed)
    with alone(str(parsed[1].output_dir)) if parsed[1].process_index == 0 else nullcontext():
        return _train(parsed, shlex.join(["bnf-align", "train", *argv]))


def _check_out(data: DataArguments, config: PreferenceConfig, model: ModelArguments) -> None:
    """Stop where the output folder is one that is read."""
    out, given = Path(str(config.output_dir)).expanduser(), Path(str(model.model_name_or_path)).expanduser()
    if out.is_dir() and given.is_dir() and out.samefile(given):
        raise BadInput(
            f"--output_dir {out} is the folder of --model_name_or_path: its weights would be replaced. Nothing is "
            "changed in place: choose another folder."
        )
    read = (data.dataset_name, data.eval_dataset_name, data.eval_task_data, data.sample_prompts)
    written = {f"{name} of --output_dir": out / name for name in ("run.json", "health.json", "samples.jsonl")}
    check_targets(written, filter(None, read))
    if (out / "run.json").exists() and not config.resume_from_checkpoint and config.process_index == 0:
        stays = counted(len([*out.glob("checkpoint-*")]), "checkpoint")
        logger.warning(
            f"{out} holds an earlier run. Its model and its records are replaced; {stays} of it in there, which "
            "--resume_from_checkpoint latest may find. Name another --output_dir to keep them apart."
        )


def _train(parsed: Arguments, command: str) -> int:
    from bnf_align.construct.prompts import as_messages, read_prompts
    from bnf_align.evaluation.callback import EvalCallback, SampleCallback, refuse_judged
    from bnf_align.evaluation.items import load_items
    from bnf_align.evaluation.score import task_named
    from bnf_align.training.callbacks import STATUS, StopOnSigterm

    # Before the trainer, whose reference pass may take hours: a task that cannot be had shows at once.
    data = parsed[0]
    evaluation = None
    if data.eval_task:
        task = task_named(data.eval_task)
        refuse_judged(task)
        items = load_items(task, data.eval_task_data, data.eval_task_items)
        evaluation = partial(EvalCallback, task=task, items=items, every=data.eval_task_steps)
    prompts = read_prompts(data.sample_prompts) if data.sample_prompts else []
    trainer = make_trainer(parsed)
    trainer.record.command = command  # it holds no secret: --hub_token is refused
    if evaluation:
        trainer.add_callback(evaluation(trainer))
    if prompts:
        chat = getattr(trainer.processing_class, "chat_template", None) is not None
        trainer.add_callback(SampleCallback(trainer, as_messages(prompts) if chat else prompts, data.sample_tokens))
    with StopOnSigterm(trainer) as stop:
        trainer.train(resume_from_checkpoint=trainer.args.resume_from_checkpoint)
    if stop.checkpoint:
        if trainer.is_world_process_zero():
            print(f"Stopped by SIGTERM. --resume_from_checkpoint latest goes on from {stop.checkpoint}.")
        return STATUS
    trainer.save_model()
    if trainer.eval_dataset is not None:
        trainer.evaluate()
    trainer.record.write()
    if trainer.is_world_process_zero():
        print(trainer.record.health().text)
        print(f"The model is in {trainer.args.output_dir}, what the run did in {trainer.args.output_dir}/run.json.")
    return 0


def make_trainer(parsed: tuple) -> PreferenceTrainer:
    """The trainer that the arguments describe; making it checks the rows and fills the reference cache."""
    from bnf_align.cli.arguments import adapter_config
    from bnf_align.training.trainer import PreferenceTrainer

    loaded, config, rows, eval_rows = load(parsed)
    return PreferenceTrainer(
        loaded.model,
        config,
        train_dataset=rows,
        eval_dataset=eval_rows,
        processing_class=loaded.tokenizer,
        peft_config=adapter_config(parsed[2]),
    )


def load(parsed: tuple, **placed: Any) -> tuple:
    """The model with its tokenizer, the settings, the training and the evaluation rows that the arguments name.

    Args:
        parsed: Of `arguments.parse`.
        placed: For `models.load` besides: `device_map`.
    """
    from bnf_align import models
    from bnf_align.cli.arguments import load_rows, model_kwargs

    data, config, model = parsed
    main_process = config.process_index == 0
    logging.basicConfig(format="%(message)s", level=logging.WARNING if main_process else logging.ERROR)
    adapter = models.find(model.model_name_or_path, revision=model.model_revision).adapter
    if model.use_peft and adapter:
        raise BadInput(f"{adapter} is an adapter and is continued as it is: leave --use_peft out.")
    if (model.load_in_4bit or model.load_in_8bit) and not (model.use_peft or adapter):
        raise BadInput("Quantised weights cannot be trained, an adapter on them can: add --use_peft.")
    rows, eval_rows = load_rows(data, config)
    loaded = models.load(model.model_name_or_path, trainable=True, **{**model_kwargs(model), **placed})
    return loaded, config, rows, eval_rows
