"""A judge model behind a URL: asked, cached, counted and kept within a budget."""

from bnf_align.judge.judge import Estimate, Judge, Judgment

__all__ = ["Estimate", "Judge", "Judgment"]
