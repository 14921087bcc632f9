"""From a source's rows to its responses, as the settings of a run want them: check, hold out, tokenise, keep."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import datasets
from accelerate import PartialState
from transformers import PreTrainedTokenizerBase

from bnf_align.config import PreferenceConfig
from bnf_align.data.assignments import assignments
from bnf_align.data.pairing import for_pairs, for_ups
from bnf_align.data.rows import preference_rows, remark_on_balance, split_by_prompt
from bnf_align.data.tokenize import tokenize_rows
from bnf_align.records import BadInput, DataReport, PreferenceRow

logger = logging.getLogger(__name__)

Rows = Iterable[Mapping[str, Any]]


def checked_rows(name: str, rows: Rows, config: PreferenceConfig) -> tuple[list[PreferenceRow], DataReport]:
    """Check the rows called `name` under the column, label and role names that `config` gives."""
    return preference_rows(
        rows,
        source=f"{name} rows",
        column_map=assignments("map", config.map),
        label_map=assignments("label_map", config.label_map),
        role_map=assignments("role_map", config.role_map),
        conflicting_labels=config.conflicting_labels,
    )


Checked = dict[str, tuple[list[PreferenceRow], DataReport]]


def held_out(checked: Checked, fraction: float) -> Checked:
    """Training rows without those of the held-out prompts, and these as evaluation rows."""
    if "eval" in checked:
        raise BadInput("--eval_fraction holds training rows out, but evaluation rows are given too: leave one away.")
    rows, report = checked["train"]
    kept, held = split_by_prompt(rows, fraction)
    report.notes.append(f"{len(held):,} rows are held out for evaluation, with all rows of their prompts")
    return {"train": (kept, report), "eval": (held, DataReport("eval rows", rows=len(held)))}


def tokenized(
    rows: list[PreferenceRow], report: DataReport, tokenizer: PreTrainedTokenizerBase, config: PreferenceConfig
) -> datasets.Dataset:
    """Tokenise and truncate checked rows, keep what the loss can use, and say what was not."""
    responses = tokenize_rows(
        rows, tokenizer, report, max_length=config.max_length, merge_system_prompt=config.merge_system_prompt
    )
    if config.loss.pairwise:
        responses = for_pairs(responses, report)
    elif config.loss.preferred_only:
        responses = for_ups(responses, report)
    else:
        remark_on_balance(report)
    say("\n".join(report.lines()))
    return responses


def say(text: str) -> None:
    """Once, on the main process, visible without any logging set-up: these lines stand before step 1."""
    if PartialState().is_main_process:
        logger.warning(text)
