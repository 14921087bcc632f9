"""Rows on disk that outlive a kill, and a reader of every file of rows."""

from bnf_align.journal.journal import Journal
from bnf_align.journal.lines import read_jsonl

__all__ = ["Journal", "read_jsonl"]
