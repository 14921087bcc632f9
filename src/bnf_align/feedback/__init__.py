"""Where thumbs come from: a page where people judge a model's answers, and the file that keeps what they said."""

from bnf_align.feedback.store import Store

__all__ = ["Store"]
