"""GSM8K: 1,319 grade-school problems with a number as answer."""

from __future__ import annotations

from dataclasses import dataclass

from bnf_align.evaluation.task import Hub
from bnf_align.evaluation.tasks.zero_eval import ZeroEvalTask


@dataclass(frozen=True)
class GSM8K(ZeroEvalTask):
    """ZeroEval's `gsm`: right where the first numbers are the same."""

    name = "gsm8k"
    hub = Hub("openai/gsm8k", "main", "test", "e53f048856ff4f594e959d75785d2c2d37b678ee")
    ids = "gsm8k-main-test-#{}"
