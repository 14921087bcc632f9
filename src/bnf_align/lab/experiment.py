"""One training run of the tiny world, measured as it goes; and many of them, resumable, in parallel processes."""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import product, zip_longest
from multiprocessing import get_context
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, TrainerCallback
from transformers.trainer_callback import ProgressCallback

from bnf_align.config import PreferenceConfig
from bnf_align.construct.select import Choice, select
from bnf_align.data.responses import MicroBatch, Responses
from bnf_align.data.tokenize import tokenize_rows
from bnf_align.journal import read_jsonl
from bnf_align.lab.claims import BASE, Run
from bnf_align.lab.runs import Settings, base_model, common
from bnf_align.lab.sample import TEMPERATURE, answers_with_thumbs, complete, generations, outcomes
from bnf_align.lab.world import MATH, SORT, Skill, draw_prompts
from bnf_align.logps import completion_logps
from bnf_align.losses import LOSSES
from bnf_align.records import BadInput, DataReport
from bnf_align.training.health import Metrics
from bnf_align.training.record import versions
from bnf_align.training.trainer import PreferenceTrainer

logger = logging.getLogger(__name__)

Row = dict[str, Any]

FIRST_SEED = 20
"""The quickstart's settings were chosen and checked on smaller ones."""
NEAR = 3
"""Words that a pair of near-identical answers may differ in, of 20."""


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    base: Settings = field(default_factory=lambda: Settings(prompts=500, eval_prompts=1000))
    steps: tuple[int, ...] = (15, 45)
    """Where a run is measured; the last one ends it. The learning rate is constant after the warm-up, so the first
    15 steps of 45 are a run of 15."""
    warmup: int = 5
    validation: int = 100
    """Prompts to choose settings by; those of the test are others."""
    test: int = 200
    others: int = 100
    """Prompts of each measurement beside sampled `math`."""


SIZES = Sizes()

OPTIMIZERS: dict[str, Row] = {
    "adamw": {},
    "adamw eps 1e-4": {"adam_epsilon": 1e-4},
    "sgd momentum 0.9": {"optimizer_cls_and_kwargs": (torch.optim.SGD, {"momentum": 0.9})},
}


def pairs(scored: Sequence[Row], seed: int, near: bool | None = None, **choice: Any) -> list[Row]:
    """Best against worst of each prompt; only those at most `NEAR` words apart, or only the others."""
    found = select(scored, Choice(seed=seed, **choice)).rows
    return found if near is None else [row for row in found if (distance(row) <= NEAR) is near]


def distance(pair: Mapping[str, str]) -> int:
    """Words in which the answers of a pair differ, place by place; a missing word differs."""
    return sum(a != b for a, b in zip_longest(pair["chosen"].split(), pair["rejected"].split()))


def thumbs(scored: Sequence[Row], seed: int, ups: float = 0.5, wrong: float = 0.0) -> list[Row]:
    """Single answers, as many whatever the share of `ups`; a share of the thumbs is `wrong`."""
    random = Random(f"thumbs {seed}")
    rows = select(scored, Choice(unpaired=True, threshold=1.0)).rows
    sides = {label: [row for row in rows if row["label"] is label] for label in (True, False)}
    count = min(map(len, sides.values()))
    kept = random.sample(sides[True], round(ups * count)) + random.sample(sides[False], round((1 - ups) * count))
    turned = set(random.sample(range(len(kept)), round(wrong * len(kept))))
    return [row | {"label": row["label"] is not (number in turned)} for number, row in enumerate(kept)]


DATA: dict[str, Callable[[Sequence[Row], int], list[Row]]] = {
    "pairs": pairs,
    **{f"pairing {ratio} %": partial(pairs, pairing_ratio=ratio / 100) for ratio in (0, 25, 50)},
    "near pairs": partial(pairs, near=True),
    "far pairs": partial(pairs, near=False),
    **{f"ups {share} %": partial(thumbs, ups=share / 100) for share in (0, 5, 25, 50, 75, 95, 100)},
    **{f"wrong {share} %": partial(thumbs, wrong=share / 100) for share in (5, 15, 30)},
}
"""What a run trains on, from the base's scored answers and the seed."""


@dataclass(frozen=True)
class World:
    """What all runs of a seed share."""

    base: Path
    tokenizer: PreTrainedTokenizerBase
    scored: list[Row]
    """The base's answers with their scores, of which every data set is made."""
    held_out: dict[str, list[str]]
    """Prompts of each skill that nothing is trained on."""
    unseen: MicroBatch
    """Pairs of the base's answers to held-out prompts, with the base's log-probabilities as `ref_logps`."""
    near: Tensor
    """(rows of `unseen`,) bool: whether the answer belongs to a near-identical pair."""


