"""Benchmarks: answers, judgments, scores and what can be said about them."""

from bnf_align.evaluation.score import score_outputs
from bnf_align.evaluation.task import EvalResult

__all__ = ["EvalResult", "score_outputs"]
