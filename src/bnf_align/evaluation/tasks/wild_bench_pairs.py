"""WB-Reward: every output compared with a reference's, from the rows of a file to the published numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bnf_align.evaluation.result import EvalResult
from bnf_align.evaluation.task import Row
from bnf_align.evaluation.tasks.one_model import model_of
from bnf_align.evaluation.tasks.wild_bench_items import item_groups, session, tags_of
from bnf_align.evaluation.tasks.wild_bench_reply import read_choice
from bnf_align.evaluation.tasks.wild_bench_scores import output_length
from bnf_align.evaluation.wb_formulas import mixed_reward, outcome, reward, task_macro_reward
from bnf_align.judge.reply import value_of

EMPTY = "[This model response is empty.]"
"""What upstream shows the judge, and stores, for an empty output."""

REFERENCES = ("gpt-4-turbo-2024-04-09", "claude-3-haiku-20240307", "Llama-2-70b-chat-hf")
"""The three models that the leaderboard compares with."""


class Pair(NamedTuple):
    """One comparison."""

    item: str | None
    model: str
    baseline: str
    judge: str | None
    ahead: int | None
    """How far the model is ahead, -2 to 2; None where the judge's word could not be read."""
    length: int
    """Characters of the model's stripped output."""
    baseline_length: int
    truncated: bool
    tags: list[str] | None

    @property
    def whole(self) -> bool:
        """Whether both outputs are there and not cut: others count in the number of comparisons alone."""
        return self.length > 0 and self.baseline_length > 0 and not self.truncated


def shown_output(output: str) -> str:
    """What the judge is shown for `output`."""
    return output if output.strip() else EMPTY


def pair_lengths(output: str, baseline: str) -> Row:
    """What a judgment of ours keeps of the two outputs."""
    (length, cut), (baseline_length, baseline_cut) = output_length(output), output_length(baseline)
    return {"length": length, "baseline_length": baseline_length, "truncated": cut or baseline_cut}


def is_pair(row: Row) -> bool:
    """Whether a row compares two outputs."""
    return "model_outputs" in row or ("baseline_length" in row and "game" in row)


def pair_models(row: Row) -> set[str]:
    """The models that a pair row may speak of: upstream's does not say which of the two is the reference."""
    if "model_outputs" not in row:
        return {model_of(row)}
    both = {row["model_A"], row["model_B"]}
    if len(both) < 2:  # a reference beside itself, as in upstream's files of the references
        return set()
    return {name for name in both if name.split("/")[-1] not in REFERENCES} or both


def read_pair(row: Row, model: str) -> Pair:
    """A pair row, ours or upstream's, as seen by `model`."""
    if "model_outputs" in row:
        return _upstream(row, model)
    sign = -1 if row["game"] == 1 else 1  # in game 1 the reference is A
    of_a = read_choice(value_of(row["judgment"], "choice"))
    return Pair(
        item=session(row),
        model=model,
        baseline=str(row.get("baseline", "the reference")),
        judge=row.get("judge"),
        ahead=None if of_a is None else sign * of_a,
        length=row["length"],
        baseline_length=row["baseline_length"],
        truncated=bool(row.get("truncated")),
        tags=tags_of(row),
    )


def _upstream(row: Row, model: str) -> Pair:
    is_a = row["model_A"] == model
    baseline = row["model_B" if is_a else "model_A"]
    outputs = {name: "" if text.strip() == EMPTY else text for name, text in row["model_outputs"].items()}
    of_a = read_choice((row.get("parsed_result") or {}).get("choice"))
    return Pair(
        item=session(row),
        model=model,
        baseline=baseline,
        judge=row.get("judge"),
        ahead=_recorded(row, model) if of_a is None else of_a if is_a else -of_a,
        tags=tags_of(row),
        **pair_lengths(outputs[model], outputs[baseline]),
    )


def _recorded(row: Row, model: str) -> int | None:
    """The verdict of a file that has left the judge's reply out: the `winner`'s name or "tie", and by how much."""
    if row.get("parsed_result") or "winner" not in row:
        return None
    if row["winner"] == "tie":
        return 0
    return int(row["extent"]) if row["winner"] == model else -int(row["extent"])


def add_rewards(
    result: EvalResult, pairs: Sequence[Pair], tags: Mapping[str, Sequence[str]], length_margin: int
) -> None:
    """Put WB-Reward into `result`, for each reference and their mean, with what was left out."""
    by_baseline: dict[str, list[Pair]] = defaultdict(list)
    for pair in pairs:
        if pair.ahead is None:
            reason = "the judge's reply has none of the five choices as its own key"
            result.drop(reason, f"{pair.item} ({pair.baseline})")
        else:
            by_baseline[pair.baseline].append(pair)
    counted = {name: _outcomes(found, length_margin) for name, found in by_baseline.items()}
    rewards = {
        name: reward(Counter(outcomes for _, outcomes in counted[name]), total=len(found))
        for name, found in by_baseline.items()
    }
    macros = [_macro(found, tags) for found in counted.values()]
    known = [value for value in macros if value is not None]
    result.metrics |= {
        "wb_reward": mixed_reward(rewards.values()) if rewards else None,
        "wb_reward_macro": mixed_reward(known) if known and len(known) == len(macros) else None,
        "pairs": sum(map(len, by_baseline.values())),
    }
    if len(rewards) > 1:
        result.metrics |= {f"wb_reward/{name}": value for name, value in rewards.items()}
    result.items += [
        {"id": pair.item, "baseline": name, "outcome": found} for name in counted for pair, found in counted[name]
    ]
    result.notes.append(
        f"wb_reward is in [-1, 1] against {', '.join(by_baseline) or 'nobody'}, with K = {length_margin}: a slight "
        "win of an output longer by more characters is a tie"
    )


def _outcomes(pairs: Sequence[Pair], margin: int) -> list[tuple[Pair, str]]:
    """The comparisons that count, named."""
    return [
        (pair, outcome(pair.ahead, pair.length, pair.baseline_length, margin))
        for pair in pairs
        if pair.whole and pair.ahead is not None
    ]


def _macro(counted: Sequence[tuple[Pair, str]], tags: Mapping[str, Sequence[str]]) -> float | None:
    """The weighted mean over task groups; None where an item has no tags."""
    known: dict[str, Any] = {str(pair.item): tags.get(str(pair.item), pair.tags) for pair, _ in counted}
    if not counted or not all(known.values()):
        return None
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for (_, name), groups in zip(counted, item_groups([str(pair.item) for pair, _ in counted], known), strict=True):
        for group in groups:
            counts[group][name] += 1
    return task_macro_reward(counts)
