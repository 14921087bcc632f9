"""A judge model: questions in, judgments out; nothing that was answered is asked, or paid for, twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from bnf_align.endpoint import Call, Endpoint, Reply, Unanswered
from bnf_align.endpoint.endpoint import Attempt
from bnf_align.judge.cache import JudgeCache, question_key
from bnf_align.judge.prices import Budget, Estimate, Prices, likely_prompt_tokens, most_prompt_tokens
from bnf_align.records import BadInput

Question = tuple[str, list[dict[str, Any]]]
"""An id and the messages."""


class Judgment(NamedTuple):
    """What the judge said to one question."""

    id: str
    text: str
    """All of it; empty with an `error`."""
    prompt_tokens: int | None
    completion_tokens: int | None
    cached: bool
    """Whether it cost nothing: said before, or to the same question under another id."""
    error: str | None = None
    """Why there is no text, after all attempts."""
    finish_reason: str = ""
    """"length" where the judge was cut off."""


class Judge:
    """A judge behind an endpoint.

    Args:
        endpoint: Where the judge is and what it is called.
        cache_dir: Folder of all judges' answers; may be shared by runs at the same time.
        prices: Of a million prompt tokens and of a million completion tokens, in any one currency.
        budget: What this object may spend, in that currency. Answers from the cache cost nothing.
        request: Further fields of every call; None takes one out (`{"temperature": None}`).

    Raises:
        BadInput: If there is a budget and no prices.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        cache_dir: str | Path,
        prices: tuple[float, float] | None = None,
        budget: float | None = None,
        request: Mapping[str, Any] | None = None,
    ) -> None:
        if budget is not None and prices is None:
            raise BadInput(
                "A budget needs the judge's prices: give --prices, per million prompt and completion tokens."
            )
        self.endpoint = endpoint
        self.model = endpoint.model
        self.cache = JudgeCache(cache_dir, endpoint.model)
        self.prices = Prices(*prices) if prices else None
        self.budget, self.request = budget, dict(request or {})
        self.counts: Counter[str] = Counter()
        """`answered`, `cached`, `failed`, `prompt_tokens` and `completion_tokens` so far."""
        self._budget = Budget(budget)

    @property
    def spent(self) -> float:
        """So far, in the currency of the prices.

        Answers cost what the judge counted; answers that were lost on the way may have been charged, and cost the
        most they can.
        """
        return self._budget.spent

    def ask(self, questions: Iterable[Question], max_tokens: int, json_mode: bool = False) -> Iterator[Judgment]:
        """Judgments: those in the cache first, the others as they arrive. One `ask` at a time.

        Every answer is on disk before it is yielded. What stays without one after all attempts comes with an `error`.

        Args:
            questions: Ids and messages; equal messages are asked once.
            max_tokens: Of the longest judgment.
            json_mode: Ask for a JSON object (`response_format`).

        Raises:
            BadInput: After the last judgment, if the budget did not reach for all; or as `Endpoint.chat`.
        """
        waiting: dict[str, tuple[Call, list[str]]] = {}
        for name, messages in questions:
            call = self._call(messages, max_tokens, json_mode)
            if entry := self.cache.get(call.id):
                self.counts["cached"] += 1
                yield _judgment(name, entry, cached=True)
            else:
                waiting.setdefault(call.id, (call, []))[1].append(name)
        if waiting:
            yield from self._asked(waiting)
        if waiting:
            unasked = sum(len(names) for _, names in waiting.values())
            raise BadInput(
                f"The budget of {self.budget:g} is used up: {self.spent:.4g} is spent, {unasked:,} questions are not "
                "asked yet, and the next one could cost more than what is left. Every answer is kept and costs "
                "nothing again: give a higher --budget, or the same one once more to spend as much again."
            )

    def estimate(self, questions: Iterable[Question], max_tokens: int, json_mode: bool = False) -> Estimate:
        """What `ask` would take, without a call: prompts by their bytes, answers at their longest."""
        number, prompt_tokens, new = 0, 0, set()
        for _, messages in questions:
            number += 1
            key = self._call(messages, max_tokens, json_mode).id
            if key not in self.cache and key not in new:
                new.add(key)
                prompt_tokens += likely_prompt_tokens(messages)
        completion_tokens = max_tokens * len(new)
        cost = self.prices.cost(prompt_tokens, completion_tokens) if self.prices else None
        return Estimate(number, number - len(new), prompt_tokens, completion_tokens, cost)

    def _call(self, messages: list[dict[str, Any]], max_tokens: int, json_mode: bool) -> Call:
        """The question at temperature 0, with what is sent as its id: equal questions are one."""
        extra = {**({"response_format": {"type": "json_object"}} if json_mode else {}), **self.request}
        call = Call("", messages, max_tokens=max_tokens, temperature=0.0, extra=extra)
        return replace(call, id=question_key(call.body(self.model)))

    def _asked(self, waiting: dict[str, tuple[Call, list[str]]]) -> Iterator[Judgment]:
        """Judgments of what is `waiting`, in which stays what the budget did not reach for."""
        self._budget = Budget(self.budget, self.spent)
        with closing(self.endpoint.chat([call for call, _ in waiting.values()], self._paid)) as replies:
            for reply in replies:
                for position, name in enumerate(waiting.pop(reply.id)[1]):
                    if reply.error is None:
                        yield _judgment(name, _entry(reply), cached=position > 0)
                    else:
                        self.counts["failed"] += 1
                        yield Judgment(name, "", None, None, False, reply.error)

    async def _paid(self, call: Call, attempt: Attempt) -> Reply | None:
        """One attempt within the budget, and its answer on disk before anything else happens."""
        assert not isinstance(call.prompt, str)
        assert call.max_tokens is not None
        worst = self._cost(most_prompt_tokens(call.prompt), call.max_tokens)
        if not await self._budget.hold(worst):
            return None
        cost = worst  # a call that is cancelled on its way may be charged all the same
        try:
            reply = await attempt()
            cost = self._keep(call, reply, worst)
            return reply
        except Unanswered as problem:
            cost = worst if problem.billed else 0.0
            raise
        finally:
            self._budget.settle(worst, cost)

    def _keep(self, call: Call, reply: Reply, worst: float) -> float:
        """Store and count an answer; what it cost, or `worst` where the judge does not count."""
        if reply.error is not None:
            return 0.0
        self.cache.put(call.id, _entry(reply))
        self.counts["answered"] += 1
        self.counts["prompt_tokens"] += reply.prompt_tokens or 0
        self.counts["completion_tokens"] += reply.completion_tokens or 0
        if reply.prompt_tokens is None or reply.completion_tokens is None:
            return worst
        return self._cost(reply.prompt_tokens, reply.completion_tokens)

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return self.prices.cost(prompt_tokens, completion_tokens) if self.prices else 0.0


def _entry(reply: Reply) -> dict[str, Any]:
    """What the cache keeps of an answer."""
    return {
        "text": reply.texts[0],
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "finish_reason": reply.finish_reasons[0],
    }


def _judgment(name: str, entry: dict[str, Any], cached: bool) -> Judgment:
    return Judgment(
        name, entry["text"], entry["prompt_tokens"], entry["completion_tokens"], cached, None, entry["finish_reason"]
    )
