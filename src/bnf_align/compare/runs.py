"""One run: a model trained or measured in a process of its own, and how many of them go on at a time."""

from __future__ import annotations

import gc
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback
from transformers.utils import logging as transformers_logging

from bnf_align.compare.config import Plan
from bnf_align.compare.evaluations import BASE, about, answers_summary
from bnf_align.compare.rows import ALREADY_READ, file_of
from bnf_align.journal import read_jsonl
from bnf_align.models import Loaded, configured_tokenizer, load
from bnf_align.reference.cache import digest
from bnf_align.training.trainer import NotFinite, PreferenceTrainer

Work = Callable[[Plan, "Run"], dict[str, Any]]


@dataclass(frozen=True)
class Run:
    """One training of one method; of the base, none."""

    method: str
    point: Mapping[str, Any]
    seed: int
    key: str
    """Of everything that the trained model follows from."""
    test_key: str = ""
    """Of that and of everything that is reported of it."""

    @property
    def title(self) -> str:
        """How messages call it."""
        settings = ", ".join(f"{name} {value}" for name, value in self.point.items())
        return self.method if self.method == BASE else f"{self.method} ({settings}), seed {self.seed}"

    def id(self, kind: str) -> str:
        """Its row in the journal; `kind` is `train` or `test`."""
        return f"train {self.key}" if kind == "train" else f"test {self.test_key}"

    def folder(self, plan: Plan) -> Path:
        """Its model."""
        return Path(plan.out) / "models" / f"{self.method}-{self.key[:12]}"


def key_of(**made_from: Any) -> str:
    """A short text that stands for all of these."""
    return digest(json.dumps(made_from, sort_keys=True, default=str).encode())


def train(plan: Plan, run: Run) -> dict[str, Any]:
    """Train, and measure on the validation split what settings are chosen by; the test split is not looked at.

    Returns:
        `id`, `validation` (per prompt; None where training diverged, with `failed`), `seconds` of training, `tokens`
        that were trained on and `steps`.
    """
    method, started = plan.methods[run.method], time.monotonic()
    folder = run.folder(plan)
    shutil.rmtree(folder, ignore_errors=True)  # what a killed run has left
    config = plan.config(method.loss_type, run.point, seed=run.seed, output_dir=str(folder), **ALREADY_READ)
    loaded = _load(plan, plan.model, trainable=True)
    trainer = PreferenceTrainer(
        loaded.model,
        config,
        list(read_jsonl(file_of(plan, "train"))),
        processing_class=loaded.tokenizer,
        peft_config=plan.adapter,
    )
    trainer.remove_callback(PrinterCallback)
    validation, failed = None, None
    try:
        trainer.train()
        trainer.save_model()
    except NotFinite as error:
        failed = str(error)
        shutil.rmtree(folder, ignore_errors=True)
    else:
        validation = _measured(plan, run, "validation", loaded._replace(model=trainer.model))
    cost = {"seconds": time.monotonic() - started, "tokens": trainer.tokens_seen, "steps": trainer.state.global_step}
    return {"id": run.id("train"), "title": run.title, "validation": validation, "failed": failed, **cost}


def test(plan: Plan, run: Run) -> dict[str, Any]:
    """Measure a model on everything that is reported.

    Returns:
        `id`; `outcomes`: measure -> prompt -> value; `answers`: evaluation -> how long its answers are; of the base
        also its `validation`.
    """
    loaded = _load(plan, plan.model if run.method == BASE else str(run.folder(plan)))
    if torch.cuda.is_available() and not plan.model_kwargs.get("device_map"):
        loaded.model.to("cuda")
    validation = _measured(plan, run, "validation", loaded) if run.method == BASE else None
    outcomes: dict[str, Any] = {}
    answers: dict[str, Any] = {}
    for name, evaluation in plan.evaluations.items():
        outcomes |= _measured(plan, run, "test", loaded, name)
        if evaluation.generates:
            answers[name] = answers_summary(read_jsonl(_file(plan, run, "test", name)))
    found = {"id": run.id("test"), "title": run.title, "outcomes": outcomes, "answers": answers}
    return found | {"validation": validation}


def _load(plan: Plan, name: str, trainable: bool = False) -> Loaded:
    found = load(name, trainable=trainable, **plan.model_kwargs)
    told = [plan.settings.get(key) for key in ("chat_template_path", "eos_token")]
    return found._replace(tokenizer=configured_tokenizer(found.tokenizer, *told))


def _file(plan: Plan, run: Run, split: str, name: str) -> Path:
    spec = key_of(rows=digest(file_of(plan, split).read_bytes()), **about(plan.evaluations[name], split))
    return Path(plan.out) / "answers" / f"{run.method}-{run.key[:12]}" / f"{split}-{name}-{spec[:8]}.jsonl"


def _measured(
    plan: Plan, run: Run, split: str, loaded: Loaded, name: str | None = None
) -> dict[str, dict[str, float]]:
    name = name or plan.choose_by
    evaluation, config = plan.evaluations[name], plan.config("sft", {})
    rows = list(read_jsonl(file_of(plan, split))) if name == "held_out" else []
    found = evaluation.of(split, rows, loaded, config, _file(plan, run, split, name))
    return {f"{name} {measure}": values for measure, values in found.items()}


def each(work: Work, plan: Plan, runs: Sequence[Run], cluster: Any = None) -> Iterator[dict[str, Any]]:
    """What `work` finds of each run, as it becomes ready: here, in `plan.processes` processes, or on a cluster."""
    job = partial(_quietly, work, plan)
    if cluster is not None:
        yield from cluster.map(partial(partial, _quietly, work, plan), list(runs), lambda run: run.title)
    elif plan.processes == 1 or len(runs) < 2:
        yield from map(job, runs)
    else:
        context, devices = get_context("spawn"), torch.cuda.device_count()
        numbers, threads = context.Value("i", -1), max(1, torch.get_num_threads() // plan.processes)
        pool = ProcessPoolExecutor(
            plan.processes, context, initializer=_start, initargs=(os.getpid(), numbers, devices, threads)
        )
        try:
            for done in as_completed([pool.submit(job, run) for run in runs]):
                yield done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start(parent: int, numbers: Any, devices: int, threads: int) -> None:
    """What a process does first: take a device and its share of the cores, and end when its parent does."""
    with numbers.get_lock():
        numbers.value += 1
        if devices:
            os.environ["CUDA_VISIBLE_DEVICES"] = str(numbers.value % devices)
    torch.set_num_threads(threads)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _quietly(work: Work, plan: Plan, run: Run) -> dict[str, Any]:
    """The rows and the model are the same in every run: what is to be said of them has been said once."""
    loggers = [logging.getLogger(name) for name in ("bnf_align", "transformers")]
    levels = [logger.level for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        return work(plan, run)
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars:
            transformers_logging.enable_progress_bar()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
