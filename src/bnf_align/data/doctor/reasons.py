"""Which rows are left out: by training, and by `--fix` besides."""

from __future__ import annotations

from collections.abc import Iterable

from bnf_align.reasons import Reason
from bnf_align.records import LEFT_OUT, DataReport, Finding

IN_EXPORT = "in_the_export"
"""The reason whose row numbers are those of the export's records, not of the rows that its importer gives."""
MENDED = ("repeats", "continued_prompt", "empty_prompt", "cut", "leak", "near_leak")
"""Findings that `--fix` mends, by leaving their rows out."""


def left_out(report: DataReport) -> list[Finding]:
    """What training leaves out, one finding a reason."""
    return [Finding(reason.code, reason, rows, LEFT_OUT) for reason, rows in report.dropped.items()]


def reasons_to_leave_out(report: DataReport, findings: Iterable[Finding]) -> dict[int, Reason]:
    """Row -> reason, for every row that is not clean; of several reasons the first."""
    ours = [(reason, rows) for reason, rows in report.dropped.items() if reason.code != IN_EXPORT]
    mended = [(Reason(finding.name), finding.rows) for finding in findings if finding.name in MENDED]
    reasons: dict[int, Reason] = {}
    for reason, rows in [*ours, *mended]:
        reasons |= {row: reason for row in rows if row not in reasons}
    return reasons
