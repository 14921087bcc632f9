"""Scores by IFEval's checkers: the share of a prompt's instructions that a candidate follows."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from bnf_align.answers.ifeval import instructions_of, verdicts
from bnf_align.construct.scorers.scorer import Row, Scored, any_batches
from bnf_align.records import BadInput
from bnf_align.thoughts import without_thoughts

RULES = ("strict", "loose")


class IFEvalScorer:
    """The share of the instructions in a row's `instruction_id_list` and `kwargs`; 1 follows all of them.

    Scores compare between rows, as far as a half of two instructions is worth two of four.

    Args:
        rule: `strict`, or `loose`: the better of eight versions of the candidate counts.

    Raises:
        BadInput: If it is neither.
    """

    def __init__(self, rule: str = "strict") -> None:
        if rule not in RULES:
            raise BadInput(f"--rule {rule} is not one of --scorer ifeval: {' or '.join(RULES)}.")
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

    def plan(self, rows: Sequence[Row]) -> list[list[str]]:
        """See `Scorer`."""
        return any_batches(rows)
