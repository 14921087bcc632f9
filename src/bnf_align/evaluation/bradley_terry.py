"""Bradley-Terry ratings, and the logistic regression beneath them and beneath length control."""

from __future__ import annotations

import importlib
import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from bnf_align.evaluation.ratings import Battle
from bnf_align.records import BadInput

BASELINE_ELO = 1000.0


def bradley_terry(battles: Sequence[Battle], baseline: str) -> dict[str, float]:
    """Ratings of any pool by maximum likelihood (Bradley & Terry, 1952) in Elo points, `baseline` at 1000.

    A tie is half a win for either side. On a star, where every battle is against `baseline`, `expected_score` of
    these ratings is `ratings.win_rates`.

    Raises:
        BadInput: If no finite ratings are the likeliest, or scikit-learn is not installed.
    """
    points: dict[tuple[str, str], np.ndarray] = defaultdict(lambda: np.zeros(2))
    for _, model, opponent, score, weight in battles:
        points[model, opponent] += weight * score, weight * (1 - score)
    # Only differences of ratings are determined; the baseline, last and without a column, is the zero.
    names = [*sorted({name for pair in points for name in pair} - {baseline}), baseline]
    players = np.array([(names.index(model), names.index(opponent)) for model, opponent in points]).reshape(-1, 2)
    won, lost = np.array(list(points.values())).reshape(-1, 2).T
    _check_finite(names, players, won, lost)
    design = np.zeros((len(points), len(names)))
    design[np.arange(len(points))[:, None], players] = 1, -1
    logits = fit_logistic(design[:, :-1], won / (won + lost), won + lost, strength=math.inf)
    return {name: BASELINE_ELO + 400 / math.log(10) * logit for name, logit in zip(names, [*logits, 0.0], strict=True)}


def expected_score(rating: float, other: float) -> float:
    """The expected score in per cent of an Elo `rating` against `other`: 400 points are odds of ten to one."""
    return 100 / (1 + 10 ** ((other - rating) / 400))


def fit_logistic(design: np.ndarray, scores: np.ndarray, weights: np.ndarray, strength: float) -> list[float]:
    """Coefficients of a logistic regression without intercept.

    Args:
        design: (battles, columns).
        scores: (battles,) outcomes in [0, 1]: a tie is a row that was won and lost half each.
        weights: (battles,).
        strength: scikit-learn's `C`, the inverse of the L2 penalty; infinity fits without a penalty.

    Raises:
        BadInput: If scikit-learn is not installed.
    """
    outcomes = np.repeat([1, 0], len(scores))
    shares = np.concatenate([weights * scores, weights * (1 - scores)])
    # lbfgs, upstream's default, stops some way off the optimum; Newton's method costs no more here and arrives.
    model = _optional("sklearn.linear_model").LogisticRegression(
        C=strength, fit_intercept=False, solver="newton-cholesky", tol=1e-10, max_iter=1_000
    )
    return model.fit(np.concatenate([design, design]), outcomes, sample_weight=shares).coef_[0].tolist()


def _check_finite(names: list[str], players: np.ndarray, won: np.ndarray, lost: np.ndarray) -> None:
    """Finite ratings exist where a chain of points taken leads from every model to every other (Ford, 1957)."""
    taken = np.zeros((len(names), len(names)))
    taken[tuple(players.T)] += won
    taken[tuple(players.T[::-1])] += lost
    _, part = _optional("scipy.sparse.csgraph").connected_components(taken, connection="strong")
    if apart := [name for name, number in zip(names, part, strict=True) if number != part[-1]]:
        raise BadInput(
            f"{', '.join(apart)} took no point from {names[-1]!r}, directly or through others, or gave none to it: no "
            "finite rating is the likeliest. Leave such models out, or report win rates."
        )


def _optional(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BadInput(
            "Bradley-Terry and length or style control need scikit-learn: pip install scikit-learn"
        ) from error
