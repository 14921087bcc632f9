"""Take what only certain rows account for out of the reference cache, where somebody's rows have to be deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from bnf_align.data.pairing import kl_rows
from bnf_align.data.responses import Responses
from bnf_align.data.rows import preference_rows
from bnf_align.data.tokenize import tokenize_rows
from bnf_align.records import DataReport
from bnf_align.reference.cache import remove_entries, row_key


def forget(
    root: str | Path,
    rows: Sequence[Mapping[str, Any]],
    kept: Sequence[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None,
    merge_system_prompt: bool = False,
    score_thoughts: bool = True,
) -> int:
    """Remove the entries of `rows` that the `kept` ones among them do not account for; returns how many.

    An entry is found by its content, so its tokens are made again, as training made them.

    Args:
        root: Folder of all namespaces.
        rows: All rows of a source, as they were trained on.
        kept: Those that stay.
        tokenizer: As it was in training, with chat template and end token.
        max_length: As it was in training: a response that was cut is another entry.
        merge_system_prompt: As it was in training.
        score_thoughts: As it was in training: another mask is another entry.

    Raises:
        BadInput: If the tokenizer cannot write the rows, so that they cannot be in a cache either.
    """

    def keys(rows: Sequence[Mapping[str, Any]]) -> set[bytes]:
        if not rows:
            return set()
        checked, report = preference_rows(rows, source="the rows", conflicting_labels="keep")
        made = tokenize_rows(
            checked,
            tokenizer,
            DataReport(report.source),
            max_length=max_length,
            merge_system_prompt=merge_system_prompt,
            score_thoughts=score_thoughts,
        )
        parts = (Responses(made), Responses(kl_rows(made, max_length)))
        return {row_key(part.tokens(row), part.mask(row)) for part in parts for row in range(len(part))}

    return remove_entries(root, keys(rows) - keys(kept))
