"""The clean rows of a source as a new file, and beside it those left out, each with its reason."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TextIO

from bnf_align.data.columns import COLUMNS, Columns
from bnf_align.data.doctor.personal import redact_row
from bnf_align.data.doctor.source import Step
from bnf_align.data.ledger import OUT, with_label
from bnf_align.data.whole_file import whole_file
from bnf_align.records import BadInput

ENDINGS = (".jsonl", ".jsonl.gz")


@dataclass
class Fixed:
    """What was written."""

    path: str
    rows: int = 0
    left_out_path: str = ""
    left_out: int = 0
    masked: int = 0
    """Places of likely personal data that are masked now."""

    def lines(self) -> list[str]:
        """What was written, in words."""
        masked = f", {self.masked:,} places of likely personal data masked" if self.masked else ""
        return [
            f"written: {self.rows:,} rows to {self.path}{masked}",
            f"left out: {self.left_out:,} rows, each with its reason, in {self.left_out_path}",
        ]


def check_target(flag: str, out: str | Path, sources: Sequence[str], endings: Sequence[str] = ENDINGS) -> Path:
    """The file to write to.

    Args:
        flag: What named it, for messages.
        out: The name.
        sources: Files, folders and names that are read.
        endings: Of which it must have one.

    Raises:
        BadInput: If it is one of the sources, lies inside one, or has an ending by which it could not be read.
    """
    path = Path(out).expanduser()
    if not path.name.lower().endswith(tuple(endings)):
        raise BadInput(f"{flag} {out}: its name must end in {' or '.join(endings)}.")
    if path.is_dir():
        raise BadInput(f"{flag} {out}: this is a folder; name a file.")
    for source in (Path(source).expanduser() for source in sources):
        inside = source.exists() and source.resolve() in path.resolve().parents
        if inside or (source.exists() and path.exists() and path.samefile(source)):
            raise BadInput(f"{flag} {out}: nothing is changed in place; name a file outside of {source}.")
    return path


def write_fixed(
    steps: Iterator[tuple[Step, int]], columns: Columns, left_out: Mapping[int, str], path: Path, redact: bool
) -> Fixed:
    """Write the rows that are kept, and `*.left_out.jsonl` with the others; both appear only when they are whole.

    Args:
        steps: Every row of the source, with its side in the ledger.
        columns: What the source calls its columns.
        left_out: Number -> reason, for every row that is not to be kept.
        path: Where the rows go.
        redact: Whether to mask likely personal data, in both files.
    """
    name = path.name.lower()
    stem = path.name[: -len(next(ending for ending in ENDINGS if name.endswith(ending)))]
    others = path.with_name(f"{stem}.left_out.jsonl")
    fixed = Fixed(str(path), left_out_path=str(others))
    with ExitStack() as stack:
        # Entered first, so it appears last: where the rows are, the list of those left out is too.
        kept_file = stack.enter_context(whole_file(path))
        other_file = stack.enter_context(whole_file(others))
        for step, side in steps:
            reason = left_out.get(step.number)
            if reason is not None or step.row is None or side == OUT:
                fixed.left_out += 1
                raw = redact_row(columns.named(step.raw))[0] if redact else step.raw
                _write(other_file, {"row": step.number, "reason": reason, "left_out": raw})
                continue
            row = {**with_label(step.row, side), **_others(step.raw, columns)}
            del row["row"]
            if redact:
                row, counts = redact_row(row)
                fixed.masked += sum(counts.values())
            fixed.rows += 1
            _write(kept_file, row)
    return fixed


def _others(raw: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    """The source's other columns: ids, dates, whatever travels along."""
    return {name: value for name, value in columns.named(raw).items() if name not in COLUMNS}


def _write(file: TextIO, row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False, default=_plain) + "\n")


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else str(value)
