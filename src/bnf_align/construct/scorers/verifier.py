"""Scores by a rule: a final answer that is right, an equal text, a function of the user's, IFEval's checkers."""

from __future__ import annotations

import inspect
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import xxhash

from bnf_align.answers import equivalent, gold_expression, solves
from bnf_align.answers.ifeval import instructions_of, verdicts
from bnf_align.construct.scorers.scorer import Row, Scored, any_batches, finite
from bnf_align.records import BadInput
from bnf_align.thoughts import without_thoughts

Rule = Callable[[Row, str], Any]
"""(row, candidate) -> whether it is right, a number, or None where the rule has no opinion."""


RULES: dict[str, Callable[[str], Rule]] = {
    # After `####`, `answer is` or in a box, or a number alone; a solution without any of these has come to none.
    "final_answer": lambda column: lambda row, text: solves(text, str(row[column])),
    "math_verify": lambda column: lambda row, text: equivalent(without_thoughts(text), str(row[column])),
    "exact": lambda column: lambda row, text: without_thoughts(text).strip() == str(row[column]).strip(),
}
VERSION = 2
"""Raise it whenever a rule of these finds otherwise: scores of two versions do not mix."""


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
        """The rule with its version and its column; of a function of the user's the hash of its file."""
        own = {"rules": VERSION} if self._named else {"code": _code_hash(self._rule)}
        return {"scorer": self.name, "column": self.column if self._named else None, **own}

    def score(self, rows: Sequence[Row], done: Collection[str] = ()) -> Iterator[list[Scored]]:
        """One row at a time.

        Raises:
            BadInput: As `check` does, and if a function of the user's fails on a candidate.
        """
        self.check(rows)
        for row in rows:
            if row["id"] not in done:
                yield [Scored(row["id"], [self._score(row, number) for number in range(len(row["candidates"]))])]

    def check(self, rows: Sequence[Row]) -> None:
        """Look at the right answers alone, before there are candidates.

        Raises:
            BadInput: If rows lack the column with the right answer, or `final_answer` cannot read it.
        """
        # Ids, as on a cluster a row's number would be its place in a batch.
        lacking = [row["id"] for row in rows if self._named and row.get(self.column) is None]
        if lacking:
            raise BadInput(
                f"{len(lacking):,} {'row has' if len(lacking) == 1 else 'rows have'} no `{self.column}` to compare "
                f"candidates with, the first with the id {lacking[0]!r}. Name the column of the right answer with "
                "`score --answer-column`, or call it `answer`."
            )
        if self.rule_name == "final_answer":
            self._refuse_unread_gold(rows)

    def _refuse_unread_gold(self, rows: Sequence[Row]) -> None:
        """Stop where every candidate of a row would be wrong, because nothing can equal its right answer."""
        unread: dict[str, str] = {}
        for row in rows:
            try:
                gold_expression(str(row[self.column]))
            except BadInput as error:
                unread[row["id"]] = str(error)
        if unread:
            name, why = next(iter(unread.items()))
            raise BadInput(f"{len(unread):,} of {len(rows):,} rows cannot be scored. Of the first, {name!r}, {why}.")

    def _score(self, row: Row, number: int) -> float | None:
        try:
            value = self._rule(row, row["candidates"][number]["text"])
            return None if value is None else finite(float(value))
        except Exception as error:
            if self._named:
                raise
            last = traceback.extract_tb(error.__traceback__)[-1]
            place = "" if last.filename == __file__ else f" ({last.filename}, line {last.lineno})"  # theirs, not ours
            raise BadInput(
                f"--rule {self.rule_name} fails on candidate {number} of the row with the id {row['id']!r}: "
                f"{type(error).__name__}: {error}{place}. It is called with the row "
                "and the candidate's text, and gives a number, true or false, or None for no score."
            ) from error

    plan = staticmethod(any_batches)


def _code_hash(function: Callable[..., Any]) -> str | None:
    """Hash of the file that a function stands in; None where it comes from none."""
    try:
        file = inspect.getsourcefile(function)
    except TypeError:  # of C
        return None
    return None if file is None else xxhash.xxh3_128(Path(file).read_bytes()).hexdigest()


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
    if not callable(found):
        raise BadInput(f"--rule {path} is {found!r}, not a function of (row, candidate).")
    return found


READINGS = ("strict", "loose")


class IFEvalScorer:
    """The share of the instructions in a row's `instruction_id_list` and `kwargs`; 1 follows all of them.

    Scores compare between rows, as far as a half of two instructions is worth two of four.

    Args:
        rule: `strict`, or `loose`: the better of eight versions of the candidate counts.

    Raises:
        BadInput: If it is neither.
    """

    def __init__(self, rule: str = "strict") -> None:
        if rule not in READINGS:
            raise BadInput(f"--rule {rule} is not one of --scorer ifeval: {' or '.join(READINGS)}.")
        self.rule, self.name = rule, f"ifeval:{rule}"

    @property
    def card(self) -> Row:
        """The rule."""
        return {"scorer": self.name}

    def score(self, rows: Sequence[Row], done: Collection[str] = ()) -> Iterator[list[Scored]]:
        """One row at a time.

        Raises:
            BadInput: If rows have no instructions, or such as IFEval does not know; none is scored then.
        """
        for row, instructions in zip(rows, instructions_of(rows), strict=True):
            if row["id"] not in done:
                found = [
                    verdicts(without_thoughts(one["text"]), instructions, self.rule == "loose")
                    for one in row["candidates"]
                ]
                yield [Scored(row["id"], [sum(followed) / len(followed) for followed in found])]

    plan = staticmethod(any_batches)
