"""Methods on the same rows: tune on the validation split, train the winners with every seed, report the test split."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bnf_align.compare import rows
from bnf_align.compare.config import Plan
from bnf_align.compare.evaluations import BASE, about
from bnf_align.compare.record import mean_of_first, record_of
from bnf_align.compare.runs import Run, each, key_of, test, train
from bnf_align.fingerprint import namespace_of
from bnf_align.journal import Journal
from bnf_align.losses import LOSSES
from bnf_align.models import load
from bnf_align.outputs import write_json
from bnf_align.training.prepare import starting_point
from bnf_align.training.record import versions

logger = logging.getLogger(__name__)

Found = dict[str, dict[str, Any]]
"""Key of a run -> what came of it."""


def compare(plan: Plan, *, cluster: Any = None, command: str = "") -> dict[str, Any]:
    """Run what is not done yet of a comparison, and say what came of it.

    Args:
        plan: Of `config.read`.
        cluster: A `bnf_align.cluster.Cluster` whose machines share the folder of `plan.out`; None: this machine.
        command: What asked for it, for the record.

    Returns:
        The record, which is also in `OUT/compare.json`. `OUT/runs.jsonl` has every run with its values per prompt,
        `OUT/rows` the splits, `OUT/answers` what was generated, `OUT/models` the models that were chosen.

    Raises:
        BadInput: For rows, a model or settings that cannot be trained on, and if another process writes to `plan.out`.
    """
    with Journal(Path(plan.out) / "runs.jsonl") as journal:
        splits = rows.split(plan)
        counts = rows.write(plan, splits)
        made_from = _start(plan, splits) | {"rows": [counts[name]["hash"] for name in ("train", "validation")]}
        del splits  # from here on the test rows are on disk alone, and only `test` reads them
        reported = {"rows": counts["test"]["hash"], "by": [about(one, "test") for one in plan.evaluations.values()]}

        def run(method: str, point: Mapping[str, Any], seed: int) -> Run:
            loss_type = plan.methods[method].loss_type if method in plan.methods else None
            key = key_of(loss_type=loss_type, point=point, seed=seed, **made_from)
            return Run(method, point, seed, key, key_of(key=key, **reported))

        seeds = plan.seeds[: plan.tuning_seeds]
        grids = {name: [[run(name, point, s) for s in seeds] for point in m.grid] for name, m in plan.methods.items()}
        tried = [one for grid in grids.values() for runs in grid for one in runs]
        finished = partial(_finished, plan, journal, cluster)
        found = finished("train", tried)
        chosen = {name: _best([[found[one.key] for one in runs] for runs in grid]) for name, grid in grids.items()}
        winners = {
            name: [run(name, plan.methods[name].grid[at], seed) for seed in plan.seeds]
            for name, at in chosen.items()
            if at is not None
        }
        final = [one for runs in winners.values() for one in runs]
        for one in tried:
            if one not in final:
                shutil.rmtree(one.folder(plan), ignore_errors=True)
        found |= finished("train", final)
        base = run(BASE, {}, 0)
        reports = finished("test", [base, *(one for one in final if not found[one.key]["failed"])])
        journal.finish([one["id"] for one in [*found.values(), *reports.values()]])
    record = record_of(plan, grids, winners, base, found, reports)
    record |= {"model": plan.model, "splits": counts, "command": command, "versions": versions()}
    write_json(Path(plan.out) / "compare.json", record)
    return record


def _start(plan: Plan, splits: rows.Splits) -> dict[str, Any]:
    """Fill the reference cache that all runs share; what a run follows from besides its rows and own settings."""
    specs = [LOSSES[method.loss_type] for method in plan.methods.values()]
    mismatched, reference = (any(getattr(spec, name) for spec in specs) for name in ("mismatched", "reference"))
    config = plan.config("kto" if mismatched else "bnf" if reference else "nll_pll", {}, **rows.ALREADY_READ)
    loaded = load(plan.model, trainable=True, **plan.model_kwargs)
    autocast = "bfloat16" if config.bf16 else None
    model = namespace_of(loaded.model, autocast=None, head=config.head, device=config.device.type)
    logger.warning("\n".join(splits.report.lines()))
    _, tokenizer, _ = starting_point(loaded.model, loaded.tokenizer, {"train": splits.rows["train"]}, config)
    return {
        "model": model,
        "autocast": autocast,
        "tokenizer": [tokenizer.get_vocab(), tokenizer.chat_template, tokenizer.special_tokens_map],
        "settings": plan.settings,
        "adapter": plan.adapter and plan.adapter.to_dict(),
        "versions": versions(),
        "chosen by": about(plan.evaluations[plan.choose_by], "validation"),
    }


def _finished(plan: Plan, journal: Journal, cluster: Any, kind: str, runs: Sequence[Run]) -> Found:
    """What came of each run: from the journal what is there, and the others run now."""
    named = {one.id(kind): one for one in runs}
    missing = [one for name, one in named.items() if name not in journal.done]
    if kind == "test":  # a model may be gone that was not chosen before, and is now
        gone = [one for one in missing if one.method != BASE and not (one.folder(plan) / "run.json").exists()]
        for _ in each(train, plan, gone, cluster):
            pass
    logger.warning(f"{kind}: {len(named):,} runs, {len(named) - len(missing):,} of them done before")
    for number, found in enumerate(each(train if kind == "train" else test, plan, missing, cluster), start=1):
        journal.append([found], sync=True)
        logger.warning(f"  {number}/{len(missing)} {found['title']}: {found.get('failed') or 'done'}")
    done = journal.rows()
    return {one.key: done[name] for name, one in named.items()}


def _best(points: Sequence[Sequence[Mapping[str, Any]]]) -> int | None:
    """The point with the highest mean on the validation split, the first of equal ones; None if all have diverged."""
    means = [mean_of_first(results) for results in points]
    known = [mean for mean in means if mean is not None]
    return means.index(max(known)) if known else None
