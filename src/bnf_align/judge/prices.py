"""What asking a judge costs: counted afterwards, bounded before, estimated for a person, kept within a budget."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Messages = Sequence[dict[str, Any]]

# A token of a byte-level tokenizer covers a byte or more, so a text has no more tokens than UTF-8 bytes. The chat
# template adds a header to every message and, in some models, a system prompt of its own.
MESSAGE_TOKENS = 16
TEMPLATE_TOKENS = 128

BYTES_PER_TOKEN = 4
"""Of English prose with today's vocabularies; code and other languages have fewer, so more tokens."""


@dataclass(frozen=True)
class Prices:
    """In any one currency, per million tokens."""

    prompt: float
    completion: float

    def cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1e6


@dataclass(frozen=True)
class Estimate:
    """What a run would take. No call is made for it."""

    questions: int
    cached: int
    """Of them, answered before: these cost nothing."""
    prompt_tokens: int
    """About: one per four bytes of UTF-8, as in English prose. Code and other languages take more."""
    completion_tokens: int
    """At most: every answer as long as it may be."""
    cost: float | None
    """Of both, in the currency of the prices; None without prices."""

    def lines(self) -> list[str]:
        """The estimate in plain words."""
        cost = "unknown without prices" if self.cost is None else f"{self.cost:,.2f}"
        return [
            f"{self.questions:,} questions, {self.cached:,} of them answered before and free",
            f"prompt tokens      about {self.prompt_tokens:,} (a token for {BYTES_PER_TOKEN} bytes)",
            f"completion tokens  at most {self.completion_tokens:,} (answers of full length)",
            f"cost               {cost} (in the currency of the prices; less where answers are shorter)",
        ]


def text_bytes(messages: Messages) -> int:
    """UTF-8 bytes of all texts; what is no text (images) counts as it is written."""
    return sum(len(str(message.get("content") or "").encode("utf-8", "replace")) for message in messages)


def most_prompt_tokens(messages: Messages) -> int:
    """No tokenizer makes more tokens of `messages`."""
    return text_bytes(messages) + MESSAGE_TOKENS * len(messages) + TEMPLATE_TOKENS


def likely_prompt_tokens(messages: Messages) -> int:
    """What a tokenizer is likely to make of `messages`."""
    return text_bytes(messages) // BYTES_PER_TOKEN + MESSAGE_TOKENS // 2 * len(messages)


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
