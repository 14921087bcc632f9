"""GSM8K: 1,319 grade-school problems with a number as answer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bnf_align.evaluation.task import Hub, Row
from bnf_align.evaluation.tasks.zero_eval import ZeroEvalTask, gold_number, required


@dataclass(frozen=True)
class GSM8K(ZeroEvalTask):
    """ZeroEval's `gsm`: right where the first numbers are the same."""

    name = "gsm8k"
    hub = Hub("openai/gsm8k", "main", "test", "e53f048856ff4f594e959d75785d2c2d37b678ee")

    def items(self, rows: Iterable[Row]) -> list[Row]:
        """Items from rows with `question` and `answer`: a worked solution, or ZeroEval's "# 18"."""
        return [
            {
                "id": str(row.get("id", f"gsm8k-main-test-#{number}")),
                "question": row["question"],
                "answer": gold_number(row["answer"]),
            }
            for number, row in enumerate(required(rows, ("question", "answer"), self.name))
        ]
