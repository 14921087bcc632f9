"""Win rates with length or style held equal, as Arena-Hard v0.1 does it.

Source of the rules: lmarena/arena-hard-auto d99b139, `utils_math.py` and `utils/add_markdown_info.py`. A verdict is
explained by who fought and by how the two answers differ in length and markup; the win rate is then read off the
models' coefficients alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bnf_align.evaluation.ratings import Battle, against
from bnf_align.records import BadInput


class Style(NamedTuple):
    """What of an answer's form can be controlled for."""

    tokens: int
    headers: int = 0
    lists: int = 0
    bold: int = 0


LENGTH = ("tokens",)
STYLE = Style._fields

Styles = Mapping[str, Mapping[str, Style]]
"""Model -> question -> its answer's style."""

CODE = re.compile(r"```([^`]*)```")
HEADERS = (re.compile(r"^#{1,6}\s", re.MULTILINE),)
LISTS = (re.compile(r"^\s*\d+\.\s", re.MULTILINE), re.compile(r"^\s*[-*+]\s", re.MULTILINE))
BOLD = (re.compile(r"\*\*[^*\n]+\*\*"), re.compile(r"__[^_\n]+__"))


class Controlled(NamedTuple):
    """What is left with the form of the answers held equal."""

    win_rates: dict[str, float]
    """Model -> per cent."""
    coefficients: dict[str, float]
    """Controlled column -> log-odds (nats) that one standard deviation more of it is worth to the judge."""


def markdown_style(text: str, tokens: int) -> Style:
    """The style of an answer of `tokens` tokens, markup inside code blocks not counted."""
    for block in CODE.findall(text):
        # Upstream takes the code away wherever it stands, not only between the fences.
        text = text.replace(block, "")
    counts = (sum(len(pattern.findall(text)) for pattern in patterns) for patterns in (HEADERS, LISTS, BOLD))
    return Style(tokens, *counts)


def controlled_win_rates(
    battles: Sequence[Battle], baseline: str, styles: Styles, columns: Sequence[str] = LENGTH
) -> Controlled:
    """Win rates against `baseline` in per cent with `columns` of the style held equal.

    Each column is (a - b) / (a + b + 1), z-scored over the pool, and all is fitted with scikit-learn's default
    penalty, C = 1. The centring takes out the pool's mean difference in form, so a model's number depends on the
    models beside it, and a model alone in its pool keeps the advantage of its average length: compare only within
    one pool.

    Args:
        battles: Of the whole pool.
        baseline: The model on one side of every battle.
        styles: Of every answer in `battles`, the baseline's too.
        columns: `LENGTH` or `STYLE`.

    Raises:
        BadInput: If an answer's style is missing, or scikit-learn.
    """
    turned = against(battles, baseline)
    models = sorted({battle.model for battle in turned})
    weights = np.array([battle.weight for battle in turned], dtype=float)
    design = np.hstack([_players(turned, models), _differences(turned, styles, columns, weights)])
    scores = np.array([battle.score for battle in turned])
    # Upstream holds every battle twice, so that a tie can be a win and a loss; against a penalty that matters.
    coefficients = fit_logistic(design, scores, 2 * weights)
    of_models, of_baseline = np.array(coefficients[: len(models)]), coefficients[len(models)]
    rates = 100 / (1 + 10 ** (of_baseline - of_models))
    of_columns = dict(zip(columns, coefficients[len(models) + 1 :], strict=True))
    return Controlled(dict(zip(models, rates.tolist(), strict=True)), of_columns)


def fit_logistic(design: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> list[float]:
    """Coefficients of a logistic regression without intercept, with scikit-learn's default penalty.

    Args:
        design: (battles, columns).
        scores: (battles,) outcomes in [0, 1]: a tie is a row that was won and lost half each.
        weights: (battles,).

    Raises:
        BadInput: If scikit-learn is not installed.
    """
    try:
        from sklearn.linear_model import LogisticRegression
    except ImportError as error:
        raise BadInput("Length and style control need scikit-learn: pip install scikit-learn") from error
    outcomes = np.repeat([1, 0], len(scores))
    shares = np.concatenate([weights * scores, weights * (1 - scores)])
    # lbfgs, upstream's default, stops some way off the optimum; Newton's method costs no more here and arrives.
    model = LogisticRegression(fit_intercept=False, solver="newton-cholesky", tol=1e-10, max_iter=1_000)
    return model.fit(np.concatenate([design, design]), outcomes, sample_weight=shares).coef_[0].tolist()


def _players(battles: Sequence[Battle], models: list[str]) -> np.ndarray:
    """(battles, models and the baseline): the penalty falls on the baseline's rating too, as upstream."""
    design = np.zeros((len(battles), len(models) + 1))
    column = {name: number for number, name in enumerate(models)}
    design[np.arange(len(battles)), [column[battle.model] for battle in battles]] = math.log(10)
    design[:, -1] = -math.log(10)
    return design


def _differences(battles: Sequence[Battle], styles: Styles, columns: Sequence[str], weights: np.ndarray) -> np.ndarray:
    """(battles, columns): how the form of the model's answer differs from that of the baseline's, z-scored."""
    of_model = _forms(styles, [(battle.model, battle.question) for battle in battles], columns)
    of_other = _forms(styles, [(battle.opponent, battle.question) for battle in battles], columns)
    ratio = (of_model - of_other) / (of_model + of_other + 1)
    mean = np.average(ratio, axis=0, weights=weights)
    spread = np.sqrt(np.average((ratio - mean) ** 2, axis=0, weights=weights))
    return (ratio - mean) / np.where(spread > 0, spread, 1)  # a column that never varies explains nothing


def _forms(styles: Styles, answers: Sequence[tuple[str, str]], columns: Sequence[str]) -> np.ndarray:
    """(answers, columns) of the answers of a model to a question."""
    if missing := [answer for answer in dict.fromkeys(answers) if answer[1] not in styles.get(answer[0], {})]:
        raise BadInput(
            f"The length of {len(missing):,} judged answers is not known, first of {missing[0][0]}'s to question "
            f"{missing[0][1]}. Length and style control need all answers of the pool, also the baseline's: "
            "--answers DIR."
        )
    chosen = [Style._fields.index(name) for name in columns]
    return np.array([styles[model][question] for model, question in answers], dtype=float)[:, chosen]
