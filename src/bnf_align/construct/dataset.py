"""A selection on disk: preference rows, the held-out ones beside them, and the data card."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from bnf_align.construct.card import Row, card_text, data_card
from bnf_align.construct.choice import Choice
from bnf_align.construct.score import read_candidates
from bnf_align.construct.select import select
from bnf_align.data.columns import COLUMNS
from bnf_align.data.read import iter_rows
from bnf_align.data.rows import preference_rows, split_by_prompt
from bnf_align.journal.lines import row_bytes
from bnf_align.outputs import check_targets, whole_files
from bnf_align.records import BadInput, DataReport, rows_text
from bnf_align.sources.files import kind_of

logger = logging.getLogger(__name__)


def write_selection(
    source: str | Path,
    out: str | Path,
    choice: Choice,
    test_fraction: float = 0.0,
    about: Mapping[str, Any] | None = None,
    split: str = "train",
) -> Row:
    """Select from `source`, what `score` wrote or a set of pairs, and write `out`, `OUT.card.md` and `OUT.card.json`.

    With a `test_fraction`, that share of the prompts goes, with all their rows, into a file of its own beside `out`:
    `pairs.jsonl` gets `pairs.test.jsonl`. A kill leaves the files of an earlier selection, all of this one, or no
    `out`.

    Returns:
        The card.

    Raises:
        BadInput: If candidates have no scores, nothing is left, or `out` is no place for rows.
    """
    if not 0 <= test_fraction < 1:
        raise BadInput(f"--test-fraction {test_fraction}: a share lies between 0 and 1.")
    out, card_path = Path(out).expanduser(), _card(Path(out).expanduser())
    if out.suffix != ".jsonl":
        raise BadInput(f"--out {out}: the rows are JSON Lines, and are read as what a name ends in. Name a .jsonl.")
    test_path, page = out.with_name(f"{out.stem}.test{out.suffix}"), out.with_name(f"{out.name}.card.md")
    targets = {"--out": out, "its data card": page, "the data card's JSON": card_path}
    targets |= {"the test file": test_path} if test_fraction else {}
    # Old test rows would share prompts with the new rows.
    stale = {} if test_fraction or not _had_test_rows(card_path) else {"the earlier test file": test_path}
    check_targets(targets | stale, [source, _card(Path(source).expanduser())])
    rows, report = _read(source, split)
    selected = select(rows, choice)
    selected.dropped |= {reason: [str(row) for row in numbers] for reason, numbers in report.dropped.items()}
    train, test = _split(selected.rows, test_fraction, choice.seed)
    card = data_card(
        rows,
        selected,
        {
            "scored": _scorer(source, choice),
            "choice": vars(choice),
            "test_rows": len(test),
            "notes": [*report.notes, *report.warnings],
            **(about or {}),
        },
    )
    with whole_files(*targets.values(), stale=stale.values()) as (out_file, page_file, card_file, *test_file):
        out_file.writelines(row_bytes(row).decode() for row in train)
        page_file.write(card_text(card))
        card_file.write(json.dumps(card, indent=2, default=str) + "\n")
        for file in test_file:
            file.writelines(row_bytes(row).decode() for row in test)
    return card


def _card(out: Path) -> Path:
    return Path(f"{out}.card.json")


def _had_test_rows(card: Path) -> bool:
    """Whether an earlier selection has left a test file; a card that cannot be read may be of one."""
    try:
        return bool(json.loads(card.read_text(encoding="utf-8")).get("test_rows"))
    except FileNotFoundError:
        return False
    except (ValueError, AttributeError):
        return True


def _read(source: str | Path, split: str) -> tuple[list[Row], DataReport]:
    """Scored candidates, or the rows of a set of pairs, and what became of these."""
    path = Path(source).expanduser()
    if path.is_file() and (kind_of(path) is None or "candidates" in next(iter(iter_rows(path, split)), {})):
        return read_scored(path), DataReport(str(source))
    raw = [{**row, "row": number} for number, row in enumerate(iter_rows(source, split))]
    checked, report = preference_rows(raw, source=str(source))
    rows = []
    for row in checked:
        others = {name: value for name, value in raw[row.pop("row")].items() if name not in (*COLUMNS, "row")}
        rows.append({**others, **row})
    return rows, report


def read_scored(path: str | Path) -> list[Row]:
    """Rows of `score`.

    Raises:
        BadInput: If a row has not one score, a number or null, per candidate.
    """
    rows = read_candidates(path)
    bad = [i for i, row in enumerate(rows) if not _is_scored(row)]
    if bad:
        raise BadInput(
            f"{path}: {rows_text(bad)} have not one score per candidate, a number or null. Score them first: "
            "`bnf-align score`."
        )
    return rows


def _is_scored(row: Row) -> bool:
    scores = row.get("scores")
    if not isinstance(scores, list) or len(scores) != len(row["candidates"]):
        return False
    return all(value is None or (isinstance(value, int | float) and math.isfinite(value)) for value in scores)


def _scorer(source: str | Path, choice: Choice) -> Row | None:
    """What `score` left word of beside its file: scorer, weights, settings."""
    path = _card(Path(source).expanduser())
    if not path.exists():
        return None
    card: Row = json.loads(path.read_text(encoding="utf-8"))
    if choice.unpaired and (card.get("pairs") or str(card.get("scorer")).startswith("pairrm")):
        logger.warning(
            f"{card['scorer']} compares candidates of one prompt with each other: the ups and downs of different "
            "prompts are cut at scores that do not compare. Pairs do without that."
        )
    return card


def _split(rows: list[Row], fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    if not fraction:
        return rows, []
    train, test = split_by_prompt(rows, fraction, seed, flag="--test-fraction")
    for row in chain(train, test):
        del row["row"]  # its number, which only checking needs
    return train, test
