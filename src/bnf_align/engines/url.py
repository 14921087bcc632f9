"""A model behind one or several OpenAI-compatible URLs: many requests on their way at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any

from bnf_align.endpoint import Call, Endpoint, Reply
from bnf_align.engines.request import Generation, Request, Sampling, refuse_repeated_ids, stream_seed

logger = logging.getLogger(__name__)


class UrlEngine:
    """A served model. Conversations go to its chat route, plain texts to the one that continues them.

    Each text is a call of its own, with its own seed: not every server knows `n`, none says how many tokens each of
    several texts has, and those that are made for this keep the prompt they have read.

    What is not said here the server decides, from the model's `generation_config` for instance (vLLM takes its top-k);
    `extra` are further fields of every call, such as `{"top_k": 0}` for vLLM.
    """

    def __init__(self, endpoint: Endpoint, name: str | None = None, extra: Mapping[str, Any] | None = None) -> None:
        self.endpoint, self.name, self.extra = endpoint, name or endpoint.model, dict(extra or {})
        self.weights: str | None = None
        self.tokens, self.seconds = 0, 0.0
        self.failed: dict[str, str] = {}
        """Id -> why it has no answer, of the last job. They are left out, so a rerun asks for them again."""

    def generate(
        self, requests: Sequence[Request], sampling: Sampling, done: Collection[str] = ()
    ) -> Iterator[list[Generation]]:
        """See `Engine`. A request that fails after all retries is in `failed` instead.

        Raises:
            BadInput: If two requests share an id, or the server refuses every call.
        """
        refuse_repeated_ids(requests)
        self.failed = {}
        finished = set(done)
        calls = (
            call
            for request in requests
            if request.id not in finished
            for call in _calls(request, sampling, self.extra)
        )
        arrived: dict[str, dict[int, Reply]] = {}
        began = time.perf_counter()
        for reply in self.endpoint.chat(calls):
            now = time.perf_counter()
            self.seconds, began = self.seconds + now - began, now
            self.tokens += reply.completion_tokens or 0
            number, _, name = reply.id.partition("/")
            replies = arrived.setdefault(name, {})
            replies[int(number)] = reply
            if len(replies) == sampling.drawn and (answer := self._answer(name, arrived.pop(name), sampling.n)):
                yield [answer]
        if self.failed:
            name, reason = next(iter(self.failed.items()))
            logger.warning(f"{len(self.failed):,} prompts got no answer, the first {name!r}: {reason}")

    def stream(self, request: Request, sampling: Sampling) -> Iterator[Generation]:
        """One answer as far as it has come, several times a second, grown or not; the last one is the whole.

        Until then its finish reason is "". A request that fails after all retries ends in `failed` instead. Closing
        the iterator ends the call, by which servers know that nobody waits for the rest.

        Raises:
            BadInput: If the server refuses the call, or cannot be reached.
        """
        self.failed = {}
        with closing(self.endpoint.stream(next(_calls(request, sampling, self.extra)))) as replies:
            for reply in replies:
                if reply.error:
                    self.failed[request.id] = reply.error
                else:
                    tokens = [reply.completion_tokens]
                    yield Generation(request.id, reply.texts, reply.finish_reasons, tokens, reply.prompt_tokens)

    def _answer(self, name: str, replies: dict[int, Reply], n: int) -> Generation | None:
        if error := next((reply.error for reply in replies.values() if reply.error), None):
            self.failed[name] = error
            return None
        own = [replies[number] for number in sorted(replies)] * (n // len(replies))
        return Generation(
            name,
            [reply.texts[0] for reply in own],
            [reply.finish_reasons[0] for reply in own],
            [reply.completion_tokens for reply in own],
            own[0].prompt_tokens,
        )


def _calls(request: Request, sampling: Sampling, extra: dict[str, Any]) -> Iterator[Call]:
    """One call per text; greedy texts are all the same, so one is asked for."""
    for number in range(sampling.drawn):
        yield Call(
            f"{number}/{request.id}",
            request.prompt,
            max_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=stream_seed(sampling.seed, request.id, number),
            stop=sampling.stop,
            extra=extra,
        )
