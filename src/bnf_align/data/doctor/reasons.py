"""Why rows are left out: by training, and by `--fix` besides."""

from __future__ import annotations

from collections.abc import Iterable

from bnf_align.data.findings import LEFT_OUT, Finding
from bnf_align.records import DataReport

IN_EXPORT = "in the export: "
"""How a reason begins whose row numbers are those of the export's records, not of the rows that its importer gives."""
REASONS = {
    IN_EXPORT: "in_the_export",
    "chosen and rejected are the same as the": "equal_in_template",
    "chosen and rejected are the same": "equal_answers",
    "an empty answer": "empty_answer",
    "no label": "no_label",
    "a label that --label_map drops": "dropped_label",
    "the same answer is labelled both up and down": "both_labels",
    "half a character": "half_character",
    "no `": "missing_column",
    "no assistant turn": "no_answer",
    "prompts longer than": "prompt_too_long",
    "the chat template refuses": "template_refuses",
    "nothing of an answer is left": "nothing_in_template",
    "an answer is nothing but reasoning": "only_reasoning",
}
"""How a reason for which rows are left out begins -> what programs call it."""
MENDED = {
    "repeats": "an earlier row is the same word for word",
    "continued_prompt": "the prompt ends with an assistant turn",
    "empty_prompt": "the prompt is empty",
    "cut": "the answer is cut at max_length",
    "leak": "the prompt is also in the test rows",
    "near_leak": "the prompt is nearly one of the test rows",
}
"""Findings that `--fix` mends, by leaving their rows out for this reason."""


def left_out(report: DataReport) -> list[Finding]:
    """What training leaves out, one finding a reason."""
    return [Finding(_name(reason), reason, rows, LEFT_OUT) for reason, rows in report.dropped.items()]


def reasons_to_leave_out(findings: Iterable[Finding]) -> dict[int, str]:
    """Row -> reason, for every row that is not clean; of several reasons the first."""
    reasons: dict[int, str] = {}
    for finding in findings:
        ours = finding.level == LEFT_OUT and finding.name != REASONS[IN_EXPORT]
        reason = finding.text if ours else MENDED.get(finding.name)
        if reason is not None:
            reasons |= {row: reason for row in finding.rows if row not in reasons}
    return reasons


def _name(reason: str) -> str:
    return next((name for start, name in REASONS.items() if reason.startswith(start)), "left_out")
