"""The responses that models are compared on, as token ids: preference rows, or a model's own answers."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from bnf_align.data.pairing import response_ids
from bnf_align.data.responses import Responses
from bnf_align.data.rows import preference_rows
from bnf_align.data.tokenize import tokenize_rows
from bnf_align.records import BadInput, DataReport, rows_text
from bnf_align.reference.cache import row_key

logger = logging.getLogger(__name__)

Row = dict[str, Any]

LABELLED = ("chosen", "rejected", "label", "rating")


@dataclass(frozen=True)
class Answers:
    """Tokenised responses, and what tells them apart."""

    responses: Responses
    names: list[tuple[int, str]]
    """(row, side) of each; the side is "answer" where the rows have no labels."""
    keys: list[str]
    """Hash of each one's token ids and of which of them are scored: equal for equal responses."""
    tokenizer: PreTrainedTokenizerBase
    report: DataReport

    def prompt(self, number: int) -> str:
        """What stands before the first scored token of a response, as text."""
        tokens = self.responses.tokens(number)
        return str(self.tokenizer.decode(tokens[: int(self.responses.mask(number).argmax())].tolist()))

    def pieces(self, number: int) -> list[str]:
        """The text of each scored token, with the space before it; part of a character is written as U+FFFD."""
        tokens = self.scored(number)
        alone = [str(self.tokenizer.decode([token])) for token in tokens]
        # Some tokenizers put a space between words when they decode, and so write none before a single one.
        spaced = [
            self.tokenizer.decode(list(pair)) == " ".join(texts)
            for pair, texts in zip(pairwise(tokens), pairwise(alone), strict=True)
        ]
        return [" " * space + text for space, text in zip([False, *spaced], alone, strict=True)]

    def scored(self, number: int) -> list[int]:
        """The ids of the scored tokens."""
        return list(self.responses.tokens(number)[self.responses.mask(number)].tolist())


def read_answers(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    *,
    source: str,
    max_length: int | None = 4096,
    merge_system_prompt: bool = False,
    score_thoughts: bool = True,
    **row_options: Any,
) -> Answers:
    """Read and tokenise responses as training does, with or without labels; errors and settings as there.

    `rows` are preference rows; or rows of prompt and completion; or what `bnf-align eval run --task wild_bench` wrote.
    The `tokenizer` has a padding token; `source` is what messages call the rows.
    """
    raw = [{**_texts(row), "row": number} for number, row in enumerate(rows)]
    renamed = (row_options.get("column_map") or {}).keys()
    labelled = bool(renamed & set(LABELLED)) or any(row.get(name) is not None for row in raw for name in LABELLED)
    named = raw if labelled else [{**row, "label": True} for row in raw]
    checked, report = preference_rows(named, source=source, **row_options)
    dataset = tokenize_rows(
        checked,
        tokenizer,
        report,
        max_length=max_length,
        merge_system_prompt=merge_system_prompt,
        score_thoughts=score_thoughts,
    )
    for reason, left_out in report.dropped.items():
        logger.warning(f"{source}: left out {rows_text(left_out)}: {reason}")
    responses = Responses(dataset)
    names = [(row, side if labelled else "answer") for row, side in response_ids(dataset)]
    _leave_out_unsaid_ends(responses, [raw[row].get("finish_reason") == "length" for row, _ in names])
    keys = [row_key(responses.tokens(row), responses.mask(row)).hex() for row in range(len(responses))]
    return Answers(responses, names, keys, tokenizer, report)


def check_tokens(
    answers: Answers, tokenizer: PreTrainedTokenizerBase, reference: PreTrainedTokenizerBase, name: str
) -> None:
    """Raise BadInput where a token id of `answers` means another text to the reference."""
    used = np.unique(answers.responses.ids).tolist()
    ours, theirs = (one.convert_ids_to_tokens(used) for one in (tokenizer, reference))
    if odd := [(token, *words) for token, *words in zip(used, ours, theirs, strict=True) if words[0] != words[1]]:
        token, here, there = odd[0]
        raise BadInput(
            f"{name} and the reference have different vocabularies: {len(odd):,} of {len(used):,} token ids that "
            f"occur mean something else (the first, {token}: {here!r} and {there!r}), so their log-likelihoods do not "
            "compare. Name the model that this one was trained from with --reference"
        )


def _texts(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """An answer to WildBench as prompt and completion; other rows as they are."""
    if not {"conversation_input", "output"} <= row.keys():
        return row
    answer = {"role": "assistant", "content": row["output"]}
    return {**row, "prompt": row["conversation_input"], "completion": [answer]}


def _leave_out_unsaid_ends(responses: Responses, cut: list[bool]) -> None:
    """Score no end token that the model never gave: generation stopped because the answer was long enough."""
    masks = responses.masks.copy()
    for row in np.flatnonzero(np.array(cut, dtype=bool) & (responses.ends >= 0)):
        masks[responses.starts[row] + responses.ends[row] : responses.starts[row + 1]] = False
    responses.masks = masks
