"""Many calls at once to models behind OpenAI-compatible URLs."""

from bnf_align.endpoint.call import Call, Reply, Unanswered
from bnf_align.endpoint.endpoint import Endpoint

__all__ = ["Call", "Endpoint", "Reply", "Unanswered"]
