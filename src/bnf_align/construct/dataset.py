"""A selection on disk: preference rows, the held-out ones beside them, and the data card."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from bnf_align.construct.card import Row, card_text, data_card
from bnf_align.construct.choice import Choice
from bnf_align.construct.score import read_candidates
from bnf_align.construct.select import select
from bnf_align.data.rows import split_by_prompt
from bnf_align.journal.lines import row_bytes
from bnf_align.records import BadInput, rows_text

logger = logging.getLogger(__name__)


def write_selection(
    scored: str | Path,
    out: str | Path,
    choice: Choice,
    test_fraction: float = 0.0,
    about: Mapping[str, Any] | None = None,
) -> Row:
    """Select from the file `scored` and write `out`, `OUT.card.md` and `OUT.card.json`.

    With a `test_fraction`, that share of the prompts goes, with all their rows, into a file of its own beside `out`:
    `pairs.jsonl` gets `pairs.test.jsonl`. A kill leaves all files of one selection, or no `out`.

    Returns:
        The card.

    Raises:
        BadInput: If rows have no scores, nothing is left of them, or `out` is no place for rows.
    """
    if not 0 <= test_fraction < 1:
        raise BadInput(f"--test-fraction {test_fraction}: a share lies between 0 and 1.")
    out = _place(out, scored)
    rows = read_scored(scored)
    selected = select(rows, choice)
    train, test = _split(selected.rows, test_fraction, choice.seed)
    scorer = _scorer(scored, choice)
    card = data_card(
        rows, selected, {"scored": scorer, "choice": vars(choice), "test_rows": len(test), **(about or {})}
    )
    # `out` goes first and comes last: were a kill to leave old rows beside new test rows, they could share prompts.
    out.unlink(missing_ok=True)
    _write_test(out, test if test_fraction else None)
    _write(_card(out), [json.dumps(card, indent=2, default=str).encode(), b"\n"])
    _write(out.with_name(f"{out.name}.card.md"), [card_text(card).encode()])
    write_rows(out, train)
    return card


def _place(out: str | Path, scored: str | Path) -> Path:
    """Where the rows go, unless that is no file of lines or what they are selected from."""
    path = Path(out).expanduser()
    if path.suffix != ".jsonl":
        raise BadInput(f"--out {out}: the rows are JSON Lines, and are read as what a name ends in. Name a .jsonl.")
    if path.exists() and path.samefile(Path(scored).expanduser()):
        raise BadInput(f"--out {out} is the file of scores, which would be lost. Give another --out.")
    return path


def _card(out: Path) -> Path:
    return out.with_name(f"{out.name}.card.json")


def _write_test(out: Path, rows: Sequence[Row] | None) -> None:
    """The held-out rows; without any, those of an earlier selection go, since `out` may now hold their prompts."""
    path = out.with_name(f"{out.stem}.test{out.suffix}")
    if rows is not None:
        write_rows(path, rows)
    elif _card(out).exists() and json.loads(_card(out).read_text(encoding="utf-8")).get("test_rows"):
        path.unlink(missing_ok=True)


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


def _scorer(scored: str | Path, choice: Choice) -> Row | None:
    """What `score` left word of beside its file: scorer, weights, settings."""
    path = _card(Path(scored).expanduser())
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
    try:
        train, test = split_by_prompt(rows, fraction, seed)
    except BadInput as error:
        raise BadInput(str(error).replace("--eval_fraction", "--test-fraction")) from error
    for row in chain(train, test):
        del row["row"]  # its number, which only checking needs
    return train, test


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """JSON Lines, in one step."""
    _write(path, map(row_bytes, rows))


def _write(path: Path, parts: Iterable[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")  # the same in a rerun, so that a kill leaves none behind
    with open(temporary, "wb") as file:
        file.writelines(parts)
    os.replace(temporary, path)
