"""WB-Score and WB-Reward: from the items and the rows of a file to the published numbers.

Source of the rules: allenai/WildBench d6b8dca, `leaderboard/data_dir/_create_tables.py` and `_merge_results.py` (the
macro average in `src/view_wb_eval.py` is an older, unweighted one).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from bnf_align.evaluation.task import EvalResult, Row, model_of, one_model
from bnf_align.judge.reply import read_score, value_of
from bnf_align.records import BadInput

Tags = Mapping[str, Any] | Iterable[Row]
"""Session id -> its tags, primary first (a list, or `primary_tag` and `secondary_tags`); or rows with the id."""


def session(row: Row) -> str | None:
    """The item a row speaks of: `id` is that of the judgment where a judgment of ours has one."""
    return next((str(row[key]) for key in ("item", "session_id", "id") if key in row), None)


def tags_of(row: Row) -> list[str] | None:
    """The tags of an item or a judgment, primary first; None where it has none."""
    return [row["primary_tag"], *(row.get("secondary_tags") or [])] if row.get("primary_tag") else None


def tag_table(tags: Tags) -> dict[str, list[str]]:
    """Session id -> tags, primary first.

    Raises:
        BadInput: If they are no texts.
    """
    if isinstance(tags, Mapping):
        return {str(name): found for name, value in tags.items() if (found := _listed(value))}
    return {str(session(row)): found for row in tags if (found := _listed(row.get("tags", row)))}


def _listed(value: Any) -> list[str] | None:
    if isinstance(value, Mapping):
        return tags_of(dict(value))
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(tag, str) for tag in found):
        raise BadInput(f"{value!r} is no task tag, and no list of them: mend the file of --tags.")
    return found


def item_groups(items: Sequence[str], tags: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The task groups of each item, each once.

    >>> item_groups(["s"], {"s": ["Planning", "Reasoning", "Math"]})
    [['Planning & Reasoning', 'Math & Data Analysis']]

    Raises:
        BadInput: If a tag is not one of WildBench's 12.
    """
    if odd := sorted({tag for item in items for tag in tags[item]} - GROUP_OF_TAG.keys()):
        raise BadInput(
            f"WildBench has no tag {', '.join(map(repr, odd))}, so the items that carry it are in no group. Its tags "
            f"are {', '.join(GROUP_OF_TAG)}: mend the file of --tags."
        )
    return [list(dict.fromkeys(GROUP_OF_TAG[tag] for tag in tags[item])) for item in items]


GROUP_WEIGHTS = {
    "Creative Tasks": 0.5,
    "Planning & Reasoning": 1.25,
    "Math & Data Analysis": 1.0,
    "Information/Advice seeking": 0.75,
    "Coding & Debugging": 1.25,
}
"""What a group of tasks counts in the macro average; 4.75 in all."""

GROUP_OF_TAG = {
    "Information seeking": "Information/Advice seeking",
    "Advice seeking": "Information/Advice seeking",
    "Creative Writing": "Creative Tasks",
    "Editing": "Creative Tasks",
    "Brainstorming": "Creative Tasks",
    "Role playing": "Creative Tasks",
    "Others": "Creative Tasks",
    "Coding & Debugging": "Coding & Debugging",
    "Reasoning": "Planning & Reasoning",
    "Planning": "Planning & Reasoning",
    "Math": "Math & Data Analysis",
    "Data Analysis": "Math & Data Analysis",
}

OUTCOMES = {2: "win_much", 1: "win", 0: "tie", -1: "lose", -2: "lose_much"}
"""How far the model is ahead of the reference -> upstream's name."""

REWARDS = {"win_much": 1.0, "win": 0.5, "tie": 0.0, "lose": -0.5, "lose_much": -1.0}


def adjusted(mean: float) -> float:
    """A mean judge score, 1 to 10, on the published scale: 5 is 0 and 10 is 100."""
    return (mean - 5) * 2 * 10


def category_scores(scores: Sequence[float], groups: Sequence[Collection[str]]) -> dict[str, float]:
    """Group -> adjusted mean score of the items that carry it; an item counts in each of its groups.

    Args:
        scores: 1 to 10, of the items with an output that is neither empty nor truncated.
        groups: Of each item, from `item_groups`.
    """
    of_group: dict[str, list[float]] = {}
    for score, names in zip(scores, groups, strict=True):
        for name in set(names):
            of_group.setdefault(name, []).append(score)
    return {name: adjusted(sum(of_group[name]) / len(of_group[name])) for name in GROUP_WEIGHTS if name in of_group}


def macro(categories: Mapping[str, float]) -> float:
    """The weighted mean over the five groups: of `category_scores` the reported WB-Score.

    As upstream, a group without an item counts as 0, the value of a mean score of 5.
    """
    return sum(value * GROUP_WEIGHTS[name] for name, value in categories.items()) / sum(GROUP_WEIGHTS.values())


