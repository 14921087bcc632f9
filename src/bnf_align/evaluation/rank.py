"""Numbers that need several models: WB-Elo, length- and style-controlled win rates, and ranks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnf_align.evaluation.control import LENGTH, STYLE, Style, controlled_win_rates, markdown_style
from bnf_align.evaluation.elo import ScoredOutput, virtual_votes, wb_elo
from bnf_align.evaluation.ranks import competition_ranks
from bnf_align.evaluation.ratings import Battle
from bnf_align.evaluation.score import CARD, card_of, model_name, score_outputs, task_named
from bnf_align.evaluation.task import UNNAMED, EvalResult, Row, model_of
from bnf_align.evaluation.tasks.arena_hard_games import is_battle, oriented, read
from bnf_align.evaluation.tasks.wild_bench_scores import is_pair, read_scored
from bnf_align.journal import read_jsonl
from bnf_align.records import BadInput

MAIN = {"arena_hard": "win_rate", "wild_bench": "wb_elo"}
"""What models are listed and ranked by; elsewhere `accuracy`."""

Rows = dict[str, list[Row]]
"""Model -> its rows."""


@dataclass
class Ranking:
    """A pool of models on one task. Its pooled numbers hold within this pool alone."""

    task: str
    version: int
    models: dict[str, EvalResult]
    ranks: dict[str, int | None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The ranking as one JSON object; `models` maps each name to its metrics, rank and provenance."""
        models = {
            name: {"metrics": result.metrics, "rank": self.ranks.get(name), "provenance": result.provenance}
            for name, result in self.models.items()
        }
        about = {"task": self.task, "version": self.version, "provenance": self.provenance, "notes": self.notes}
        return about | {"models": models}

    def lines(self) -> list[str]:
        """One line a model, best first."""
        main = MAIN.get(self.task, "accuracy")
        order = sorted(self.models, key=lambda name: (self.ranks.get(name) is None, self.ranks.get(name) or 0, name))
        lines = [f"{self.task} (version {self.version}), {len(order)} models, by {main}"]
        for name in order:
            numbers = {key: value for key, value in self.models[name].metrics.items() if value is not None}
            shown = ", ".join(f"{key} {value:,.2f}" for key, value in numbers.items())
            lines.append(f"  {self.ranks.get(name) or '-':>3}  {name}: {shown}")
        return lines + [f"  note: {note}" for note in self.notes]


def rank_files(
    paths: Sequence[str | Path],
    task_name: str,
    *,
    answers: str | Path | None = None,
    anchors: Mapping[str, float] | None = None,
    seed: int = 42,
) -> Ranking:
    """Rank the models of judgment (or answer) files, a model a file or several in one.

    Args:
        paths: Files as `score_file` reads them.
        task_name: The benchmark.
        answers: Arena-Hard: folder of answer files, the baseline's too; its token counts and texts give
            `win_rate_lc` and `win_rate_style`.
        anchors: WildBench: model -> the Elo it is held by; without, every rating starts at 1000 and has no zero but
            the mean of the pool.
        seed: Of the orders of the votes.

    Raises:
        BadInput: If a file cannot be read, or two files hold the same model.
    """
    task, rows, cards = task_named(task_name), *_by_model(paths, task_name)
    results = {name: score_outputs(task, own, model=name) for name, own in rows.items()}
    for name, result in results.items():
        result.provenance = cards[name] | {key: value for key, value in result.provenance.items() if value is not None}
    ranking = Ranking(task.name, task.version, results, provenance={"seed": seed, "pool": sorted(results)})
    if task_name == "wild_bench":
        _add_elo(ranking, rows, anchors, seed)
    elif task_name == "arena_hard":
        _add_controlled(ranking, rows, answers)
    main = MAIN.get(task_name, "accuracy")
    ranks = competition_ranks([result.metrics.get(main) for result in results.values()])
    ranking.ranks = dict(zip(results, ranks, strict=True))
    return ranking


