"""A selection on disk: preference rows, the held-out ones beside them, and the data card."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from bnf_align.construct.card import Row, card_text, data_card
from bnf_align.construct.choice import Choice
from bnf_align.construct.score import read_candidates
from bnf_align.construct.select import select
from bnf_align.data.rows import split_by_prompt
from bnf_align.journal.lines import row_bytes
from bnf_align.records import BadInput, rows_text, write_json


def write_selection(
    scored: str | Path,
    out: str | Path,
    choice: Choice,
    test_fraction: float = 0.0,
    about: Mapping[str, Any] | None = None,
) -> Row:
    """Select from the file `scored` and write `out`, `OUT.card.md` and `OUT.card.json`, each whole or not at all.

    With a `test_fraction`, that share of the prompts goes, with all their rows, into a file of its own beside `out`:
    `pairs.jsonl` gets `pairs.test.jsonl`.

    Returns:
        The card.

    Raises:
        BadInput: If rows have no scores, or nothing is left of them.
    """
    if not 0 <= test_fraction < 1:
        raise BadInput(f"--test-fraction {test_fraction}: a share lies between 0 and 1.")
    out = Path(out).expanduser()
    rows = read_scored(scored)
    selected = select(rows, choice)
    train, test = _split(selected.rows, test_fraction, choice.seed)
    card = data_card(rows, selected, {"choice": vars(choice), "test_rows": len(test), **(about or {})})
    if test_fraction:
        write_rows(out.with_name(f"{out.stem}.test{out.suffix}"), test)
    write_rows(out, train)
    write_json(out.with_name(f"{out.name}.card.json"), card)
    _write(out.with_name(f"{out.name}.card.md"), card_text(card).encode())
    return card


def read_scored(path: str | Path) -> list[Row]:
    """Rows of `score`.

    Raises:
        BadInput: If a row has not one score per candidate.
    """
    rows = read_candidates(path)
    bad = [i for i, row in enumerate(rows) if len(row.get("scores") or ()) != len(row["candidates"])]
    if bad:
        raise BadInput(
            f"{path}: {rows_text(bad)} have not one score per candidate. Score them first: `bnf-align score`."
        )
    return rows


def _split(rows: list[Row], fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    if not fraction:
        return rows, []
    try:
        train, test = split_by_prompt(rows, fraction, seed)
    except BadInput as error:
        raise BadInput(str(error).replace("--eval_fraction", "--test-fraction")) from error
    for row in chain(train, test):
        del row["row"]  # its number, which only checking needs
    return train, test


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """JSON Lines, in one step."""
    _write(path, b"".join(map(row_bytes, rows)))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")  # the same in a rerun, so that a kill leaves none behind
    temporary.write_bytes(data)
    os.replace(temporary, path)