@cache
def world(folder: Path, seed: int, sizes: Sizes) -> World:
    """Train the base and sample its answers, or find both in `folder`."""
    held_out = {
        skill.name: draw_prompts(skill, sizes.base.eval_prompts, f"evaluation {skill.name} {seed}")
        for skill in (MATH, SORT)
    }
    base, reused = base_model(folder / f"base-{seed}", seed, sizes.base, held_out)
    tokenizer, model = AutoTokenizer.from_pretrained(base), AutoModelForCausalLM.from_pretrained(base)
    scored = {}
    for name, prompts in {
        "train": draw_prompts(MATH, sizes.base.prompts, f"preferences {seed}", avoid=set(held_out[MATH.name])),
        "unseen": held_out[MATH.name][-2 * sizes.others :],  # no accuracy is measured on these
    }.items():
        place = folder / f"{name}-{seed}"
        if not (reused and (place / "preferences.jsonl").exists()):
            answers_with_thumbs(model, tokenizer, MATH, prompts, sizes.base.samples, seed, place)
        scored[name] = list(read_jsonl(place / "scored.jsonl"))
    rows = [row | {"row": number} for number, row in enumerate(pairs(scored["unseen"], seed))]
    responses = Responses(tokenize_rows(rows, tokenizer, DataReport("held-out pairs"), max_length=None))
    unseen = responses.collate(range(len(responses)), tokenizer.pad_token_id)
    with torch.no_grad():
        unseen["ref_logps"] = completion_logps(model.eval(), unseen).logps
    near = torch.tensor([distance(rows[number]) <= NEAR for number in unseen["row"]])
    return World(base, tokenizer, scored["train"], held_out, unseen, near)


@torch.no_grad()
def measure(model: Any, world: World, sizes: Sizes) -> Row:
    """Every number of a row of the results: accuracies as shares, shifts in nats per token.

    `outcomes` holds which test prompts were answered rightly, as bits in hexadecimal, first prompt first.
    """
    model.eval()
    asked = world.held_out[MATH.name][: sizes.validation + sizes.test]
    sampled = generations(model, world.tokenizer, asked)
    right = outcomes(MATH, asked, [one.texts for one in sampled])
    tested = [int(one) for one in right[sizes.validation :]]
    completions = completion_logps(model, world.unseen)
    label, logratio = world.unseen["label"], completions.mean_logratio
    health = Metrics(LOSSES["bnf"], 1.0, logratio.device)
    health.add_completions(completions, label, world.unseen["end"])
    for side, rows in (("chosen", label), ("rejected", ~label)):
        health.add(f"near/shift/{side}", logratio, rows & world.near)
        health.add(f"far/shift/{side}", logratio, rows & ~world.near)
    means = health.read(lambda sums: sums)
    return {
        "validation": mean(right[: sizes.validation]),
        "math_sampled": mean(tested),
        "math_greedy": _accuracy(model, world, MATH, sizes, temperature=0),
        "sort_sampled": _accuracy(model, world, SORT, sizes),
        "sort_greedy": _accuracy(model, world, SORT, sizes, temperature=0),
        "tokens": mean(one.tokens[0] or 0 for one in sampled),
        "endless": mean(one.finish_reasons[0] == "length" for one in sampled),
        **{name: means.get(name) for name in HEALTH},
        "outcomes": f"{int('1' + ''.join(map(str, tested)), 2):x}",
    }


def _accuracy(model: Any, world: World, skill: Skill, sizes: Sizes, temperature: float = TEMPERATURE) -> float:
    prompts = world.held_out[skill.name][sizes.validation :][: sizes.others]
    return mean(outcomes(skill, prompts, complete(model, world.tokenizer, prompts, temperature=temperature)))


ACCURACIES = ("validation", "math_sampled", "math_greedy", "sort_sampled", "sort_greedy")

HEALTH = (
    *(f"{name}/{side}" for name in ("bnf/shift", "near/shift", "far/shift") for side in ("chosen", "rejected")),
    *("bnf/weight/chosen", "bnf/weight/rejected", "bnf/saturated"),
    *("bnf/end_probability/chosen", "bnf/end_probability/rejected"),
)
"""As in training, but on held-out pairs and for every method: log-ratios per token, weights, end probabilities."""


class Measured(TrainerCallback):
    """Measures the model after each of `sizes.steps`."""

    def __init__(self, world: World, sizes: Sizes) -> None:
        self.world, self.sizes, self.rows = world, sizes, list[Row]()

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Between the optimizer's steps."""
        if state.global_step in self.sizes.steps:
            self.rows.append({"step": state.global_step, **measure(model, self.world, self.sizes)})


