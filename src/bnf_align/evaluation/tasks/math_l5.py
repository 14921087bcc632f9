"""MATH, level 5: the 721 hardest competition problems whose answer is an integer (two of them only nearly)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bnf_align.evaluation.task import Hub, Row
from bnf_align.evaluation.tasks.zero_eval import ZeroEvalTask, gold_number, required


@dataclass(frozen=True)
class MathLevel5(ZeroEvalTask):
    """ZeroEval's `math-l5`: right where the first numbers are the same."""

    name = "math_l5"
    hub = Hub("AI-MO/aimo-validation-math-level-5", "default", "train", "f6a57be5b8b7818f6abc1b91ada912f474466abc")

    def items(self, rows: Iterable[Row]) -> list[Row]:
        """Items from rows with `answer` and `problem` (the hub's) or `question` (ZeroEval's)."""
        renamed = [{**row, "question": row.get("question", row.get("problem"))} for row in rows]
        return [
            {"id": str(row.get("id", number)), "question": row["question"], "answer": gold_number(row["answer"])}
            for number, row in enumerate(required(renamed, ("question", "answer"), self.name))
        ]
