"""An export where rows are expected: gone through as often as rows are, with labels that are settled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bnf_align.data.labels import Settled
from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport
from bnf_align.sources.merge import merged
from bnf_align.sources.ratings import Ratings, read_ratings
from bnf_align.sources.source import Options, Source


class ImportedRows:
    """The rows of an export with `Settled` labels, read anew each time they are gone through.

    Args:
        importer: Reads it.
        paths: Its files.
        options: What the user says.
    """

    def __init__(self, importer: Source, paths: Sequence[Path], options: Options) -> None:
        self.importer, self._paths, self._options = importer, paths, options
        self._ratings: Ratings | None = None
        self._learnt_from: list[tuple[int, int]] = []
        self._report = DataReport("")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rows.

        Raises:
            BadInput: If the files cannot be read.
        """
        self._report = DataReport(", ".join(path.name for path in self._paths))
        try:
            files = [(path.stat().st_size, path.stat().st_mtime_ns) for path in self._paths]
            if files != self._learnt_from:
                self._ratings = read_ratings(self.importer, self._paths, self._options)
                self._learnt_from = files
            for row in merged(self.importer, self._paths, self._options, self._report, self._ratings):
                yield {**row, "label": Settled(row["label"])} if "label" in row else row
        except BadInput as error:
            more = f"`bnf-align import {self.importer.name}` has more flags, and a --map for it."
            raise BadInput(f"{error} (Read as {self.importer.title}; {more})") from None

    def say(self, report: DataReport) -> None:
        """Add to a report what became of the export the last time that its rows were gone through."""
        report.notes += [f"read as {self.importer.title} (`{self.importer.name}`); rows are numbered as it gives them"]
        report.notes += self._report.notes
        report.warnings += self._report.warnings
        for reason, rows in self._report.dropped.items():
            report.dropped.setdefault(Reason("in_the_export", reason=reason, code=reason.code), []).extend(rows)
