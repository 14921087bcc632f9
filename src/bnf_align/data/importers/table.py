"""A table of one's own: CSV, Parquet or JSON with a column for each part of a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bnf_align.data.check import split_last_answer
from bnf_align.data.columns import read_columns
from bnf_align.data.importers.files import Record, kind_of, records_of, unpacked
from bnf_align.data.importers.importer import Importer, Options, Pair, Thumb
from bnf_align.data.importers.scores import number_of
from bnf_align.data.importers.shape import filled
from bnf_align.data.importers.turns import assistant, choice, messages, user
from bnf_align.records import BadInput, DataReport

EXTRAS = ("id", "created_at", "rater", "reason", "model", "tools")


class Table(Importer):
    """Any table whose columns are named with `--map OURS=THEIRS ...`.

        question,answer,verdict,when        --map prompt=question completion=answer label=verdict created_at=when
        q,good,bad                          --map prompt=q chosen=good rejected=bad

    Ours are prompt, completion and label; prompt, chosen and rejected; or messages and label. The columns id,
    created_at, rater, reason, model and tools travel along. Texts stay plain texts; a cell that holds a JSON list of
    messages is read as one. A label is read as `train` reads it: true and false, 1 and 0, or 1 and -1, in CSV as text
    too. Anything else is asked for with `--label_map`, and a scale with `--up_from` and `--down_to`.
    """

    name = "table"
    title = "a table"

    def matches(self, record: Any, path: Path) -> bool:
        """Never: only its owner knows what a table means."""
        return False

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb | Pair]:
        """Pairs and thumbs, in the order of the table."""
        columns = _columns(paths, options)
        # A CSV file knows no types: a cell "1" is the number as much as the text.
        text_only = all(kind_of(path) in (".csv", ".tsv") for path in paths)
        for row, record in records_of(paths):
            named = {ours: _opened(record.get(theirs), ours) for ours, theirs in columns.items()}
            extras = filled(**{name: named.get(name) for name in EXTRAS})
            if named.get("chosen") and named.get("rejected"):
                pair = _pair(row, named, extras, report)
                yield from [] if pair is None else [pair]
            elif "label" not in columns:
                report.drop("no chosen or no rejected answer", row)
            elif (texts := _single(named)) is None:
                report.drop("no completion", row)
            else:
                label = named["label"]
                yield Thumb(row, *texts, _typed(label) if text_only else label, extras=extras)


def _columns(paths: Sequence[Path], options: Options) -> dict[str, str]:
    """Our column -> theirs, once `train`'s own reader finds rows in them.

    Raises:
        BadInput: With the reader's guess, where the columns hold no rows.
    """
    names = {ours: theirs for ours, theirs in options.column_map.items() if ours not in EXTRAS or ours == "tools"}
    report = DataReport(", ".join(path.name for path in paths))
    read = read_columns((record for _, record in records_of(paths)), names, report)
    columns = {name: name for name in read.names} | dict(options.column_map)
    missing = [f"{ours}={theirs}" for ours, theirs in columns.items() if theirs not in read.names]
    if missing:
        raise BadInput(f"--map {' '.join(missing)}: no such column. There are: {', '.join(read.names)}")
    return columns | ({"label": "rating"} if read.rated else {})


def _opened(cell: Any, ours: str) -> Any:
    """A cell with JSON text of messages or tools as what it holds; all other text, JSON or not, as it is."""
    value = unpacked(cell)
    if ours == "tools" or messages(value) is not None:
        return value
    return cell


def _pair(row: int, named: Record, extras: dict[str, Any], report: DataReport) -> Pair | None:
    """A pair of plain texts as it is; where any part is messages, all of them as messages."""
    texts = [named.get(name) for name in ("prompt", "chosen", "rejected")]
    if all(isinstance(text, str) for text in texts):
        return Pair(row, named["prompt"], named["chosen"], named["rejected"], extras)
    return choice(row, _turns(texts[0]), texts[1], texts[2], extras, report)


def _single(named: Record) -> tuple[Any, Any] | None:
    """Prompt and completion of a row, both plain or both messages."""
    prompt, completion = named.get("prompt"), named.get("completion")
    if completion in (None, ""):
        turns = messages(named.get("messages"))
        return None if turns is None else split_last_answer(turns)
    if isinstance(prompt, list) or isinstance(completion, list):
        return _turns(prompt), [assistant(completion)] if isinstance(completion, str) else completion
    return prompt or "", completion


def _turns(prompt: Any) -> Any:
    return [user(prompt)] if isinstance(prompt, str) and prompt else messages(prompt)


def _typed(label: Any) -> Any:
    number = number_of(label)
    return label or None if number is None else number
