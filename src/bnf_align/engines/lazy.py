"""Several models in process, of which one at a time is in memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property

from bnf_align.engines.local import LocalEngine
from bnf_align.engines.request import Generation, Request, Sampling


class LazyEngine:
    """A model that is loaded when it is asked and let go of when it has answered. See `Engine`.

    It is loaded once for the hash of its weights, and again for every job that is not finished.

    Args:
        name: The model's name in the files made with it.
        load: Loads it.
    """

    def __init__(self, name: str, load: Callable[[], LocalEngine]) -> None:
        self.name, self._load = name, load
        self.tokens, self.seconds = 0, 0.0

    @cached_property
    def weights(self) -> str:
        """Hash of the weights."""
        engine = self._load()
        found = engine.weights
        del engine
        gc.collect()  # its modules refer to each other
        return found

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, done: Collection[str] = ()
    ) -> Iterator[list[Generation]]:
        """See `LocalEngine.generate`."""
        if set(done).issuperset(request.id for request in requests):
            return
        tokens, seconds = self.tokens, self.seconds
        engine = self._load()
        for batch in engine.generate(requests, sampling, done):
            self.tokens, self.seconds = tokens + engine.tokens, seconds + engine.seconds
            yield batch
        del engine
        gc.collect()
