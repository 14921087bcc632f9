"""Take what only certain rows account for out of the reference cache, where somebody's rows have to be deleted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from bnf_align.data.pairing import kl_rows
from bnf_align.data.responses import Responses
from bnf_align.data.rows import preference_rows
from bnf_align.data.tokenize import tokenize_rows
from bnf_align.records import DataReport
from bnf_align.reference.cache import remove_entries, row_key

Rows = Sequence[Mapping[str, Any]]
Tokens = dict[bytes, tuple[np.ndarray, np.ndarray]]


def forget(
    root: str | Path, rows: Rows, kept: Rows, tokenizer: PreTrainedTokenizerBase, merge_system_prompt: bool = False
) -> tuple[int, int]:
    """Remove the entries of `rows` that the `kept` ones among them do not account for.

    An entry is found by its content, so that must be made again: a response's tokens, at every length it can have been
    cut to. KTO's mismatched responses have two rows in them, and are found where training saw the rows as they are.

    Args:
        root: Folder of all namespaces.
        rows: All rows of a source, as they were trained on.
        kept: Those that stay.
        tokenizer: As it was in training, with chat template and end token.
        merge_system_prompt: As it was in training.

    Returns:
        How many entries were removed, and from how many namespaces.

    Raises:
        BadInput: If the tokenizer cannot write the rows, so that they cannot be in a cache either.
    """
    before = _tokens(rows, tokenizer, merge_system_prompt)
    after = _tokens(kept, tokenizer, merge_system_prompt) if kept else {}
    gone = (tokens for key, tokens in before.items() if key not in after)
    return remove_entries(root, {key for ids, mask in gone for key in _keys(ids, mask)})


def _tokens(rows: Rows, tokenizer: PreTrainedTokenizerBase, merge_system_prompt: bool) -> Tokens:
    """Key -> token ids and mask of every response that training makes of `rows`, uncut."""
    checked, report = preference_rows(rows, source="the rows", conflicting_labels="keep")
    made = tokenize_rows(
        checked, tokenizer, DataReport(report.source), max_length=None, merge_system_prompt=merge_system_prompt
    )
    found: Tokens = {}
    for responses in (Responses(made), Responses(kl_rows(made, None))):
        for row in range(len(responses)):
            ids, mask = responses.tokens(row), responses.mask(row)
            found[row_key(ids, mask)] = ids, mask
    return found


def _keys(ids: np.ndarray, mask: np.ndarray) -> Iterator[bytes]:
    """The keys of a response at every length that leaves it a scored token."""
    for length in range(int(mask.argmax()) + 1, len(ids) + 1):
        yield row_key(ids[:length], mask[:length])
