"""Rows that are of TRL's types already: they pass through as they are, with labels that are bools."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bnf_align.data.importers.files import Record, records_of
from bnf_align.data.importers.importer import Options
from bnf_align.data.importers.scores import by_threshold
from bnf_align.data.importers.shape import records_like
from bnf_align.data.labels import read_labels
from bnf_align.records import BadInput, DataReport

TYPES = ({"prompt", "chosen", "rejected"}, {"prompt", "completion", "label"}, {"messages", "label"})
IMPLICIT = {"chosen", "rejected"}
"""A pair whose prompt stands in its answers. Products have these columns too, and then others that matter."""
OTHERS = {"rejected_response", "rejected_messages"}
"""Columns of ms-swift that make another thing of `messages`."""


def is_own(record: Record) -> bool:
    """Whether a record is a row of one of the types, whatever product it may also be an export of."""
    return any(columns <= record.keys() for columns in TYPES) and not OTHERS & record.keys()


def own_rows(paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Record]:
    """The rows of files as they are, but for labels, which become bools.

    Args:
        paths: Files of rows.
        options: What labels mean.
        report: Filled on the way; whole when the last row is out.

    Raises:
        BadInput: If the files cannot be read, or a label has no certain meaning.
    """
    values = [record.get("label") for _, record in records_of(paths)]
    by_number = by_threshold(values, options)
    labels, note = read_labels(values, by_number | dict(options.label_map))
    report.notes += ["rows of TRL's types already: they pass as they are", *([f"label: {note}"] if note else [])]

    def fits(record: Record) -> bool:
        report.rows += 1
        return is_own(record) or record.keys() >= IMPLICIT

    for number, record in records_like(paths, fits, "a row of TRL's types", report):
        label = labels[number]
        if record.keys() >= IMPLICIT:
            report.pairs += 1
            yield record
        elif label is None:
            report.drop("no rating" if values[number] is None else "a rating that means neither up nor down", number)
        else:
            report.ups += label
            report.downs += not label
            yield {**record, "label": label}
    if not report.pairs + report.ups + report.downs:
        raise BadInput(f"{report.source}: 0 of {report.rows:,} rows have a rating.")
