"""A conversation with a model, and what its answers were found to be."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import NamedTuple
from uuid import uuid4

from bnf_align.feedback.answerer import Answerer, NoAnswerError
from bnf_align.feedback.store import Message, Row, Store, thumb


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
    """A question and its answer."""

    question: str
    answer: str
    row: Row | None = None
    """The judgement that is in the store; None for an answer without one."""

    @property
    def label(self) -> bool | None:
        """True for a thumb up, False for a thumb down, None for neither."""
        return bool(self.row["label"]) if self.row else None


class Talk:
    """One person's conversation. It is kept here: what a browser sends is a question, a name, a thumb or a reason.

    Args:
        answerer: The model.
        store: Where thumbs go.
        system: A system message to begin with; empty for none.
    """

    def __init__(self, answerer: Answerer, store: Store, system: str = "") -> None:
        self.id = uuid4().hex
        self.turns: list[Turn] = []
        self.unanswered = ""
        """A question that has no answer yet, or got none."""
        self._answerer, self._store = answerer, store
        self._system: list[Message] = [{"role": "system", "content": system}] if system else []
        self._asking, self._judging = threading.Lock(), threading.Lock()

    def ask(self, question: str) -> None:
        """Put a question and wait for its answer; where there is none, the question stays in `unanswered`.

        Raises:
            NoAnswerError: If there is no answer, or an earlier question still waits for its own.
        """
        if not self._asking.acquire(blocking=False):
            raise NoAnswerError("The model is still at your last question.")
        try:
            self.unanswered = question
            answer = self._answerer.answer([*self._before(len(self.turns)), _message("user", question)])
            self.turns.append(Turn(question, answer))
            self.unanswered = ""
        finally:
            self._asking.release()

    @property
    def waits(self) -> bool:
        """Whether a question is being answered."""
        return self._asking.locked()

    def wait(self) -> None:
        """Wait until it is answered."""
        with self._asking:
            pass

    def rate(self, place: Place, label: bool | None, user: str | None = None) -> None:
        """Store a thumb for the answer of a turn; None takes it back. A reason belongs to its thumb and goes with it.

        Raises:
            StaleError: If there is no such turn.
            OSError: If that cannot be stored; what was stored before still is.
        """
        with self._judging:
            turn = self._turn(place)
            if label == turn.label:
                return
            row = None
            if label is not None:
                prompt = [*self._before(place.at), _message("user", turn.question)]
                row = thumb(prompt, turn.answer, label, user=user, model=self._answerer.name)
            turn.row = self._store.put(turn.row, row)

    def explain(self, place: Place, reason: str) -> None:
        """Say why a thumb was given.

        Raises:
            StaleError: If there is no such thumb, or somebody had it deleted.
            OSError: If that cannot be stored.
        """
        with self._judging:
            turn = self._turn(place)
            row = turn.row and {**turn.row, "reason": reason.strip() or None}
            turn.row = row if row and self._store.replace(row) else None
            if turn.row is None:
                raise StaleError

    def _turn(self, place: Place) -> Turn:
        if place.talk != self.id or not 0 <= place.at < len(self.turns):
            raise StaleError
        return self.turns[place.at]

    def _before(self, index: int) -> list[Message]:
        """The conversation before a turn."""
        messages = list(self._system)
        for turn in self.turns[:index]:
            messages += [_message("user", turn.question), _message("assistant", turn.answer)]
        return messages


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
