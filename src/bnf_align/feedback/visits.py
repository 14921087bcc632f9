"""Which browser is at which conversation or review, so that a reload goes on where it was."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Work = TypeVar("Work")

MOST = 10_000
"""Visits that are remembered; with more, the one that was idle longest begins anew."""


@dataclass
class Visit(Generic[Work]):
    """A browser that was here."""

    token: str
    """What the browser knows it by; nobody can guess it."""
    work: Work
    name: str = ""
    """What the person goes by, if anything."""

    @property
    def user(self) -> str | None:
        """The name as it stands in the rows."""
        return " ".join(self.name.split()) or None


class Visits(Generic[Work]):
    """Every browser's visit, in memory alone: what was not judged ends with the process.

    Args:
        begin: Makes what a visit starts with.
    """

    def __init__(self, begin: Callable[[], Work]) -> None:
        self.begin = begin
        self._visits: OrderedDict[str, Visit[Work]] = OrderedDict()

    def of(self, token: Any, name: str | None = None) -> Visit[Work]:
        """The visit with this token, or one that begins now.

        Args:
            token: What the browser sent.
            name: What the person goes by now; None leaves it.
        """
        visit = self._visits.get(token) if isinstance(token, str) else None
        if visit is None:
            visit = Visit(secrets.token_urlsafe(24), self.begin())
            self._visits[visit.token] = visit
            while len(self._visits) > MOST:
                self._visits.popitem(last=False)
        self._visits.move_to_end(visit.token)
        if name is not None:
            visit.name = name
        return visit
