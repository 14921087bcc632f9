"""A table of one's own: CSV, Parquet or JSON with a column for each part of a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bnf_align.data.check import split_last_answer
from bnf_align.data.columns import read_columns
from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport
from bnf_align.sources.fields import filled
from bnf_align.sources.files import kind_of, records_of, unpacked
from bnf_align.sources.rows import facing
from bnf_align.sources.scores import label_of, number_of
from bnf_align.sources.source import Contest, Item, Options, Pair, Record, Source, Text, Thumb
from bnf_align.sources.turns import assistant, ending, messages, messages_in, user

SIDES = ("first", "second")
"""What a table's two answers are called in `--map`, where neither is the better one in every row."""
EXTRAS = ("id", "created_at", "rater", "reason", "model", "tools")


class Table(Source):
    """Any table whose columns are named with `--map OURS=THEIRS ...`.

        question,answer,verdict,when        --map prompt=question completion=answer label=verdict created_at=when
        q,good,bad                          --map prompt=q chosen=good rejected=bad
        q,a,b,winner                        --map prompt=q first=a second=b --winner winner

    Ours are prompt, completion and label; prompt, chosen and rejected; messages and label; or prompt, first and
    second, with the column that says which of the two won as `--winner`. The columns id, created_at, rater, reason,
    model and tools travel along. Texts stay plain; a cell that holds a JSON list of messages is read as one. A label
    is read as `train` reads it: true and false, 1 and 0, or 1 and -1, in CSV as text too. All else is asked for with
    `--label_map`, as every value of a winner is, and a scale with `--up_from` and `--down_to`.
    """

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Item]:
        """Pairs, thumbs and contests, in the order of the table."""
        columns = _columns(paths, options)
        # A CSV file knows no types: a cell "1" is the number as much as the text.
        text_only = all(kind_of(path) in (".csv", ".tsv") for path in paths)
        sides = SIDES if options.winner else ("chosen", "rejected")
        places: dict[str, set[str]] = {}
        for row, record in records_of(paths):
            named = {ours: _opened(record.get(theirs), ours) for ours, theirs in columns.items()}
            extras = filled(**{name: named.get(name) for name in EXTRAS})
            if named.get(sides[0]) and named.get(sides[1]):
                found = _two(named, sides)
                if isinstance(found, Reason):
                    report.drop(found, row)
                elif options.winner:
                    _refuse_winner_by_name(record, row, options, places)
                    yield Contest(row, *found, record.get(options.winner), extras)
                else:
                    yield Pair(row, *found, extras)
            elif "label" not in columns:
                report.drop(Reason("side_missing", first=sides[0], second=sides[1]), row)
            elif (texts := _single(named)) is None:
                report.drop(Reason("no_completion"), row)
            else:
                yield Thumb(row, *texts, label_of(named["label"], text_only), extras=extras)


TABLE = Table("table", "a table")


def _columns(paths: Sequence[Path], options: Options) -> dict[str, str]:
    """Our column -> theirs, once `train`'s own reader finds rows in them.

    Raises:
        BadInput: With the reader's guess, where the columns hold no rows.
    """
    report = DataReport(", ".join(path.name for path in paths))
    if options.winner:
        return _columns_of_a_winner(paths, options)
    names = {ours: theirs for ours, theirs in options.column_map.items() if ours not in EXTRAS or ours == "tools"}
    read = read_columns((record for _, record in records_of(paths)), names, report)
    return _named(read.names, options) | ({"label": "rating"} if read.rated else {})


def _columns_of_a_winner(paths: Sequence[Path], options: Options) -> dict[str, str]:
    names = dict.fromkeys(str(name) for _, record in records_of(paths) for name in record)
    columns = _named(tuple(names), options)
    lacking = [name for name in ("prompt", *SIDES) if name not in columns]
    if lacking or options.winner not in names:
        lacked = f"--map {' '.join(f'{name}=COLUMN' for name in lacking)}" if lacking else "another --winner"
        raise BadInput(
            f"--winner {options.winner}: a table of two answers and a winner needs the columns prompt, first, second "
            f"and that of the winner. There are: {', '.join(names)}. Say {lacked}"
        )
    return columns


def _refuse_winner_by_name(record: Record, row: int, options: Options, places: dict[str, set[str]]) -> None:
    """Stop where a winner's value stands in one column in some rows and in another in others, as models' names do.

    `places` are the columns in which each value stood so far.
    """
    value = record.get(str(options.winner))
    if not isinstance(value, str) or len(value) < 2 or number_of(value) is not None:  # no name: 1, b
        return
    others = record.keys() - {options.winner, *options.column_map.values()}
    here = {name for name in others if record[name] == value}
    before = places.get(value) or here
    if here and not here & before:
        raise BadInput(
            f"--winner {options.winner}: {value!r} stands in `{min(before)}` in earlier rows and in `{min(here)}` in "
            f"row {row}, so it does not mean the same answer in every row. Write a column that says first, second or "
            "tie, and name that one."
        )
    places[value] = here & before or before


def _named(names: Sequence[str], options: Options) -> dict[str, str]:
    columns = {name: name for name in names} | dict(options.column_map)
    missing = [f"{ours}={theirs}" for ours, theirs in columns.items() if theirs not in names]
    if missing:
        raise BadInput(f"--map {' '.join(missing)}: no such column. There are: {', '.join(names)}")
    return columns


def _opened(cell: Any, ours: str) -> Any:
    """A cell with JSON text of messages or tools as what it holds; all other text, JSON or not, as it is."""
    if not isinstance(cell, str) or (ours != "tools" and messages_in(cell) is None):
        return cell
    return unpacked(cell)


def _two(named: Record, sides: Sequence[str]) -> tuple[Text, Text, Text] | Reason:
    """Prompt and two answers: plain texts as they are; where any part is messages, all of them as messages."""
    texts = [named.get(name) for name in ("prompt", *sides)]
    if all(isinstance(text, str) for text in texts):
        return texts[0], texts[1], texts[2]  # type: ignore[return-value]
    return facing(_prompt(texts[0]), ending(texts[1]), ending(texts[2]))


def _single(named: Record) -> tuple[Any, Any] | None:
    """Prompt and completion of a row, both plain or both messages."""
    prompt, completion = named.get("prompt"), named.get("completion")
    if completion in (None, ""):
        turns = messages(named.get("messages"))
        return None if turns is None else split_last_answer(turns)
    completion = [completion] if isinstance(completion, dict) else completion
    if isinstance(prompt, list | dict) or isinstance(completion, list):
        return _prompt(prompt), [assistant(completion)] if isinstance(completion, str) else completion
    return prompt or "", completion


def _prompt(prompt: Any) -> Any:
    return [user(prompt)] if isinstance(prompt, str) and prompt else messages(prompt)
