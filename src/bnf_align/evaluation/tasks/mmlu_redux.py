"""MMLU-Redux: 30 subjects of MMLU whose questions were checked by hand; 2,778 of 3,000 are left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from bnf_align.answers import letter_of, picks
from bnf_align.evaluation.task import Hub, Row
from bnf_align.evaluation.tasks.zero_eval import FORM, ZeroEvalTask, required
from bnf_align.records import BadInput

LETTERS = "ABCDEF"
"""What counts as a correction; annotators also wrote texts there."""


@dataclass(frozen=True)
class MMLURedux(ZeroEvalTask):
    """ZeroEval's `mmlu-redux`."""

    name = "mmlu_redux"
    # A commit of 2024: on 8 February 2025 one annotation of high_school_mathematics was changed.
    hub = Hub("edinburgh-dawg/mmlu-redux", None, "test", "2ebba46760ad1df575a6b9df42c280b1d5fb3c10")
    template = f"""\
## Question:

{{question}}

## Choices:

{{choices}}
## Instruction

Work the problem out before you settle on a choice. Reply with one JSON object of the form shown here: all of your \
working in `reasoning`, nothing but the letter of your choice in `answer`.

{FORM}"""
    gold = ("choices", "correct_answer")
    blank_is_answer = False
    numeric = False

    def items(self, rows: Iterable[Row]) -> list[Row]:
        """Items from the hub's rows (`config` is the subject), bad questions left out, or from ZeroEval's."""
        rows = list(rows)
        if not any("error_type" in row for row in rows):
            names = ("id", "question", "choices", "correct_answer")
            return [{name: row[name] for name in names} for row in required(rows, names, self.name)]
        seen: Counter[str] = Counter()
        items = []
        for row in required(rows, ("question", "choices", "answer", "error_type", "config"), self.name):
            subject = row["config"]
            if (gold := _gold(row)) is not None:
                about = {key: row[key] for key in ("question", "choices")}
                items.append({"id": f"mmlu-redux-{subject}-#{seen[subject]}", **about, "correct_answer": gold})
            seen[subject] += 1  # bad questions are counted too
        return items

    def fields(self, item: Row) -> dict[str, str]:
        """`question`, and `choices` as lines that each end with a newline."""
        lines = (f"- ({letter}) {choice}\n" for letter, choice in zip(ascii_uppercase, item["choices"], strict=False))
        return {"question": item["question"], "choices": "".join(lines)}

    def right(self, answer: Any, row: Row) -> bool:
        """Whether the right letter is picked.

        Raises:
            BadInput: If no choice reads as the right answer does.
        """
        letter = letter_of(row["choices"], row["correct_answer"])
        if letter is None:
            raise BadInput(
                f"Item {row.get('id')!r}: the `correct_answer` {row['correct_answer']!r} is none of its `choices`. "
                "It must be the text of one of them."
            )
        return picks(answer, letter)


def _gold(row: Row) -> str | None:
    """The text of the right choice; None for a question that has none, several, or is unclear."""
    if row["error_type"] == "ok":
        return row["choices"][int(row["answer"])]
    correction = row.get("correct_answer")
    if row["error_type"] != "wrong_groundtruth" or correction not in tuple(LETTERS):
        return None
    index = LETTERS.index(correction)
    return row["choices"][index] if index < len(row["choices"]) else None
