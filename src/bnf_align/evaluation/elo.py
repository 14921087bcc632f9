"""WB-Elo: ratings from scores through virtual votes, anchored at Chatbot Arena's.

Source of the rules: allenai/WildBench d6b8dca, `leaderboard/wb_elo.py` with the settings of `show_eval.sh`. A rating
depends on every model in the pool: compare ratings of one pool only, and none with a published one of another pool.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from bnf_align.records import BadInput

NEW_MODEL = 1000.0
"""Where a model without an anchor starts."""


class ScoredOutput(NamedTuple):
    """What a judge gave for one output, and the output's length in characters."""

    score: float
    length: int


Pool = Mapping[str, Mapping[str, ScoredOutput]]
"""Model -> item -> its scored output, truncated outputs left out."""


class Votes(NamedTuple):
    """One vote per pair of models and item; `first` and `second` are indices into `models`."""

    models: list[str]
    first: np.ndarray
    second: np.ndarray
    score: np.ndarray
    """For `first`: 1 won, 0.5 tied, 0 lost."""


class Rating(NamedTuple):
    """A model's WB-Elo."""

    elo: float
    order_std: float
    """Spread over the orders of the votes alone; it says nothing of how the rating would move with other items."""
    votes: int
    """Votes that moved it."""


def virtual_votes(pool: Pool, margin: float = 2, tie_margin: float = 1, length_margin: float = 1_500) -> Votes:
    """What each item says about each pair of models.

    Args:
        pool: The scored outputs; empty ones cast no vote.
        margin: A score higher by at least this wins.
        tie_margin: A difference up to this is a tie; one between the two casts no vote.
        length_margin: A vote between outputs that differ by more characters than this is a tie, whoever is longer.
    """
    models = sorted(pool)
    items = {name: column for column, name in enumerate(sorted({item for model in models for item in pool[model]}))}
    scores, lengths = np.full((2, len(models), len(items)), np.nan)
    for row, model in enumerate(models):
        for item, (score, length) in pool[model].items():
            if length > 0:
                scores[row, items[item]], lengths[row, items[item]] = score, length
    first, second = np.triu_indices(len(models), k=1)
    gap = scores[first] - scores[second]  # (pairs, items), NaN where one of the two is missing
    decided = np.abs(gap) >= margin
    pair, column = np.nonzero(decided | (np.abs(gap) <= tie_margin))
    outcome = np.where(decided, (1 + np.sign(gap)) / 2, 0.5)
    outcome[np.abs(lengths[first] - lengths[second]) > length_margin] = 0.5
    return Votes(models, first[pair], second[pair], outcome[pair, column])


def wb_elo(votes: Votes, anchors: Mapping[str, float], orders: int = 128, seed: int = 42) -> dict[str, Rating]:
    """Ratings of every model in `votes`: the mean over random orders of the votes.

    Anchored models move as well, but their 1st, 101st, 201st, ... update is followed by a step halfway back to the
    anchor. A vote between two anchored models is skipped. All orders are played in step, at some 40 microseconds a
    vote for all 128 together: a second for 8 models, most of a minute for WildBench's 61.

    Args:
        votes: From `virtual_votes`.
        anchors: Model -> the Elo it starts from and is held by. Models that are not in `votes` play no part.
        orders: Random orders; their spread is `Rating.order_std`.
        seed: Of the orders.

    Raises:
        BadInput: If no model in `votes` has an anchor, so that ratings would only be relative to each other.
    """
    anchor = np.array([anchors.get(model, math.nan) for model in votes.models])
    if np.isnan(anchor).all():
        raise BadInput(
            f"None of {', '.join(votes.models)} has an anchor Elo, so the scale has no zero. Add scored outputs of a "
            f"model that has one ({', '.join(list(anchors)[:3])}, ...), or an anchor for one of the pool."
        )
    moving = anchored_last(votes, anchor)
    rng = np.random.default_rng(seed)
    cast = np.arange(len(moving.score), dtype=np.int32)
    drawn = np.stack([rng.permutation(cast) for _ in range(orders)], axis=1)
    ratings = play(moving, anchor, drawn)
    seen = np.bincount(np.concatenate([moving.first, moving.second]), minlength=len(anchor))
    columns = (column.tolist() for column in (ratings.mean(axis=0), ratings.std(axis=0), seen))
    return {model: Rating(*own) for model, *own in zip(votes.models, *columns, strict=True)}


def anchored_last(votes: Votes, anchor: np.ndarray) -> Votes:
    """The votes that count, turned so that of an anchored and a new model the anchored one is `second`."""
    held = ~np.isnan(anchor)
    turned = held[votes.first]
    columns = (
        np.where(turned, votes.second, votes.first),
        np.where(turned, votes.first, votes.second),
        np.where(turned, 1 - votes.score, votes.score),
    )
    counts = ~(held[votes.first] & held[votes.second])
    return Votes(votes.models, *(column[counts] for column in columns))


def play(votes: Votes, anchor: np.ndarray, orders: np.ndarray, k: float = 4, interval: int = 100) -> np.ndarray:
    """Final ratings when the votes come in the given orders, all orders one vote forward at a time.

    Args:
        votes: As `anchored_last` gives them.
        anchor: (models,), NaN where there is none.
        orders: (votes, orders) indices into the votes, each column a permutation.
        k: Points at stake in a vote.
        interval: Updates of an anchored model from one step back to the next.

    Returns:
        (orders, models).
    """
    count = orders.shape[1]
    elo = np.tile(np.where(np.isnan(anchor), NEW_MODEL, anchor), count)
    updates = np.zeros(elo.shape, dtype=np.int64)
    # Each order has its own stretch of `elo`, so one vote of every order is a plain update of distinct places.
    stretch = np.arange(count) * len(anchor)
    pull = anchor[votes.second]
    for vote in orders:
        first, second = votes.first[vote] + stretch, votes.second[vote] + stretch
        mine, other = elo[first], elo[second]
        gain = k * (votes.score[vote] - 1 / (1 + 10 ** ((other - mine) / 400)))
        elo[first] = mine + gain
        moved, home = other - gain, pull[vote]
        back = (updates[second] % interval == 0) & ~np.isnan(home)
        elo[second] = np.where(back, (moved + home) / 2, moved)
        updates[second] += 1
    return elo.reshape(count, len(anchor))
