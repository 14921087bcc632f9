"""The doctor as a function."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnf_align.data.doctor.examination import Examination, Rules
from bnf_align.data.doctor.fix import fixed_paths
from bnf_align.data.doctor.personal import redact as masked
from bnf_align.data.doctor.result import DoctorResult
from bnf_align.data.doctor.secrets import SECRETS
from bnf_align.data.doctor.source import Source
from bnf_align.outputs import check_targets
from bnf_align.records import BadInput, DataReport

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def examine(
    source: str | Path,
    *,
    split: str = "train",
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int | None = None,
    merge_system_prompt: bool = False,
    score_thoughts: bool = True,
    column_map: Mapping[str, str] | None = None,
    label_map: Mapping[str, str] | None = None,
    role_map: Mapping[str, str] | None = None,
    conflicting_labels: str = "drop",
    test: str | Path | None = None,
    test_split: str | None = None,
    fix: str | Path | None = None,
    redact: bool = False,
    vocab_size: int | None = None,
    near_duplicates: bool = False,
    model: Any = None,
) -> DoctorResult:
    """Read, check and, given a tokenizer, tokenise a source as training would, and say what became of its rows.

    Args:
        source: File, folder or hub name.
        split: Which split of it.
        tokenizer: The model's; without one, templates are not looked at and lengths are in characters.
        max_length: As in training.
        merge_system_prompt: As in training.
        score_thoughts: As in training.
        column_map: As in `preference_rows`, and so are the next three.
        label_map: See there.
        role_map: See there.
        conflicting_labels: See there.
        test: File, folder or hub name of rows whose prompts must not be among these; the source itself if only
            `test_split` is given.
        test_split: Which split of it.
        fix: Where to write the rows without those left out, a .jsonl file; None writes nothing.
        redact: Whether to mask likely personal data and secrets in what is written.
        vocab_size: Rows of the model's input embedding, where that is known.
        near_duplicates: Whether to look for near-duplicate prompts in more than 100,000 rows too.
        model: A causal language model under which the hidden states of pairs are compared (`ches`), which needs its
            tokenizer; None leaves that out.
    """
    maps = (column_map or {}, role_map or {}, label_map or {})
    given = Source(str(source), split, *maps)
    asked = (max_length, merge_system_prompt, score_thoughts, vocab_size, near_duplicates, model)
    rules = Rules(label_map or {}, conflicting_labels, tokenizer, *asked)
    result = DoctorResult(DataReport(str(source)))
    tested = None
    if test is not None or test_split is not None:
        other = split if test_split is None else test_split
        tested = Source(str(source if test is None else test), other, *maps)
    try:
        target = None if fix is None else fixed_paths(fix)
        if target is not None:
            names = [one.name for one in (given, tested) if one]
            check_targets({"--fix": target[0], "the file of rows left out": target[1]}, names)
        examination = Examination(given, rules, tested, result)
        examination.run()
        if target is not None:
            result.fixed = examination.write(target, redact)
    except BadInput as error:
        result.error = masked(str(error), SECRETS)
    except RecursionError:
        result.error = f"{source}: a row is nested too deeply to be a conversation."
    return result
