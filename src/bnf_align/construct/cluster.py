"""`generate` and `score` on a cluster: an engine and a scorer whose batches are computed by many workers.

Both look like the local ones from outside, so the files, their resuming and their counting are the same code. A batch
is the batch of the local plan, so in float32 the rows are too, byte by byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import chain
from textwrap import shorten

from bnf_align.cluster import Cluster
from bnf_align.construct.scorers.scorer import Row, Scored, Scorer
from bnf_align.engines import Generation, Request, Sampling
from bnf_align.engines.local import LocalEngine
from bnf_align.records import BadInput


class ClusterEngine:
    """A model that every worker has a copy of. See `engines.Engine`.

    Args:
        cluster: Where.
        name: The model's name in the files made with it.
        load: Loads the model, on a worker.
    """

    def __init__(self, cluster: Cluster, name: str, load: Callable[[], LocalEngine]) -> None:
        self.cluster, self.name, self.load = cluster, name, load
        self.tokens, self.seconds = 0, 0.0

    @cached_property
    def weights(self) -> str:
        """Hash of the weights, which every worker's must have."""
        load = self.load
        return self.cluster.ask(lambda: load().weights)

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, done: Collection[str] = ()
    ) -> Iterator[list[Generation]]:
        """See `Engine`.

        Raises:
            BadInput: As `LocalEngine.generate` does, or if a worker finds other weights.
        """
        finished = set(done)
        if requests and finished.issuperset(request.id for request in requests):
            return
        load = self.load
        batches = self.cluster.ask(lambda: load().plan(requests, sampling))
        asked = [batch for batch in batches if not finished.issuperset(one.id for one in batch)]
        began = time.perf_counter()
        answering = partial(_Answers, load, sampling, self.weights)
        for answers, tokens in self.cluster.map(answering, asked, lambda batch: _named(one.id for one in batch)):
            now = time.perf_counter()
            self.tokens, self.seconds, began = self.tokens + tokens, self.seconds + now - began, now
            yield answers


class ClusterScorer:
    """A scorer that every worker has a copy of. See `Scorer`.

    Args:
        cluster: Where.
        load: Loads the scorer, on a worker.
    """

    def __init__(self, cluster: Cluster, load: Callable[[], Scorer]) -> None:
        self.cluster, self.load = cluster, load
        self.name, self.card = cluster.ask(partial(_name_and_card, load))

    def score(self, rows: Sequence[Row], done: Collection[str] = ()) -> Iterator[list[Scored]]:
        """See `Scorer`.

        Raises:
            BadInput: As the scorer does, or if a worker's scorer is another one.
        """
        finished = set(done)
        if rows and finished.issuperset(row["id"] for row in rows):
            return
        by_id = {row["id"]: row for row in rows}
        batches = self.cluster.ask(partial(_planned_rows, self.load, rows))
        asked = [[by_id[name] for name in batch] for batch in batches if not finished.issuperset(batch)]
        scoring = partial(_scoring, self.load, self.card)
        yield from self.cluster.map(scoring, asked, lambda batch: _named(row["id"] for row in batch))


def _named(ids: Iterable[str]) -> str:
    return shorten(f"the rows {', '.join(map(repr, ids))}", 300, placeholder=" ...")


# On the workers


class _Answers:
    def __init__(self, load: Callable[[], LocalEngine], sampling: Sampling, weights: str) -> None:
        self.engine, self.sampling = load(), sampling
        _check_same("weights", self.engine.weights, weights)

    def __call__(self, batch: Sequence[Request]) -> tuple[list[Generation], int]:
        before = self.engine.tokens
        answers = list(chain.from_iterable(self.engine.generate(batch, self.sampling)))
        return answers, self.engine.tokens - before


def _scoring(load: Callable[[], Scorer], card: Row) -> Callable[[Sequence[Row]], list[Scored]]:
    scorer = load()
    _check_same("scorer", scorer.card, card)
    return lambda batch: list(chain.from_iterable(scorer.score(batch)))


def _name_and_card(load: Callable[[], Scorer]) -> tuple[str, Row]:
    scorer = load()
    return scorer.name, scorer.card


def _planned_rows(load: Callable[[], Scorer], rows: Sequence[Row]) -> list[list[str]]:
    scorer = load()
    if (plan := getattr(scorer, "plan", None)) is None:
        raise BadInput(f"{scorer.name} cannot be shared by workers: score without --engine ray.")
    return plan(rows)


def _check_same(what: str, here: object, expected: object) -> None:
    if here != expected:
        raise BadInput(
            f"A worker has another {what} than the one that was asked first ({here!r}, not {expected!r}): one file "
            "must not mix them. Give every machine of the cluster the same files."
        )
