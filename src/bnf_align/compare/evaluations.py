"""What a model gets on held-out rows, a benchmark, prompts with a rule, or texts: one number for every prompt."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bnf_align.config import PreferenceConfig
from bnf_align.construct.prompts import as_messages, read_prompts
from bnf_align.construct.scorers.verifier import Verifier
from bnf_align.data.ledger import canonical
from bnf_align.data.read import iter_rows
from bnf_align.data.rows import preference_rows
from bnf_align.engines import Sampling
from bnf_align.engines.local import LocalEngine
from bnf_align.evaluation.held_out import measure
from bnf_align.evaluation.items import load_items
from bnf_align.evaluation.run import run
from bnf_align.evaluation.score import task_named
from bnf_align.evaluation.task import EvalResult, JudgedTask, Row, Task
from bnf_align.evaluation.tasks import TASKS
from bnf_align.journal import read_jsonl
from bnf_align.models import Loaded
from bnf_align.records import BadInput
from bnf_align.stats import auc_values

BASE = "base"
Outcomes = dict[str, dict[str, float]]
"""Measure -> prompt -> value: shares, or nats per token."""


@dataclass(frozen=True)
class Evaluation:
    """The held-out rows themselves (`held_out`), or exactly one of `task`, `rule` and `likelihood`."""

    name: str
    task: str | None = None
    """A benchmark that needs no judge; its items come from `data`, or from the hub."""
    rule: str | None = None
    """As in `score --rule`: right or wrong, of the answers to the prompts in `data`."""
    likelihood: str | None = None
    """A file of rows: the mean log-probability per token of what is preferred in them."""
    data: str | None = None
    validation: str | None = None
    """Items of their own to choose settings by, where `choose_by` names this evaluation."""
    limit: int | None = None
    """The first so many items."""
    temperature: float = 0.0
    max_new_tokens: int = 1024
    chat: bool = False
    """Whether text prompts go through the chat template; else the model goes on with them."""
    tax: bool = False
    """Whether a loss against the base is alignment tax."""

    def check(self) -> bool:
        """Read the items.

        Raises:
            BadInput: If they, the task, the rule or its right answers are not there, or items to choose by are among
                those reported.
        """
        kinds = [kind for kind in ("task", "rule", "likelihood") if getattr(self, kind)]
        if len(kinds) != (self.name != "held_out"):
            given = " and ".join(kinds) or "none of them"
            raise BadInput(f"one of task, rule and likelihood is needed (held_out takes none), not {given}.")
        if self.rule and not self.data:
            raise BadInput("prompts for the rule are needed: `data: FILE`.")
        if self.task and (isinstance(task := task_named(self.task), JudgedTask) or not task.template):
            raise BadInput(
                f"{self.task} needs more than a model's answers. Take one of gsm8k, ifeval, ..., or a rule."
            )
        Sampling(self.temperature, max_new_tokens=self.max_new_tokens)
        tested, validated = self.items(), self.items("validation")
        if self.rule:
            Verifier(self.rule).check([*tested, *validated])
        shared = {canonical(_prompt(item)) for item in tested}
        if twice := [item for item in validated if canonical(_prompt(item)) in shared]:
            raise BadInput(f"{len(twice):,} items to choose by are among those that are reported: take them out.")
        return True

    @property
    def generates(self) -> bool:
        """Whether the model answers, where it is otherwise given answers."""
        return bool(self.task or self.rule)

    @property
    def asks(self) -> Task:
        """The benchmark, or the rule as one."""
        return TASKS[self.task] if self.task else Rule(Verifier(str(self.rule)))

    def items(self, split: str = "test") -> list[Row]:
        """The items of a split; of the validation split none, where the evaluation has none of its own."""
        source = self.data if split == "test" else self.validation
        if self.name == "held_out" or (split == "validation" and source is None):
            return []
        if self.rule:
            found = read_prompts(str(source), limit=self.limit)
            return as_messages(found) if self.chat else found
        if self.likelihood:
            return preference_rows(iter_rows(self.likelihood), source=self.likelihood)[0][: self.limit]
        return load_items(self.asks, source, self.limit)

    def of(self, split: str, rows: Sequence[Row], loaded: Loaded, config: PreferenceConfig, out: Path) -> Outcomes:
        """A model's values on the items of a split, `validation` or `test`, whose held-out rows are `rows`.

        Answers or log-probabilities go to the file `out`; what is there already is not made again.
        """
        if self.generates:
            return self._answers(self.items(split), loaded, out)
        rows = self.items(split) if self.likelihood else rows
        options = {name: getattr(config, name) for name in ("max_length", "merge_system_prompt", "score_thoughts")}
        budget = config.max_tokens_per_micro_batch
        done = measure(rows, *loaded[:2], out, name="", max_tokens=budget, conflicting_labels="keep", **options)
        prompts = {str(row.get("row", number)): canonical(row["prompt"]) for number, row in enumerate(rows)}
        found: dict[str, list[Row]] = {}
        for response in read_jsonl(done.path):
            found.setdefault(response["side"], []).append(response)
        logp, mean = (
            {
                side: np.array([one["logp"] / (one["tokens"] if each else 1) for one in of])
                for side, of in found.items()
            }
            for each in (False, True)
        )

        def named(*sides: str) -> list[str]:
            return [prompts[str(one["item"])] for side in sides for one in found.get(side, [])]

        if self.likelihood:
            kept = [side for side in ("chosen", "up") if side in found]
            return {"logp_per_token": by_prompt(np.concatenate([mean[side] for side in kept]), named(*kept))}
        outcomes = {}
        if "chosen" in found:
            gaps = logp["chosen"] - logp["rejected"]
            outcomes["accuracy"] = by_prompt((gaps > 0) + 0.5 * (gaps == 0), named("chosen"))
        if {"up", "down"} <= found.keys():
            outcomes["auc_per_token"] = by_prompt(auc_values(mean["up"], mean["down"]), named("up", "down"))
        return outcomes

    def _answers(self, items: Sequence[Row], loaded: Loaded, out: Path) -> Outcomes:
        sampling = Sampling(temperature=self.temperature, max_new_tokens=self.max_new_tokens)
        engine = LocalEngine(loaded.model, loaded.tokenizer, "")
        scored = self.asks.score(list(read_jsonl(run(self.asks, items, engine, out, sampling=sampling).path)))
        values: dict[str, tuple[list[float], list[str]]] = {}
        for item in scored.items:
            whole = {"accuracy": [item["correct"]]}
            if "strict" in item:  # of IFEval, which has two levels
                whole = {"prompt_strict": [item["correct"]], "instruction_strict": item["strict"]}
            for measure_name, of in whole.items():
                numbers, prompts = values.setdefault(measure_name, ([], []))
                numbers += [float(one or 0) for one in of]
                prompts += [str(item["id"])] * len(of)
        return {name: by_prompt(np.array(numbers), prompts) for name, (numbers, prompts) in values.items()}


@dataclass(frozen=True)
class Rule(Task):
    """Prompts whose answers a verifier finds right or wrong."""

    verifier: Verifier
    name = "rule"
    version = 1
    template = "{prompt}"

    def prompt(self, item: Row, template: str | None = None) -> Any:
        """The prompt as it stands, a text or messages."""
        return item["prompt"]

    def score(self, rows: Sequence[Row], **_: Any) -> EvalResult:
        """The verdict on each answer; BadInput if a verdict is none, or not from 0 to 1."""
        asked = [
            {**row, "candidates": [{"text": row["output"], "finish_reason": row["finish_reason"]}]} for row in rows
        ]
        found = {one.id: one.scores[0] for batch in self.verifier.score(asked) for one in batch}
        if bad := [name for name, value in found.items() if value is None or not 0 <= value <= 1]:
            raise BadInput(
                f"{self.verifier.name} gives {found[bad[0]]} for the answer to {bad[0]!r}, and {len(bad):,} such "
                "verdicts in all: a comparison needs right or wrong, or a share from 0 to 1, of every answer."
            )
        return EvalResult(self.name, 1, items=[{"id": name, "correct": value} for name, value in found.items()])


def by_prompt(values: np.ndarray, prompts: Sequence[str]) -> dict[str, float]:
    """One value for each prompt, whose mean over prompts is that of `values`.

    Where prompts have several values these are no means of theirs but what they add to the mean: a prompt with twice
    as many counts twice, and what is said about one prompt hangs together.
    """
    names = list(dict.fromkeys(prompts))
    if len(names) < len(values):
        place = {name: at for at, name in enumerate(names)}
        sums = np.bincount([place[name] for name in prompts], values - values.mean())
        values = values.mean() + sums * len(names) / len(values)
    return dict(zip(names, map(float, values), strict=True))


def answers_summary(rows: Iterable[Row]) -> dict[str, float]:
    """Of generated answers: mean tokens, the share that never ended, and of triples of words that are different."""
    rows = list(rows)
    words = [row["output"].split() for row in rows]
    triples = [triple for one in words for triple in zip(one, one[1:], one[2:], strict=False)]
    return {
        "tokens": float(np.mean([row["tokens"] for row in rows])),
        "never_ended": float(np.mean([row["finish_reason"] == "length" for row in rows])),
        "distinct_3": len({*triples}) / max(len(triples), 1),
    }


def _prompt(item: Mapping[str, Any]) -> Any:
    return item.get("prompt", item.get("question", item))


def about(evaluation: Evaluation, split: str) -> dict[str, Any]:
    """What an evaluation's numbers follow from besides the model and the held-out rows."""
    asked = evaluation.asks if evaluation.generates else None
    rule = asked.verifier.card if isinstance(asked, Rule) else None
    version = asked.version if asked else None
    return asdict(evaluation) | {"code": rule, "version": version, "items": evaluation.items(split)}
