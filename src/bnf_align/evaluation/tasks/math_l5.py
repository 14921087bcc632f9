"""MATH, level 5: the 721 hardest competition problems whose answer is an integer (two of them only nearly)."""

from __future__ import annotations

from dataclasses import dataclass

from bnf_align.evaluation.task import Hub
from bnf_align.evaluation.tasks.zero_eval import ZeroEvalTask


@dataclass(frozen=True)
class MathLevel5(ZeroEvalTask):
    """ZeroEval's `math-l5`: right where the first numbers are the same."""

    name = "math_l5"
    hub = Hub("AI-MO/aimo-validation-math-level-5", "default", "train", "f6a57be5b8b7818f6abc1b91ada912f474466abc")
    text = "problem"
