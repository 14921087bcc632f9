"""A conversation with a model, or questions to two, and what the answers were found to be."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, NamedTuple
from uuid import uuid4

from bnf_align.feedback.answerer import Answerer, NoAnswerError
from bnf_align.feedback.store import Message, Row, Store
from bnf_align.feedback.verdict import Answer, Verdict, rows_of, verdict_of

logger = logging.getLogger(__name__)

PACE = 0.2
"""Seconds between two looks at an answer on its way."""
REST = 0.02
"""Seconds that are waited for models that have nothing new."""
ALONE = 10.0
"""Seconds after which an answer that nobody looks at is given up: longer than a page takes to be loaded anew."""

EMPTY = "The model's answer was empty, so there is nothing to judge."
STOPPED = "The answer was stopped. Half an answer is nothing to judge, so it is not kept."
BUSY = "The model is still at your last question."
BROKEN = "The model failed. Whoever runs this page finds the reason in its log."
ONE_OF_TWO = (
    "One of the two models did not answer, so there is nothing to compare. Whoever runs this page finds the reason in "
    "its log."
)


class StaleError(LookupError):
    """Somebody judged what is not there any more."""


class Place(NamedTuple):
    """Which answer is meant, as the page that was clicked on has it."""

    talk: str
    """`Talk.id`: a thumb for an answer of an older conversation is not one for this."""
    at: int
    """Number of the turn, from 0."""


@dataclass
class Turn:
    """A question and its answer, or its two answers."""

    question: str
    answers: tuple[Answer, ...]
    """In the order in which they stand on the page."""
    about: dict[str, Any] = field(default_factory=dict)
    """What its rows keep beside the answers and the verdict."""
    rows: list[Row] = field(default_factory=list)
    """The judgement that is in the store; empty without one."""

    @property
    def verdict(self) -> Verdict | None:
        """What was said of it."""
        return verdict_of(self.rows, self.answers)

    @property
    def reason(self) -> str:
        """And why."""
        return (self.rows and self.rows[0]["reason"]) or ""

    @property
    def same(self) -> bool:
        """Whether its two answers are equal: none is better then."""
        return len(self.answers) == 2 and self.answers[0].text == self.answers[1].text


class Coming:
    """The answers to a question, as far as they are written."""

    def __init__(self, question: str, number: int) -> None:
        self.question, self.texts = question, [""] * number
        self.stopped = False
        self.looked = time.monotonic()
        """When somebody last looked."""
        self.ended = threading.Event()


class Talk:
    """One person's conversation. It is kept here: what a browser sends is a question, a name, a thumb or a reason.

    With two models every question begins anew, so that both answer the same, and their answers stand side by side
    without names, in an order that is drawn for each question.

    Args:
        answerers: The model, or two.
        store: Where thumbs go.
        system: A system message to begin with; empty for none.
        seed: Of the orders: that of a comparison follows from it and from the `item` of its rows, which no page shows.
    """

    def __init__(self, answerers: Sequence[Answerer], store: Store, system: str = "", seed: int = 0) -> None:
        self.id = uuid4().hex
        self.turns: list[Turn] = []
        self.coming: Coming | None = None
        """What is being answered; None for nothing."""
        self.unanswered = ""
        """A question that has no answer yet, or got none."""
        self.problem = ""
        """Why it got none, for the person."""
        self._answerers, self._store, self._seed = answerers, store, seed
        self._system: list[Message] = [{"role": "system", "content": system}] if system else []
        self._asking, self._judging = threading.Lock(), threading.Lock()

    @property
    def compares(self) -> bool:
        """Whether two models answer."""
        return len(self._answerers) == 2

    def ask(self, question: str) -> None:
        """Begin to answer a question, in a thread of its own; see `watch`.

        A question that gets no answer stays in `unanswered`, and `problem` says why. Of an answer that was stopped, or
        failed on its way, nothing is kept.

        Raises:
            NoAnswerError: If an earlier question is still being answered.
        """
        with self._asking:
            if self.coming:
                raise NoAnswerError(BUSY)
            self.unanswered, self.problem = question, ""
            self.coming = Coming(question, len(self._answerers))
        threading.Thread(target=self._answer, args=[self.coming], name="answer", daemon=True).start()

    def watch(self) -> Iterator[None]:
        """Comes back every `PACE` seconds until nothing is being answered; unwatched, an answer is given up."""
        coming = self.coming
        while coming:
            coming.looked = time.monotonic()
            yield
            if coming.ended.wait(PACE):
                return

    def stop(self) -> None:
        """End the answer that is being written, if any."""
        if coming := self.coming:
            coming.stopped = True

    def rate(self, place: Place, verdict: Verdict | None, user: str | None = None, reason: str = "") -> None:
        """Store a verdict on the answers of a turn; None takes it back. A reason goes with its verdict.

        Raises:
            StaleError: If there is no such turn, or it cannot be judged so.
            OSError: If that cannot be stored; what was stored before still is.
        """
        with self._judging:
            turn = self._turn(place)
            if verdict == turn.verdict:
                return
            if turn.same or (isinstance(verdict, str) and not self.compares):
                raise StaleError
            rows = []
            if verdict is not None:
                prompt = [*self._before(place.at), _message("user", turn.question)]
                rows = rows_of(prompt, turn.answers, verdict, reason, user=user, **turn.about)
            turn.rows = self._store.put_all(turn.rows, rows)

    def explain(self, place: Place, reason: str) -> None:
        """Say why a verdict was given; the reason for one that is not given yet comes with it.

        Raises:
            StaleError: If there is no such turn, or somebody had its rows deleted.
            OSError: If that cannot be stored.
        """
        with self._judging:
            turn = self._turn(place)
            if turn.rows:
                turn.rows = self._store.explain(turn.rows, reason)
                if not turn.rows:
                    raise StaleError

    def _answer(self, coming: Coming) -> None:
        """Have a question answered, and keep the answers when they are whole."""
        item = uuid4().hex
        answerers = list(self._answerers)
        random.Random(f"{self._seed}/{item}").shuffle(answerers)
        try:
            answers = self._written(coming, answerers)
        except NoAnswerError as problem:
            self.problem = str(problem)
            if self.compares and self.problem != STOPPED:  # it may name the model
                logger.warning(self.problem)
                self.problem = ONE_OF_TWO
        except Exception:  # memory, a driver, ...: a page must not lose what was typed because of a model
            logger.exception("the model failed")
            self.problem = BROKEN
        else:
            about = {"item": item, "seed": self._seed} if self.compares else {}
            self.turns.append(Turn(coming.question, answers, about))
            self.unanswered = ""
        finally:
            self.coming = None
            coming.ended.set()

    def _written(self, coming: Coming, answerers: Sequence[Answerer]) -> tuple[Answer, ...]:
        """The answers, a piece of each at a time: of two models in process none is ahead because it is the faster one.

        Raises:
            NoAnswerError: If there is none, or it is not to be written any further.
        """
        messages = [*self._before(len(self.turns)), _message("user", coming.question)]
        with ExitStack() as open_streams:
            streams = [open_streams.enter_context(closing(one.stream(messages))) for one in answerers]
            said: list[Any] = [None] * len(streams)
            for pieces in zip_longest(*streams):
                if coming.stopped or time.monotonic() - coming.looked > ALONE:
                    raise NoAnswerError(STOPPED)
                news = [piece or old for piece, old in zip(pieces, said, strict=True)]
                if news == said:
                    time.sleep(REST)
                said = news
                coming.texts = [one.texts[0] if one else "" for one in said]
        if not all(text.strip() for text in coming.texts):
            raise NoAnswerError(EMPTY)
        return tuple(
            Answer(one.texts[0], answerer.name, one.finish_reasons[0] == "length")
            for one, answerer in zip(said, answerers, strict=True)
        )

    def _turn(self, place: Place) -> Turn:
        if place.talk != self.id or not 0 <= place.at < len(self.turns):
            raise StaleError
        return self.turns[place.at]

    def _before(self, index: int) -> list[Message]:
        """What the models were told before the question of a turn."""
        messages = list(self._system)
        for turn in () if self.compares else self.turns[:index]:
            messages += [_message("user", turn.question), _message("assistant", turn.answers[0].text)]
        return messages


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
