"""The quickstart: a model that errs when it samples, its own answers with a thumb each, BNF, other methods beside it.

It is a small copy of the real thing and takes the same way: SFT gives the base, the base answers prompts, a verifier
gives each answer a thumb, `BNFTrainer` aligns the base with them, and fresh prompts tell what changed. Every number
is measured in the run that reports it.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from bnf_align.analysis import Method, analyze, read_answers
from bnf_align.construct.select import Choice, select
from bnf_align.journal import read_jsonl
from bnf_align.lab.measure import beside_bnf, compare
from bnf_align.lab.picture import draw
from bnf_align.lab.runs import Settings, align, base_model
from bnf_align.lab.sample import answers_with_thumbs, complete, mean_logps, outcomes, write_samples
from bnf_align.lab.table import ACCURACIES, conclude, table
from bnf_align.lab.world import MATH, SORT, draw_prompts
from bnf_align.losses import LOSSES
from bnf_align.outputs import write_json
from bnf_align.records import PreferenceRow
from bnf_align.report import write_page
from bnf_align.training.record import versions

__all__ = ["Settings", "quickstart", "table"]

logger = logging.getLogger(__name__)

SHOWN = 150
"""Answers of the report's side by side, and pairs of its figures."""
OTHERS = ("sft", "bnf_asymmetric", "dpo", "kto")
"""Methods that are trained beside BNF; `sft` sees the thumbs up alone, `dpo` pairs of the same answers."""


def quickstart(out: str | Path, seed: int = 0, settings: Settings | None = None) -> dict[str, Any]:
    """Run the tiny world once.

    Args:
        out: Folder for everything: `data/` (candidates, scores, preferences, their card), `unseen/`, `model/`,
            and one folder for each other method, `analysis/`, `cache/`, `base-SEED/` (used again by the next run with
            the same settings), `quickstart.json`, `quickstart.png` and `report.html`.
        seed: Seed of the weights, the prompts, the samples and the order of training.
        settings: How long everything is.

    Returns:
        What `quickstart.json` holds: `measures` (accuracies as shares, log-probabilities in nats per token; `before`,
        `after` and `change`, each with a 95 % interval over prompts), the `conclusion` in words, the `methods` beside
        BNF (accuracies, their change from the base and their distance from BNF), the data counts, the reference
        cache's work, the trainer's `history` and the `seconds` of each phase. `table` prints it.
    """
    # A thread that shares its core makes all others wait: beside one busy program on two cores a step of this model
    # takes two threads twice the time of one thread. Above four there is nothing to gain at this size.
    threads = torch.get_num_threads()
    torch.set_num_threads(max(1, min(4, threads - 1)))
    try:
        result = _run(Path(out), seed, settings or Settings())
    finally:
        torch.set_num_threads(threads)
    draw(Path(out) / "quickstart.png", result)
    write_json(Path(out) / "quickstart.json", result)
    write_page(Path(out) / "report.html", [out], command=f"bnf-align quickstart --output_dir {out} --seed {seed}")
    return result


