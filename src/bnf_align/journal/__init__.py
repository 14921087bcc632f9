"""Rows on disk that outlive a kill, and a reader of every file of rows."""

from bnf_align.journal.journal import Journal
from bnf_align.journal.lines import Row, read_jsonl

__all__ = ["Journal", "Row", "read_jsonl"]
