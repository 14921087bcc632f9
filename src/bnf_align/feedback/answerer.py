"""One answer at a time, for somebody who waits for it and sees it come."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from bnf_align.endpoint import Endpoint
from bnf_align.engines import Generation, Request, Sampling
from bnf_align.engines.url import UrlEngine
from bnf_align.feedback.store import Message
from bnf_align.records import BadInput

if TYPE_CHECKING:
    from bnf_align.engines.local import LocalEngine

logger = logging.getLogger(__name__)

DOWN = (
    "The model does not answer: its server is down, or refuses, as it does when a conversation has grown too long. "
    "Whoever runs this page finds the reason in its log."
)


class NoAnswerError(Exception):
    """There is no answer; the message says so to the person who asked."""


class Answerer(Protocol):
    """A model that people talk to."""

    name: str
    """As it stands in the rows."""

    def stream(self, messages: list[Message]) -> Generator[Generation, None, None]:
        """What the model says to a conversation, as far as it has come; asked again, it may say something else.

        It comes at once where nothing is new, so whoever iterates takes a pause then. The last one is the whole, and
        the only one with a finish reason. Closing the iterator ends the answer.

        Raises:
            NoAnswerError: If the model cannot be reached, or refuses.
        """
        ...


class LocalAnswerer:
    """A model in this process, which answers one question after the other.

    Args:
        engine: The model.
        sampling: How to draw.
    """

    def __init__(self, engine: LocalEngine, sampling: Sampling) -> None:
        self.name = engine.name
        self._engine, self._sampling = engine, sampling
        self._alone = threading.Lock()

    def stream(self, messages: list[Message]) -> Generator[Generation, None, None]:
        """See `Answerer`."""
        request = _request(messages)
        while not self._alone.acquire(blocking=False):
            yield Generation(request.id, [""], [""], [None], None)
        try:
            yield from self._engine.stream(request, self._sampling)
        except BadInput as problem:
            raise NoAnswerError(str(problem).removeprefix(f"{request.id}: ")) from problem
        finally:
            self._alone.release()


class UrlAnswerer:
    """A model behind an OpenAI-compatible URL.

    Args:
        endpoint: Where it is. A person waits for it: few retries.
        sampling: How to draw.
    """

    def __init__(self, endpoint: Endpoint, sampling: Sampling) -> None:
        self.name = endpoint.model
        self._endpoint, self._sampling = endpoint, sampling

    def stream(self, messages: list[Message]) -> Generator[Generation, None, None]:
        """See `Answerer`."""
        request = _request(messages)
        engine = UrlEngine(self._endpoint)  # which keeps what failed, so each question has its own
        try:
            yield from engine.stream(request, self._sampling)
        except BadInput as problem:
            # It names hosts and variables, which concern whoever runs the page.
            logger.warning(problem)
            raise NoAnswerError(DOWN) from problem
        if engine.failed:
            raise NoAnswerError(f"The model server did not answer this: {engine.failed[request.id]}.")


def _request(messages: list[Message]) -> Request:
    # The random stream follows from the id: a new one each time gives another answer each time.
    return Request(uuid4().hex, [dict(message) for message in messages])