def _run(out: Path, seed: int, settings: Settings) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    held_out = {s.name: draw_prompts(s, settings.eval_prompts, f"evaluation {s.name} {seed}") for s in (MATH, SORT)}
    with _timed("1/7 base: fine-tuning on demonstrations with slips", seconds, "base"):
        base, reused = base_model(out / f"base-{seed}", seed, settings, held_out)
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    with _timed(f"2/7 feedback: {settings.prompts} prompts, {settings.samples} answers to each", seconds, "feedback"):
        prompts = draw_prompts(MATH, settings.prompts, f"preferences {seed}", avoid=set(held_out[MATH.name]))
        rows = answers_with_thumbs(model, tokenizer, MATH, prompts, settings.samples, seed, out / "data")
    with _timed("3/7 the base on fresh prompts", seconds, "before"):
        unseen = answers_with_thumbs(model, tokenizer, MATH, held_out[MATH.name], 1, seed, out / "unseen")
        before = measure(model, tokenizer, held_out, unseen, seed)
    with _timed("4/7 alignment: BNF on the thumbs", seconds, "alignment"):
        trainer = align(base, rows, out, seed, settings)
    with _timed("5/7 the aligned model on fresh prompts", seconds, "after"):
        after = measure(trainer.model, tokenizer, held_out, unseen, seed)
    with _timed(f"6/7 the same steps with {', '.join(OTHERS)}", seconds, "others"):
        pairs = select(list(read_jsonl(out / "data" / "scored.jsonl")), Choice(seed=seed)).rows
        trainers = {"bnf": trainer}
        found = {"base": before, "bnf": after}
        for method in OTHERS:
            trainers[method] = align(base, pairs if LOSSES[method].pairwise else rows, out, seed, settings, method)
            found[method] = accuracies(trainers[method].model, tokenizer, held_out, seed)
    with _timed("7/7 token by token", seconds, "analysis"):
        _write_samples(out / "model", base, held_out[MATH.name][:SHOWN], seed)
        rows_of_pairs = read_answers(pairs[:SHOWN], tokenizer, source="pairs of the training rows")
        methods = [
            Method(name, partial(AutoModelForCausalLM.from_pretrained, out / folder), rows_of_pairs)
            for name, folder in (("BNF", "model"), ("DPO", "dpo"))
        ]
        data = dict.fromkeys(("BNF", "DPO"), f"the first {SHOWN} pairs that dpo trained on")
        about = {"reference": str(base), "data": data}
        shutil.rmtree(out / "analysis", ignore_errors=True)  # of another training
        analyze(methods, partial(AutoModelForCausalLM.from_pretrained, base), out / "analysis", about=about)

    measures = {name: compare(before[name], after[name], seed) for name in before}
    ups = sum(row["label"] for row in rows)
    return {
        "seed": seed,
        "settings": asdict(settings),
        "versions": versions(),
        "base_reused": reused,
        "preferences": {"rows": len(rows), "ups": ups, "downs": len(rows) - ups},
        "reference": trainer.prepared.reference.as_dict() if trainer.prepared.reference else None,
        "measures": measures,
        "conclusion": conclude(measures, settings.eval_prompts),
        "methods": beside_bnf(found, ACCURACIES, seed),
        "health": {  # without a reference there is no shift to judge
            method: one.record.health().colour for method, one in trainers.items() if LOSSES[method].reference
        },
        "seconds": seconds,
        "history": trainer.state.log_history,
    }


def _write_samples(folder: Path, base: Path, prompts: Sequence[str], seed: int) -> None:
    """Answers before and after, as sampled for the table, side by side for the report."""
    found = []
    for place in (base, folder):
        model, tokenizer = AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)
        texts = complete(model, tokenizer, prompts, seed=seed)
        found.append(
            [(one[0], bool(MATH.is_right(prompt, one[0]))) for prompt, one in zip(prompts, texts, strict=True)]
        )
    rows = [{"id": str(at), "prompt": prompt} for at, prompt in enumerate(prompts)]
    write_samples(folder / "samples.jsonl", rows, *found)


def measure(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    held_out: Mapping[str, Sequence[str]],
    unseen: Sequence[PreferenceRow],
    seed: int,
) -> dict[str, list[float]]:
    """One value per prompt of everything that the table of before and after shows.

    `held_out` has the prompts of each skill, `unseen` the base's answers to held-out prompts with their thumbs.
    """
    values = accuracies(model, tokenizer, held_out, seed)
    for name, label in (("logps up", True), ("logps down", False)):
        if rows := [row for row in unseen if row["label"] is label]:
            values[name] = mean_logps(model, tokenizer, rows)
    return values


def accuracies(
    model: Any, tokenizer: PreTrainedTokenizerBase, held_out: Mapping[str, Sequence[str]], seed: int
) -> dict[str, list[float]]:
    """Of each skill, sampled and greedy: 1 for a right answer to a prompt, 0 for a wrong one."""
    values: dict[str, list[float]] = {}
    for skill in (MATH, SORT):
        prompts = held_out[skill.name]
        sampled, greedy = (complete(model, tokenizer, prompts, seed=seed, **how) for how in ({}, {"temperature": 0}))
        values[f"{skill.name} sampled"] = outcomes(skill, prompts, sampled)
        values[f"{skill.name} greedy"] = outcomes(skill, prompts, greedy)
    return values


@contextmanager
def _timed(phase: str, seconds: dict[str, float], name: str) -> Iterator[None]:
    logger.info(phase)
    start = time.monotonic()
    yield
    seconds[name] = round(time.monotonic() - start, 1)
