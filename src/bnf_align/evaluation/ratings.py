"""From battles to win rates: Arena-Hard v0.1's numbers, with intervals that respect the questions.

Source of the rules: lmarena/arena-hard-auto d99b139 (v0.1), `show_result.py` and `utils_math.py`. Version 2.0 of that
repository has other maths and is not followed here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bnf_align.records import BadInput, rows_text
from bnf_align.stats import Interval, drawn_counts, interval

WINNERS = {"model_a": 1.0, "model_b": 0.0, "tie": 0.5, "tie (bothbad)": 0.5}
"""Outcome for `model_a` of each value that `winner` takes in published battle files."""


class Battle(NamedTuple):
    """One judged comparison of two models on one question."""

    question: str
    model: str
    opponent: str
    score: float
    """For `model`: 1 won, 0.5 tied, 0 lost."""
    weight: int = 1
    """Battles that this one stands for: 3 for a verdict of "much better" on Arena-Hard."""


def read_battles(rows: Iterable[Mapping[str, Any]]) -> list[Battle]:
    """Battles from rows `question_id, model_a, model_b, winner`, upstream's shape, where a weight is repeated rows.

    Raises:
        BadInput: If a row has another `winner`.
    """
    rows = list(rows)
    if odd := [number for number, row in enumerate(rows) if row.get("winner") not in WINNERS]:
        raise BadInput(
            f"{rows_text(odd)} of the battles have a winner other than {', '.join(WINNERS)}; the first has "
            f"{rows[odd[0]].get('winner')!r}. A battle without a verdict does not count: leave its row out."
        )
    return [Battle(str(row["question_id"]), row["model_a"], row["model_b"], WINNERS[row["winner"]]) for row in rows]


def against(battles: Iterable[Battle], baseline: str) -> list[Battle]:
    """The same battles with `baseline` as the opponent in all of them.

    Raises:
        BadInput: If there is no battle, or one that is not between `baseline` and another model.
    """
    turned = [
        Battle(question, opponent, model, 1 - score, weight)
        if model == baseline
        else Battle(question, model, opponent, score, weight)
        for question, model, opponent, score, weight in battles
    ]
    odd = [number for number, battle in enumerate(turned) if battle.opponent != baseline or battle.model == baseline]
    if odd or not turned:
        found = f"{rows_text(odd)} of the battles are" if odd else "no battle is"
        raise BadInput(f"{found} between {baseline!r} and another model; a win rate needs one common baseline.")
    return turned


def win_rates(battles: Sequence[Battle], baseline: str) -> dict[str, float]:
    """Each model's win rate against `baseline` in per cent, the published number: the weighted mean outcome.

    Upstream fits Bradley-Terry and takes the expected score against the baseline. Where every battle is against the
    baseline, each model has a parameter to itself, and its likelihood is largest where the expected score is the mean
    score, so nothing need be fitted.

    Raises:
        BadInput: If a battle is not against `baseline`.
    """
    models, scores, weights = _by_question(battles, baseline)
    rates = 100 * scores.sum(axis=1) / weights.sum(axis=1)
    return dict(zip(models, rates.tolist(), strict=True))


def clustered_intervals(battles: Sequence[Battle], baseline: str) -> dict[str, Interval]:
    """95 % intervals of `win_rates` in per cent that draw whole questions: the default.

    The two games of a question and the copies of a weighted battle hang together. The official interval draws them
    apart and comes out too narrow: about +-2.5 for gpt-4-0613, where this one is about +-4. The order of the battles
    plays no part.
    """
    models, scores, weights = _by_question(battles, baseline)
    counts = drawn_counts(scores.shape[1], resamples=10_000, seed=42)
    with np.errstate(invalid="ignore"):  # a model of few questions may be missing from a resample
        rates = [100 * (drawn @ scores.T) / (drawn @ weights.T) for drawn in counts]
    return dict(zip(models, map(interval, np.concatenate(rates).T), strict=True))


def official_intervals(battles: Sequence[Battle], baseline: str, resamples: int = 100) -> dict[str, Interval]:
    """95 % intervals of `win_rates` in per cent as Arena-Hard v0.1 makes them, for comparison.

    Single battles are drawn, a weighted one being so many, from the whole pool at once. Battles of the same model and
    outcome are alike, so the number drawn of each kind is drawn instead. The ends depend on the pool and on the
    random generator: published ones are met in distribution, not to the digit.
    """
    copies: Counter[tuple[str, float]] = Counter()
    for battle in sorted(against(battles, baseline)):
        copies[battle.model, battle.score] += battle.weight
    share = np.array(list(copies.values())) / copies.total()
    drawn = np.random.default_rng(42).multinomial(copies.total(), share, size=resamples)  # (resamples, kinds)
    scores = np.array([score for _, score in copies])
    intervals = {}
    for name in dict.fromkeys(model for model, _ in copies):
        of_model = drawn * np.array([model == name for model, _ in copies])
        with np.errstate(invalid="ignore"):
            intervals[name] = interval(100 * (of_model @ scores) / of_model.sum(axis=1))
    return intervals


def _by_question(battles: Sequence[Battle], baseline: str) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Models, and (models, questions) sums over their battles: of scores and of weights."""
    turned = against(battles, baseline)
    models = {name: row for row, name in enumerate(sorted({battle.model for battle in turned}))}
    questions = {name: column for column, name in enumerate(sorted({battle.question for battle in turned}))}
    scores, weights = np.zeros((2, len(models), len(questions)))
    for question, model, _, score, weight in turned:
        scores[models[model], questions[question]] += weight * score
        weights[models[model], questions[question]] += weight
    return list(models), scores, weights
