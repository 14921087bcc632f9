"""Calls to one model behind one or several URLs: many at once, repeated until answered, kept within bounds."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from bnf_align.endpoint.call import Call, Reply, Unanswered, failed
from bnf_align.endpoint.server import Server
from bnf_align.records import BadInput

logger = logging.getLogger(__name__)

Attempt = Callable[[], Awaitable[Reply]]
Around = Callable[[Call, Attempt], Coroutine[Any, Any, Reply | None]]

LONGEST_BACKOFF = 60.0
"""Seconds."""
BEAT = 0.1
"""Seconds after which a streamed reply comes again."""


@dataclass(eq=False)
class Endpoint:
    """A model behind one or several OpenAI-compatible URLs.

    Args:
        urls: One or several, which share the load; `/v1` is added where there is no path.
        model: The name the servers know it by.
        api_key_env: The environment variable that holds the key. It may be unset where no key is wanted.
        concurrency: Calls on their way at once, over all URLs.
        timeout: Seconds without a sign of the server after which an attempt is given up.
        retries: Further attempts of a call.
        backoff: Seconds before the second attempt; doubled for each further one, up to a minute, and shortened by
            chance so that calls that failed together do not come back together. A server's `Retry-After` replaces it.

    Raises:
        BadInput: If a URL is none.
    """

    urls: str | Sequence[str]
    model: str
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 16
    timeout: float = 600.0
    retries: int = 8
    backoff: float = 0.5

    def __post_init__(self) -> None:
        self.urls = [_base(url) for url in ([self.urls] if isinstance(self.urls, str) else self.urls)]
        self.unanswered: Counter[str] = Counter()
        """What went wrong -> attempts."""

    def chat(self, calls: Iterable[Call], around: Around | None = None) -> Generator[Reply, None, None]:
        """Replies as they arrive; closing the iterator cancels what is on its way.

        Args:
            calls: Taken one by one, as places become free, in a thread of the endpoint's.
            around: Runs in that thread around every attempt: awaits the attempt and returns its reply, or returns
                None and so drops the call without a reply. What must outlive a kill is written here, since a reply
                may wait for whoever iterates.

        Raises:
            BadInput: If a server refuses all calls (401, 403, 404, an exhausted quota, a 400 before any answer), or
                cannot be reached any more.
        """
        arrived: SimpleQueue[Reply | BaseException | None] = SimpleQueue()
        yield from self._replies(_Job(self, iter(calls), arrived.put, around), arrived)

    def stream(self, call: Call) -> Generator[Reply, None, None]:
        """The reply to one call as far as it has come, again and again; the last one is the whole.

        Until then its finish reason is "". An attempt that failed on its way begins anew, and so does the text. It
        comes every `BEAT` seconds, whether it has grown or not, so that whoever iterates can close the iterator, which
        cancels the call, when nothing comes. A server that does not stream gives the whole at once.

        Raises:
            BadInput: As `chat` does.
        """
        arrived: SimpleQueue[Reply | BaseException | None] = SimpleQueue()
        coming = Reply(call.id, [""], [""], None, None)  # its text is replaced as more of it comes
        job = _Job(self, iter([call]), arrived.put, hear=lambda text: coming.texts.__setitem__(0, text))
        with closing(self._replies(job, arrived, coming)) as replies:
            for reply in replies:
                yield reply
                if reply.finish_reasons != coming.finish_reasons:
                    return

    def _replies(
        self, job: _Job, arrived: SimpleQueue[Reply | BaseException | None], coming: Reply | None = None
    ) -> Generator[Reply, None, None]:
        """What arrives, and in between every `BEAT` seconds what is coming, if that is given."""
        loop = asyncio.new_event_loop()
        task = loop.create_task(job.run())

        def work() -> None:
            try:
                loop.run_until_complete(task)
            except BaseException as error:  # whatever it is, whoever iterates must hear of it
                arrived.put(error)
            else:
                arrived.put(None)
            finally:
                loop.run_until_complete(loop.shutdown_default_executor())  # where names of hosts are looked up

        thread = Thread(target=work, name="endpoint", daemon=True)
        thread.start()
        try:
            while True:
                try:
                    reply = arrived.get(timeout=BEAT if coming else None)
                except Empty:
                    reply = coming and coming._replace(texts=[*coming.texts])
                if reply is None:
                    return
                if isinstance(reply, BaseException):
                    raise reply
                yield reply
        finally:
            loop.call_soon_threadsafe(task.cancel)
            thread.join()
            loop.close()


@dataclass
class _Job:
    endpoint: Endpoint
    calls: Iterator[Call]
    deliver: Callable[[Reply], None]
    around: Around | None = None
    hear: Callable[[str], None] | None = None

    def __post_init__(self) -> None:
        self._heard = time.monotonic()
        """When a server last said anything."""
        endpoint = self.endpoint
        key = os.environ.get(endpoint.api_key_env)
        self._servers = [
            Server(url, endpoint.model, key, endpoint.api_key_env, endpoint.timeout) for url in endpoint.urls
        ]

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.endpoint.concurrency):
                    group.create_task(self._work())
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        finally:
            for server in self._servers:
                await server.close()

    async def _work(self) -> None:
        # All workers take from one iterator, so that none is idle while another has a queue.
        for call in self.calls:
            reply = await self._answer(call)
            if reply is not None:
                self.deliver(reply)

    async def _answer(self, call: Call) -> Reply | None:
        began, endpoint, ask = time.monotonic(), self.endpoint, partial(self._attempt, call)
        for attempt in range(endpoint.retries + 1):
            try:
                return await (ask() if self.around is None else self.around(call, ask))
            except Unanswered as problem:
                endpoint.unanswered[problem.reason] += 1
                last = problem
            if attempt < endpoint.retries:
                await asyncio.sleep(self._pause(attempt, last.wait))
        if not last.connected and self._heard < began:
            raise BadInput(
                f"No answer from {', '.join(endpoint.urls)}: {last}. Is the server up, and is this its URL? What is "
                "done is kept: the same command goes on from there."
            )
        return failed(call, f"{last}, after {endpoint.retries + 1} attempts")

    async def _attempt(self, call: Call) -> Reply:
        server = min(self._servers, key=Server.load)
        try:
            reply = await server.ask(call, self.hear)
        except Unanswered as problem:
            if problem.connected:
                self._heard = time.monotonic()
            logger.debug(f"{server.url}: {problem}")
            raise
        self._heard = time.monotonic()
        return reply

    def _pause(self, attempt: int, wait: float | None) -> float:
        """Seconds until the next attempt. The waiting call keeps its place: a busy server is to have less to do."""
        if wait is not None:
            return wait + self.endpoint.backoff * random.random()
        return min(LONGEST_BACKOFF, self.endpoint.backoff * 2.0**attempt) * random.uniform(0.5, 1.0)


def _base(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets around no address
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput(f"{url!r} is not a URL. One reads like http://localhost:8000/v1.")
    if parts.username or parts.password or parts.query:
        # It stands in messages, logs and cards.
        raise BadInput(f"The URL of {parts.hostname} must not hold a password or a query. Put a key into a variable.")
    return url.rstrip("/") + ("" if parts.path.strip("/") else "/v1")