def measured_run(run: Run, seed: int, folder: Path, sizes: Sizes, deadline: float = math.inf) -> list[Row]:
    """The rows of the results that one run gives, one for each of `sizes.steps`; none where it is too late to start.

    A run whose loss becomes NaN or infinite gives the rows until then, and one with the message as `error`.
    """
    if time.time() > deadline:
        return []
    torch.set_num_threads(1)
    started, here = time.monotonic(), world(folder, seed, sizes)
    about = {"seed": seed, **run._asdict()}
    if run == BASE:
        model = AutoModelForCausalLM.from_pretrained(here.base)
        return [about | {"step": 0, **measure(model, here, sizes)}]
    rows = DATA[run.data](here.scored, seed)
    answers = sum(2 if "chosen" in row else 1 for row in rows)
    settings = dict(OPTIMIZERS[run.optimizer])
    optimizer, arguments = settings.pop("optimizer_cls_and_kwargs", (None, {}))
    config = PreferenceConfig(
        loss_type=run.method,
        loss_kwargs=run.loss_kwargs,
        learning_rate=run.learning_rate,
        batch_size=round(run.responses * len(rows) / answers),
        max_steps=max(sizes.steps),
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=sizes.warmup,
        conflicting_labels="keep",
        ref_cache_dir=str(folder / "cache"),
        logging_strategy="no",
        **settings,
        **common(folder / "model", seed),
    )
    given = (optimizer, {"lr": run.learning_rate, **arguments}) if optimizer else None
    trainer = PreferenceTrainer(str(here.base), config, rows, optimizer_cls_and_kwargs=given)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(measured := Measured(here, sizes))
    try:
        trainer.train()
    except BadInput as error:
        measured.rows.append({"step": trainer.state.global_step, "error": str(error)})
    seconds = round(time.monotonic() - started, 1)
    return [about | row | {"seconds": seconds} for row in measured.rows]


def _prepare(folder: Path, sizes: Sizes, deadline: float, seed: int) -> None:
    if time.time() <= deadline:
        torch.set_num_threads(1)
        world(folder, seed, sizes)


def run_all(
    runs: Sequence[Run],
    seeds: Sequence[int],
    folder: Path,
    results: Path,
    *,
    sizes: Sizes = SIZES,
    minutes: float = math.inf,
    processes: int = 1,
    command: str = "",
) -> int:
    """Add every run on every seed that `results` (a CSV file) lacks, until `minutes` are over.

    All seeds of a run stand one after another, so that what a budget leaves out is whole runs, the last ones.

    Returns:
        How many are still missing.
    """
    there = {(row["run"], row["seed"]) for row in read_results(results)}
    missing = [one for one in product(dict.fromkeys([BASE, *runs]), seeds) if one not in there]
    deadline = time.time() + 60 * minutes
    about = {"command": command, "versions": " ".join(f"{name}={value}" for name, value in versions().items())}
    done = 0
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        # First, so that no two processes make the same one.
        list(pool.map(partial(_prepare, folder, sizes, deadline), sorted({seed for _, seed in missing})))
        jobs = [pool.submit(measured_run, run, seed, folder, sizes, deadline) for run, seed in missing]
        for (run, seed), job in zip(missing, jobs, strict=True):
            if found := job.result():
                done += 1
                append(results, [row | about for row in found])
                logger.info(f"{done}/{len(missing)} {run} seed {seed}: {found[-1].get('math_sampled')}")
    return len(missing) - done


COLUMNS = ("seed", *Run._fields, "step", *ACCURACIES, "tokens", "endless", *HEALTH, "outcomes", "seconds", "error")
COLUMNS += ("command", "versions")


def append(results: Path, rows: Sequence[Row]) -> None:
    """Add the rows of one run to the CSV file, all in one write."""
    results.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if not results.exists():
        writer.writeheader()
    writer.writerows({name: round(v, 5) if isinstance(v, float) else v for name, v in row.items()} for row in rows)
    with results.open("a", encoding="utf-8") as file:
        file.write(text.getvalue())


def read_results(results: Path) -> list[Row]:
    """The rows of the CSV file, numbers as numbers, with their `run`; none where there is no file yet."""
    if not results.exists():
        return []
    with results.open(encoding="utf-8", newline="") as file:
        return [_typed(row) for row in csv.DictReader(file)]


def _typed(row: Mapping[str, str]) -> Row:
    texts = ("method", "data", "loss_kwargs", "optimizer", "outcomes", "error", "command", "versions")
    typed: Row = {name: value if name in texts else float(value or "nan") for name, value in row.items()}
    typed |= {name: int(typed[name]) for name in ("seed", "step", "responses")}
    return typed | {"run": Run(*(typed[name] for name in Run._fields))}
