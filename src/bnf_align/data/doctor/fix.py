"""The clean rows of a source as a new file, and beside it those left out, each with its reason."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TextIO

from bnf_align.data.columns import COLUMNS, Columns
from bnf_align.data.doctor.personal import redact_row
from bnf_align.data.doctor.source import Step
from bnf_align.data.ledger import OUT, with_label
from bnf_align.outputs import whole_files
from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport, Finding, counted

ENDINGS = (".jsonl", ".jsonl.gz")
IN_EXPORT = "in_the_export"
"""The reason whose row numbers are those of the export's records, not of the rows that its importer gives."""
MENDED = ("repeats", "continued_prompt", "empty_prompt", "cut", "leak", "near_leak")
"""Findings that `--fix` mends, by leaving their rows out."""


def reasons_to_leave_out(report: DataReport, findings: Iterable[Finding]) -> dict[int, Reason]:
    """Row -> reason, for every row that is not clean; of several reasons the first."""
    ours = [(reason, rows) for reason, rows in report.dropped.items() if reason.code != IN_EXPORT]
    mended = [(Reason(finding.name), finding.rows) for finding in findings if finding.name in MENDED]
    reasons: dict[int, Reason] = {}
    for reason, rows in [*ours, *mended]:
        reasons |= {row: reason for row in rows if row not in reasons}
    return reasons


@dataclass
class Fixed:
    """What was written."""

    path: str
    rows: int = 0
    left_out_path: str = ""
    left_out: int = 0
    masked: int = 0
    """Places of likely personal data and secrets that are masked now."""

    def lines(self) -> list[str]:
        """What was written, in words."""
        masked = f", {counted(self.masked, 'place')} of likely personal data and secrets masked" if self.masked else ""
        return [
            f"written: {counted(self.rows, 'row')} to {self.path}{masked}",
            f"left out: {counted(self.left_out, 'row')}, each with its reason, in {self.left_out_path}",
        ]


def fixed_paths(out: str | Path) -> tuple[Path, Path]:
    """Where `--fix OUT` writes: the clean rows, and `*.left_out.jsonl` with the others.

    Raises:
        BadInput: If its name has an ending by which it could not be read.
    """
    path = Path(out).expanduser()
    ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)
    if ending is None:
        raise BadInput(f"--fix {out}: its name must end in {' or '.join(ENDINGS)}.")
    return path, path.with_name(f"{path.name[: -len(ending)]}.left_out.jsonl")


def write_fixed(
    steps: Iterator[tuple[Step, int]],
    columns: Columns,
    left_out: Mapping[int, Reason],
    paths: tuple[Path, Path],
    redact: bool,
) -> Fixed:
    """Write the rows that are kept and those that are not; both files appear together, when they are whole.

    Args:
        steps: Every row of the source, with its side in the ledger.
        columns: What the source calls its columns.
        left_out: Number -> reason, for every row that is not to be kept.
        paths: See `fixed_paths`.
        redact: Whether to mask likely personal data and secrets, in both files.
    """
    fixed = Fixed(str(paths[0]), left_out_path=str(paths[1]))
    with whole_files(*paths) as (kept_file, other_file):
        for step, side in steps:
            reason = left_out.get(step.number)
            if reason is not None or step.row is None or side == OUT:
                fixed.left_out += 1
                raw = redact_row(columns.named(step.raw))[0] if redact else step.raw
                _write(
                    other_file, {"row": step.number, "code": reason and reason.code, "reason": reason, "left_out": raw}
                )
                continue
            others = {name: value for name, value in columns.named(step.raw).items() if name not in COLUMNS}
            row = {**with_label(step.row, side), **others}
            del row["row"]
            if redact:
                row, counts = redact_row(row)
                fixed.masked += sum(counts.values())
            fixed.rows += 1
            _write(kept_file, row)
    return fixed


def _write(file: TextIO, row: Mapping[str, Any]) -> None:
    def plain(value: Any) -> Any:
        return value.value if isinstance(value, Enum) else str(value)

    file.write(json.dumps(row, ensure_ascii=False, default=plain) + "\n")
