"""Money that calls may cost, never exceeded: what is on its way counts as if it cost the most it can."""

from __future__ import annotations

import asyncio


class Budget:
    """What one run may spend. Used from one event loop.

    Args:
        limit: In the currency of the prices; None is no limit.
        spent: What is spent already.
    """

    def __init__(self, limit: float | None, spent: float = 0.0) -> None:
        self.limit = limit
        self.spent = spent
        """For answers, and at their worst for those that were lost on the way."""
        self.held = 0.0
        """What the calls on their way cost at most."""
        self.exhausted = False
        """Whether a call was turned away. From then on all are: a run that picked the small ones would be biased."""
        self._open = 0
        self._changed = asyncio.Event()

    async def hold(self, cost: float) -> bool:
        """Set `cost` aside, waiting for calls on their way to turn out cheaper; False if it will never fit."""
        while not self.exhausted:
            if self.limit is None or self.spent + self.held + cost <= self.limit:
                self._open += 1
                self.held += cost
                return True
            if self._open:
                self._changed.clear()
                await self._changed.wait()
            else:
                self.exhausted = True
        return False

    def settle(self, held: float, cost: float) -> None:
        """Release what was `held` for a call that cost `cost`."""
        self._open -= 1
        self.held = self.held - held if self._open else 0.0
        self.spent += cost
        self._changed.set()
