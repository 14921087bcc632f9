"""Benchmarks: answers, judgments, scores and what can be said about them."""

from bnf_align.evaluation.result import EvalResult
from bnf_align.evaluation.score import score_outputs

__all__ = ["EvalResult", "score_outputs"]