def outcome(ahead: int, length: int, reference_length: int, margin: int = -1) -> str:
    """The name of a verdict under WB-Reward's length rule.

    Args:
        ahead: 2, 1, 0, -1, -2: the model much better, slightly better, a tie, and the reference likewise.
        length: Characters of the model's output.
        reference_length: Characters of the reference's.
        margin: K: a slight win of an output longer by more than this is a tie. Below 0 there is no such rule; the
            leaderboard's default is 500.
    """
    longer = length - reference_length if ahead > 0 else reference_length - length
    return OUTCOMES[0 if abs(ahead) == 1 and 0 <= margin < longer else ahead]


def reward(counts: Mapping[str, int], total: int | None = None) -> float:
    """WB-Reward in [-1, 1] from the number of verdicts of each name.

    Args:
        counts: Name of `OUTCOMES` -> number of items.
        total: All judged items, of which upstream leaves those with an empty or truncated output out of `counts` but
            not out of the mean; None takes the sum of `counts`.
    """
    points = sum(REWARDS[name] * counts.get(name, 0) for name in REWARDS)
    return points / (total if total is not None else sum(counts.get(name, 0) for name in REWARDS))


CHOICES = {"A++": 2, "A+": 1, "A=B": 0, "B+": -1, "B++": -2}
"""The judge's choice -> how far response A is ahead of B."""


def read_choice(value: Any) -> int | None:
    """How far response A is ahead, from one of the five choices; None for anything else."""
    return CHOICES.get(value.strip()) if isinstance(value, str) else None


TRUNCATED = "... (truncated)"
"""How upstream ends an output that it has cut."""

VERDICTS = ("judgment", "judge_json", "parsed_result", "score")
"""Where a row may hold the judge's word, the judge's own text first."""


class Scored(NamedTuple):
    """One output and what the judge gave for it."""

    item: str | None
    model: str
    judge: str | None
    judged: bool
    score: float | None
    """None where the judge's word could not be read."""
    length: int | None
    """Characters of the stripped output."""
    truncated: bool
    tags: list[str] | None

    @property
    def whole(self) -> bool:
        """Whether the output is there and not cut: others count in the plain score alone."""
        return self.length != 0 and not self.truncated


def read_scored(row: Row) -> Scored:
    """A judgment row of ours, of upstream's score files or of the data folder; an answer row is not judged yet."""
    length, truncated = output_length(row.get("model_output", row.get("output")))
    if length is None:
        length, truncated = row.get("output_chars_stripped", row.get("output_chars")), bool(row.get("truncated"))
    return Scored(
        item=session(row),
        model=model_of(row),
        judge=row.get("judge"),
        judged=any(name in row for name in VERDICTS),
        score=read_score(_verdict(row)),
        length=length,
        truncated=truncated,
        tags=tags_of(row),
    )


def with_lengths(scored: Sequence[Scored], answers: Sequence[Row], model: str) -> list[Scored]:
    """`scored` with the lengths of `answers` where they have none.

    Raises:
        BadInput: If there are answers, but none of `model`.
    """
    name = one_model(map(model_of, answers), model) if answers else ""
    found = {one.item: one for one in map(read_scored, answers) if one.model == name}
    return [
        row._replace(length=found[row.item].length, truncated=found[row.item].truncated)
        if row.length is None and row.item in found
        else row
        for row in scored
    ]


def output_length(output: Any) -> tuple[int | None, bool]:
    """Characters of an output without the blanks around it, and whether it was cut."""
    text = output[0] if isinstance(output, list) and output else output
    return (len(text.strip()), text.strip().endswith(TRUNCATED)) if isinstance(text, str) else (None, False)


def _verdict(row: Row) -> Any:
    source = next((name for name in VERDICTS if row.get(name) is not None), None)
    if source is None or source == "score":
        return row.get("score")
    told = row[source]
    return told.get("score") if isinstance(told, Mapping) else value_of(told, "score")