def read_anchors(path: str | Path) -> dict[str, float]:
    """A JSON file of anchors, model -> Elo."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
        return {str(name): float(elo) for name, elo in value.items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise BadInput(f"--anchors {path}: not a JSON object of model -> Elo ({error}).") from error


def _by_model(paths: Sequence[str | Path], task: str) -> tuple[Rows, dict[str, Row]]:
    rows: Rows = {}
    cards: dict[str, Row] = {}
    for path in map(Path, paths):
        found: Rows = {}
        for row, name in _named(list(read_jsonl(path)), task):
            found.setdefault(name or model_name(path), []).append(row)
        if not found:
            raise BadInput(f"{path} has no rows, so there is no model in it to rank. Leave it out.")
        twice = sorted(found.keys() & rows.keys())
        if twice:
            raise BadInput(f"{path} holds rows of {', '.join(twice)}, and so does a file before it. One file a model.")
        rows |= found
        card = card_of(path)
        about = {key: card[key] for key in CARD if key != "model" and key in card}
        cards |= {name: about | {"file": str(path)} for name in found}
    return rows, cards


def _named(rows: Sequence[Row], task: str) -> Iterator[tuple[Row, str | None]]:
    """Rows with the model each speaks of: of a battle, the side that is not the baseline."""
    battles = {(row["model_a"], row["model_b"]) for row in rows if task == "arena_hard" and is_battle(row)}
    played = {frozenset((model, baseline)): model for model, baseline in oriented(battles)}
    for row in rows:
        if task == "arena_hard" and is_battle(row):
            yield row, played[frozenset((row["model_a"], row["model_b"]))]
        else:
            name = model_of(row)
            yield row, None if name == UNNAMED else name


def _add_elo(ranking: Ranking, rows: Rows, anchors: Mapping[str, float] | None, seed: int) -> None:
    pool: dict[str, dict[str, ScoredOutput]] = {}
    for name, own in rows.items():
        scored = [read_scored(row) for row in own if not is_pair(row)]
        pool[name] = {
            one.item: ScoredOutput(one.score, one.length)
            for one in scored
            if one.item is not None and one.score is not None and one.length is not None and not one.truncated
        }
        if unknown := sum(one.score is not None and one.length is None for one in scored):
            ranking.notes.append(
                f"{unknown:,} scores of {name} cast no vote: their rows do not say the output's length"
            )
    known = {name: (anchors or {}).get(name, (anchors or {}).get(name.split("/")[-1])) for name in pool}
    held = {name: elo for name, elo in known.items() if elo is not None}
    if not held:
        ranking.notes.append("no anchor (--anchors) is in this pool: Elo is relative to its first model, set to 1000")
        held = {min(pool): 1000.0}
    ratings = wb_elo(virtual_votes(pool), held, seed=seed)
    for name, rating in ratings.items():
        ranking.models[name].metrics |= {"wb_elo": rating.elo, "wb_elo_order_std": rating.order_std}
    ranking.provenance["anchors"] = held
    ranking.notes.append("Elo depends on the whole pool: no number of another pool may stand beside it")


def _add_controlled(ranking: Ranking, rows: Rows, answers: str | Path | None) -> None:
    battles: list[Battle] = []
    for name, own in rows.items():
        found = read(own)
        baseline = found.sides(name)[1]
        battles += found.battles_of(name)
    if answers is None:
        ranking.notes.append("length and style control need the answers of the whole pool: --answers DIR")
        return
    styles = _styles(Path(answers))
    for metric, columns in (("win_rate_lc", LENGTH), ("win_rate_style", STYLE)):
        for name, rate in controlled_win_rates(battles, baseline, styles, columns).win_rates.items():
            ranking.models[name].metrics[metric] = rate
    for name, result in ranking.models.items():
        if result.metrics["average_tokens"] is None and (forms := styles.get(name)):
            result.metrics["average_tokens"] = sum(style.tokens for style in forms.values()) / len(forms)
    ranking.notes.append("controlled win rates depend on the pool: compare them within it alone")


def _styles(folder: Path) -> dict[str, dict[str, Style]]:
    files = sorted(path for path in folder.glob("*.json*") if not path.name.endswith(".card.json"))
    if not files:
        raise BadInput(f"--answers {folder}: no answer file (.jsonl, .json, .gz) there.")
    styles: dict[str, dict[str, Style]] = {}
    for path in files:
        for answer in read(list(read_jsonl(path))).answers:
            if answer.tokens is not None:
                style = markdown_style(answer.text, answer.tokens)
                styles.setdefault(answer.model, {})[answer.question] = style
    return styles
