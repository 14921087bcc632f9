"""A source that is read several times, one row in memory at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from bnf_align.data.check import RowChecker
from bnf_align.data.columns import Columns, read_columns
from bnf_align.data.ledger import OUT
from bnf_align.data.read import iter_rows
from bnf_align.records import BadInput, DataReport, PreferenceRow
from bnf_align.sources import ImportedRows, Options
from bnf_align.sources.files import kind_of

Raw = dict[str, Any]

FORMATS = {".json": "JSON", ".jsonl": "JSON Lines", ".ndjson": "JSON Lines", ".parquet": "Parquet"}
FORMATS |= {".csv": "a table (CSV)", ".tsv": "a table (TSV)"}


class Step(NamedTuple):
    """One row of the source on its way."""

    number: int
    raw: Raw
    row: PreferenceRow | None
    """The checked row with its label as the source has it; None where it is left out."""


@dataclass
class Source:
    """Where rows come from, and under which names."""

    name: str
    split: str = "train"
    column_map: Mapping[str, str] = field(default_factory=dict)
    role_map: Mapping[str, str] = field(default_factory=dict)
    label_map: Mapping[str, str] = field(default_factory=dict)
    columns: Columns | None = None
    """Known once the source has been read for them."""
    export: ImportedRows | None = None
    """Known from then on, where an importer reads the source."""

    def rows(self, doing: str) -> Iterator[Raw]:
        """The raw rows, with a bar where that takes a while; as many as were there the first time."""
        total = self.columns.rows if self.columns else None
        rows: Iterable[Raw] = self.export or ()  # what an export learnt of its ratings it need not learn anew
        if self.export is None:
            rows = iter_rows(self.name, self.split, Options(self.label_map, self.column_map))
            self.export = rows if isinstance(rows, ImportedRows) else None
        return islice(tqdm(rows, doing, total, unit=" rows", delay=2, disable=None, leave=False), total)

    def survey(self, report: DataReport) -> Columns:
        """Read the source for its columns.

        Args:
            report: Where the number of rows goes, and what became of an export's records on the way to rows.

        Raises:
            BadInput: If it cannot be read, or holds no preferences.
        """
        self.columns = None  # all rows are read, however many there were
        self.columns = read_columns(self.rows("Reading"), self.column_map, report)
        if self.export is not None:
            self.export.say(report)
        return self.columns

    def steps(self, report: DataReport, doing: str) -> Iterator[Step]:
        """Every row, checked.

        Args:
            report: Where rows that are left out are counted.
            doing: What the bar says.

        Raises:
            BadInput: If a row is not what can be read at all; at the end, if there are unknown roles.
        """
        assert self.columns is not None
        checker = RowChecker(self.columns, self.role_map, report)
        for position, raw in enumerate(self.rows(doing)):
            yield Step(self.columns.number(position, raw), raw, checker.row(position, raw))
        checker.finish()

    def format(self) -> str:
        """What this is: a kind of file, folder or name, and whose export."""
        return self._kind() if self.export is None else f"{self.export.importer.title} ({self._kind()})"

    def _kind(self) -> str:
        path = Path(self.name).expanduser()
        if path.is_dir():
            return "a folder"
        if not path.is_file():
            return "a dataset of the hub"
        packed = ", gzip" if path.name.lower().endswith(".gz") else ""
        return f"{FORMATS.get(kind_of(path) or '', 'a file')}{packed}, {_size(path.stat().st_size)}"


def again(steps: Iterator[Step], sides: Sequence[int], name: str) -> Iterator[tuple[Step, int]]:
    """The steps of a second reading, each with its side in the ledger that the first one wrote.

    Raises:
        BadInput: If the source is no longer what it was.
    """
    known = iter(sides)
    for step in steps:
        side = OUT if step.row is None else next(known, None)
        if side is None:
            break
        yield step, side
    else:
        if next(known, None) is None:
            return
    raise BadInput(f"{name} was changed while it was read. Run the doctor again when nothing writes to it.")


def _size(size: float) -> str:
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"
