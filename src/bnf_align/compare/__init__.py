"""Methods x settings x seeds on the same rows, one record."""

from bnf_align.compare.compare import compare
from bnf_align.compare.config import Plan, read

__all__ = ["Plan", "compare", "read"]
