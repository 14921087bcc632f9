"""What is this file, what is wrong with it, what would training do with it: by the functions training uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from bnf_align.data.read import iter_rows
from bnf_align.data.rows import preference_rows, remark_on_balance
from bnf_align.data.tokenize import tokenize_rows
from bnf_align.records import BadInput, DataReport

CLEAN, WARNINGS, UNUSABLE = 0, 1, 2


@dataclass
class DoctorResult:
    """What training would make of a source."""

    report: DataReport
    error: str | None = None
    """Why the source cannot be used, and the flag that mends it; None where it can."""

    @property
    def status(self) -> int:
        """Exit status: 0 clean; 1 with warnings, or rows left out or cut; 2 unusable."""
        if self.error is not None:
            return UNUSABLE
        return WARNINGS if self.report.warnings or self.report.dropped or self.report.cut else CLEAN

    def lines(self) -> list[str]:
        """The findings in plain words, one a line, the verdict last."""
        if self.error is not None:
            return [self.error, "verdict: unusable as it is"]
        lines = self.report.lines()
        if self.report.lengths:
            lengths = ", ".join(f"{name} {value:,}" for name, value in self.report.lengths.items())
            lines.append(f"  tokens of prompt and answer: {lengths}")
        return [*lines, "verdict: " + ("clean" if self.status == CLEAN else "usable; read the lines above first")]

    def as_dict(self) -> dict[str, Any]:
        """The findings for `--json`, with every row number where the lines show the first ones."""
        rows = {"dropped_rows": self.report.dropped, "cut_rows": self.report.cut}
        return {"status": self.status, "error": self.error, **self.report.as_dict(), **rows}


def examine(
    source: str | Path,
    *,
    split: str = "train",
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int | None = None,
    merge_system_prompt: bool = False,
    **row_options: Any,
) -> DoctorResult:
    """Read, check and, given a tokenizer, tokenise a source as training would, and say what became of its rows.

    Args:
        source: File, folder or hub name.
        split: Which split of it.
        tokenizer: The model's; without one, templates and lengths are not looked at.
        max_length: As in training.
        merge_system_prompt: As in training.
        row_options: `column_map`, `label_map`, `role_map` and `conflicting_labels` of `preference_rows`.
    """
    report = DataReport(str(source))
    try:
        rows, report = preference_rows(iter_rows(source, split), source=str(source), **row_options)
        if tokenizer is not None:
            tokenize_rows(rows, tokenizer, report, max_length=max_length, merge_system_prompt=merge_system_prompt)
    except BadInput as error:
        return DoctorResult(report, str(error))
    remark_on_balance(report)
    return DoctorResult(report)
