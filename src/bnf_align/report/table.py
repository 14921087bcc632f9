"""A table before it has a format: the tables are made of this, and markdown, HTML and LaTeX are made from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from typing import Any, Literal

from bnf_align.evaluation.ranks import competition_ranks, half_up
from bnf_align.report.inputs import Document

NOT_MEASURED = "not measured"
WITHHELD = "–"
"""Stands for a number of the paper that must not be shown beside those of the user."""


@dataclass(frozen=True)
class Cell:
    """One number, as printed, with what is printed around it."""

    text: str
    value: float | None = None
    """The printed number, for ranks and programs; None where there is none."""
    rank: int | None = None
    """1 is set bold and 2 underlined."""
    rank_shown: bool = True
    """Whether the rank is printed after the number, in parentheses."""
    marks: str = ""
    """Signs that a note of the table explains."""


@dataclass(frozen=True)
class Column:
    """One column under its heading."""

    name: str
    group: str = ""
    """Heading over neighbouring columns of the same group."""


@dataclass(frozen=True)
class Row:
    """A model, a method or a benchmark."""

    label: str
    cells: list[Cell]


@dataclass(frozen=True)
class Section:
    """Rows that belong together, such as the methods on one base model."""

    title: str
    rows: list[Row]
    published: bool = False
    """The paper's own numbers, set apart from those of the user."""


@dataclass(frozen=True)
class Table:
    """A table of the paper, filled."""

    name: str
    """`4` for Table 4, `tax` for the alignment tax."""
    title: str
    label: str
    """Heading of the first column."""
    columns: list[Column]
    sections: list[Section]
    notes: list[str] = field(default_factory=list)

    @property
    def heading(self) -> str:
        """The title, with the table's number in the paper where it has one."""
        return f"Table {self.name}: {self.title}" if self.name.isdigit() else self.title

    def groups(self) -> list[tuple[str, int]]:
        """The headings over the columns, each with how many columns it spans."""
        return [(name, len(list(run))) for name, run in groupby(column.group for column in self.columns)]


@dataclass(frozen=True)
class Source:
    """One file that numbers come from, and what made it; empty where nothing is recorded."""

    rows: str = ""
    """Of the tables."""
    what: str = ""
    model: str = ""
    wording: str = ""
    """Hash of the template; `ours:` before it where the wording is ours."""
    judge: str = ""
    seed: str = ""
    left_out: str = ""
    """How many items do not count, and why."""
    notes: str = ""
    file: str = ""
    command: str = ""

    def texts(self) -> dict[str, str]:
        """Heading -> text."""
        return {name.replace("_", " "): text for name, text in asdict(self).items()}


@dataclass(frozen=True)
class Value:
    """A number and its 95 % interval, where one is recorded."""

    mean: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, found: Mapping[str, float], scale: int = 1) -> Value:
        """What a record holds under `mean`, `low` and `high`, times `scale`."""
        return cls(*(scale * found[end] for end in ("mean", "low", "high")))

    def ends(self) -> dict[str, float]:
        """`mean`, `low` and `high`, as far as they are recorded."""
        return {name: number for name, number in asdict(self).items() if number is not None}

    def text(self, digits: int, signed: bool = False) -> str:
        """As printed: `57.2 [53.3, 61.2]`."""
        shown = [printed(number, digits, signed) for number in self.ends().values()]
        return f"{shown[0]} [{', '.join(shown[1:])}]" if len(shown) == 3 else shown[0]


@dataclass(frozen=True)
class Change:
    """One measure of a model before and after training, and what the record says of the difference."""

    method: str
    measure: str
    unit: str
    digits: int
    before: Value | None
    after: Value | None
    difference: Value
    found: Literal["better", "worse", "none", ""]
    """`none`: no difference was found; empty: it is no outcome that is better or worse."""
    file: str
    """Of the record."""
    test: str
    """What decided `found`."""


@dataclass(frozen=True)
class Report:
    """What is written to a file."""

    tables: list[Table]
    sources: list[Source]
    command: str = ""
    """What made the report."""
    documents: list[Document] = field(default_factory=list)
    """Everything that was read, which the page shows beside the tables."""
    changes: list[Change] = field(default_factory=list)
    """What became better or worse, as far as a record says it."""
    answered: list[tuple[Document, Document]] = field(default_factory=list)
    """Results of a base and of a method on the same items; the page shows their answers where the files are there."""

    def as_dict(self) -> dict[str, Any]:
        """The tables as one JSON object, and the files that could not be read."""
        unread = [one.data["why"] for one in self.documents if one.kind == "unread"]
        shown = {name: [asdict(one) for one in getattr(self, name)] for name in ("tables", "sources", "changes")}
        return {**shown, "command": self.command, "unread": unread}


def ranked(cells: Sequence[Cell], lower_is_better: bool = False, shown: bool = True) -> list[Cell]:
    """`cells` of one column with their competition ranks, which are those of the printed numbers, as in the paper.

    A number that stands alone gets none.
    """
    ranks = competition_ranks([cell.value for cell in cells], lower_is_better)
    if len([rank for rank in ranks if rank is not None]) < 2:
        return list(cells)
    return [replace(cell, rank=rank, rank_shown=shown) for cell, rank in zip(cells, ranks, strict=True)]


def printed(value: float, digits: int, signed: bool = False) -> str:
    """A number rounded half up, with a minus sign of its own width; what rounds to zero has no sign."""
    text = half_up(abs(value), digits)
    return text if float(text) == 0 else f"{'−' if value < 0 else '+' if signed else ''}{text}"


def number(value: float | None, digits: int, marks: str = "", unknown: str = NOT_MEASURED) -> Cell:
    """The cell of `value`, rounded half up as the paper rounds; None is said to be `unknown`."""
    if value is None:
        return Cell(unknown)
    text = half_up(float(value), digits)
    return Cell(text, float(text), marks=marks)
