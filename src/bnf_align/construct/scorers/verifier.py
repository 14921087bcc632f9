"""Scores of 0 and 1 by a rule: a final answer that is right, a text that is equal, or a function of the user's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from bnf_align.answers import solves
from bnf_align.answers.second_opinion import equivalent
from bnf_align.construct.scorers.scorer import Row, Scored, finite
from bnf_align.records import BadInput, rows_text

Rule = Callable[[Row, str], Any]
"""(row, candidate) -> whether it is right, a number, or None where the rule has no opinion."""


ROWS_AT_A_TIME = 256


def _gold(row: Row, column: str) -> str:
    return str(row[column])


RULES: dict[str, Callable[[str], Rule]] = {
    # GSM8K's: the number after `####`, `answer is` or boxed; a solution without any of these has come to none.
    "final_answer": lambda column: lambda row, text: solves(text, _gold(row, column)),
    "math_verify": lambda column: lambda row, text: equivalent(text, _gold(row, column)),
    "exact": lambda column: lambda row, text: text.strip() == _gold(row, column).strip(),
}


class Verifier:
    """A rule over every candidate; its scores compare between rows.

    Args:
        rule: `final_answer`, `math_verify`, `exact`, or `package.module:function` of (row, candidate).
        column: The column with the right answer, for the three named rules.

    Raises:
        BadInput: If there is no such rule or function.
    """

    def __init__(self, rule: str = "final_answer", column: str = "answer") -> None:
        self.rule_name, self.column = rule, column
        self.name = f"verifier:{rule}"
        self._named = rule in RULES
        self._rule = RULES[rule](column) if self._named else _imported(rule)

    @property
    def card(self) -> Row:
        """The rule and its column."""
        return {"scorer": self.name, "column": self.column if self._named else None}

    def score(self, rows: Sequence[Row], done: Collection[str] = ()) -> Iterator[list[Scored]]:
        """One row at a time.

        Raises:
            BadInput: If rows lack the column with the right answer.
        """
        lacking = [number for number, row in enumerate(rows) if self._named and row.get(self.column) is None]
        if lacking:
            raise BadInput(
                f"{rows_text(lacking)} have no `{self.column}` to compare candidates with. Name the column of the "
                "right answer with --answer-column."
            )
        for row in rows:
            if row["id"] not in done:
                yield [Scored(row["id"], [_number(self._rule(row, one["text"])) for one in row["candidates"]])]

    def plan(self, rows: Sequence[Row]) -> list[list[str]]:
        """See `SharedScorer`. Any rows may go together; these are enough to be worth a message."""
        ids = [row["id"] for row in rows]
        return [ids[start : start + ROWS_AT_A_TIME] for start in range(0, len(ids), ROWS_AT_A_TIME)]


def _number(value: Any) -> float | None:
    return None if value is None else finite(float(value))


def _imported(path: str) -> Rule:
    module, _, name = path.partition(":")
    if not name:
        raise BadInput(
            f"--rule {path}: choose one of {', '.join(RULES)}, or name a function of (row, candidate) as "
            "package.module:function."
        )
    sys.path.insert(0, str(Path.cwd()))  # a user's own file lies beside the command
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise BadInput(f"--rule {path} cannot be imported: {error}.") from error
    finally:
        sys.path.pop(0)
    return found
