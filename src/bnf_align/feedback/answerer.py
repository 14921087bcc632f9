"""One answer at a time, for somebody who waits for it."""

from __future__ import annotations

import logging
import threading
from typing import Protocol
from uuid import uuid4

from bnf_align.endpoint import Endpoint
from bnf_align.engines import Engine, Request, Sampling
from bnf_align.engines.url import UrlEngine
from bnf_align.feedback.store import Message
from bnf_align.records import BadInput

logger = logging.getLogger(__name__)

DOWN = (
    "The model does not answer: its server is down, or refuses, as it does when a conversation has grown too long. "
    "Whoever runs this page finds the reason in its log."
)
EMPTY = "The model's answer was empty, so there is nothing to judge."


class NoAnswerError(Exception):
    """There is no answer; the message says so to the person who asked."""


class Answerer(Protocol):
    """A model that people talk to."""

    name: str
    """As it stands in the rows."""
    together: int
    """How many questions it takes at a time."""

    def answer(self, messages: list[Message]) -> str:
        """What the model says to a conversation; asked again, it may say something else.

        Raises:
            NoAnswerError: If it says nothing, cannot be reached, or refuses.
        """
        ...


class LocalAnswerer:
    """A model in this process, which answers one question after the other.

    Args:
        engine: The model.
        sampling: How to draw.
    """

    together = 1

    def __init__(self, engine: Engine, sampling: Sampling) -> None:
        self.name = engine.name
        self._engine, self._sampling = engine, sampling
        self._alone = threading.Lock()

    def answer(self, messages: list[Message]) -> str:
        """See `Answerer`."""
        request = _request(messages)
        try:
            with self._alone:
                ((generation,),) = self._engine.generate([request], self._sampling)
        except BadInput as problem:
            raise NoAnswerError(str(problem).removeprefix(f"{request.id}: ")) from problem
        return _not_empty(generation.texts[0])


class UrlAnswerer:
    """A model behind an OpenAI-compatible URL.

    Args:
        endpoint: Where it is. A person waits for it: few retries.
        sampling: How to draw.
    """

    together = 16

    def __init__(self, endpoint: Endpoint, sampling: Sampling) -> None:
        self.name = endpoint.model
        self._endpoint, self._sampling = endpoint, sampling

    def answer(self, messages: list[Message]) -> str:
        """See `Answerer`."""
        request = _request(messages)
        engine = UrlEngine(self._endpoint)  # which keeps what failed, so each question has its own
        try:
            batches = list(engine.generate([request], self._sampling))
        except BadInput as problem:
            # It names hosts and variables, which concern whoever runs the page.
            logger.warning(problem)
            raise NoAnswerError(DOWN) from problem
        if not batches:
            raise NoAnswerError(f"The model server did not answer this: {engine.failed[request.id]}.")
        return _not_empty(batches[0][0].texts[0])


def _request(messages: list[Message]) -> Request:
    # The random stream follows from the id: a new one each time gives another answer each time.
    return Request(uuid4().hex, [dict(message) for message in messages])


def _not_empty(text: str) -> str:
    if not text.strip():
        raise NoAnswerError(EMPTY)
    return text