def add_scores(result: EvalResult, rows: Sequence[Scored], tags: Mapping[str, Sequence[str]]) -> None:
    """Put WB-Score, its plain form and the average length into `result`, with what was left out.

    The plain score is over all judged outputs; the weighted one and the length leave empty and cut outputs out, as
    upstream's leaderboard/data_dir/_create_tables.py.
    """
    judged = [row for row in rows if row.score is not None]
    for row in rows:
        if row.judged and row.score is None:
            result.drop("the judge's reply has no score from 0 to 10 as its own key", str(row.item))
    if not any(row.judged for row in rows):
        result.notes.append("the rows are answers: their scores need a judge (`bnf-align eval judge`)")
    scores = [row.score for row in judged if row.score is not None]
    whole = [row for row in (judged or rows) if row.whole]
    lengths = [row.length for row in whole if row.length is not None]
    result.metrics |= {
        "wb_score": None,
        "wb_score_plain": adjusted(sum(scores) / len(scores)) if scores else None,
        "average_length": sum(lengths) / len(lengths) if lengths else None,
        "total": len(judged),
    }
    _add_weighted(result, [row for row in whole if row.score is not None], tags)
    result.items += [
        {"id": row.item, "score": row.score, "length": row.length} | ({"truncated": True} if row.truncated else {})
        for row in judged
    ]
    if (repeated := len(judged) - len({row.item for row in judged})) > 0:
        result.notes.append(f"{repeated:,} judgments repeat an item, and count again")


def _add_weighted(result: EvalResult, whole: Sequence[Scored], tags: Mapping[str, Sequence[str]]) -> None:
    known = {row.item: tags.get(str(row.item), row.tags) for row in whole}
    missing = [item for item, found in known.items() if not found]
    if not whole or missing:
        if whole:
            result.notes.append(
                f"wb_score is not measured: {len(missing):,} of {len(known):,} items have no task tags, which the v2 "
                "data set brings (--tags FILE)"
            )
        return
    groups = item_groups([str(row.item) for row in whole], {str(item): found or [] for item, found in known.items()})
    categories = category_scores([row.score or 0.0 for row in whole], groups)
    result.metrics["wb_score"] = macro(categories)
    result.metrics |= {f"wb_score/{name}": value for name, value in categories.items()}
    if absent := [name for name in GROUP_WEIGHTS if name not in categories]:
        result.notes.append(f"no item of {', '.join(absent)}: such a group counts as 0 in wb_score, as upstream")


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
        is_a = row["model_A"] == model
        baseline = row["model_B" if is_a else "model_A"]
        outputs = {name: "" if text.strip() == EMPTY else text for name, text in row["model_outputs"].items()}
        sizes, told = pair_lengths(outputs[model], outputs[baseline]), (row.get("parsed_result") or {}).get("choice")
    else:
        is_a, baseline = row["game"] != 1, str(row.get("baseline", "the reference"))
        sizes = {"length": row["length"], "baseline_length": row["baseline_length"]}
        sizes["truncated"], told = bool(row.get("truncated")), value_of(row["judgment"], "choice")
    of_a = read_choice(told)
    ahead = of_a if of_a is None or is_a else -of_a
    if of_a is None and "model_outputs" in row and not row.get("parsed_result") and "winner" in row:
        # A file that has left the judge's reply out: the `winner`'s name or "tie", and by how much.
        ahead = 0 if row["winner"] == "tie" else int(row["extent"]) * (1 if row["winner"] == model else -1)
    about = {"item": session(row), "model": model, "baseline": baseline, "judge": row.get("judge")}
    return Pair(**about, ahead=ahead, tags=tags_of(row), **sizes)


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
    rewards: dict[str, float] = {}
    macros = []
    for name, found in by_baseline.items():
        counted = [
            (pair, outcome(pair.ahead, pair.length, pair.baseline_length, length_margin))
            for pair in found
            if pair.whole and pair.ahead is not None
        ]
        rewards[name] = reward(Counter(verdict for _, verdict in counted), total=len(found))
        macros.append(_macro(counted, tags))
        result.items += [{"id": pair.item, "baseline": name, "outcome": verdict} for pair, verdict in counted]
    known = [value for value in macros if value is not None]
    result.metrics |= {
        "wb_reward": fmean(rewards.values()) if rewards else None,
        "wb_reward_macro": fmean(known) if known and len(known) == len(macros) else None,
        "pairs": sum(map(len, by_baseline.values())),
    }
    if len(rewards) > 1:
        result.metrics |= {f"wb_reward/{name}": value for name, value in rewards.items()}
    result.notes.append(
        f"wb_reward is in [-1, 1] against {', '.join(by_baseline) or 'nobody'}, with K = {length_margin}: a slight "
        "win of an output longer by more characters is a tie"
    )


def _macro(counted: Sequence[tuple[Pair, str]], tags: Mapping[str, Sequence[str]]) -> float | None:
    """The weighted mean over task groups; None where an item has no tags."""
    known: dict[str, Any] = {str(pair.item): tags.get(str(pair.item), pair.tags) for pair, _ in counted}
    if not counted or not all(known.values()):
        return None
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for (_, name), groups in zip(counted, item_groups([str(pair.item) for pair, _ in counted], known), strict=True):
        for group in groups:
            counts[group][name] += 1
    return macro({name: reward(found) for name, found in counts.items()})
