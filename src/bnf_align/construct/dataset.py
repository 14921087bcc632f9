"""A selection on disk: preference rows, the held-out ones beside them, and a page on what they are made of."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from bnf_align.construct.score import is_scored, read_candidates
from bnf_align.construct.select import NEAR_IDENTICAL, Choice, Selected, labels_and_lengths, select
from bnf_align.data.columns import COLUMNS
from bnf_align.data.ledger import canonical
from bnf_align.data.read import iter_rows
from bnf_align.data.rows import preference_rows, split_by_prompt
from bnf_align.journal.lines import Row, row_bytes
from bnf_align.outputs import check_targets, whole_files
from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport, counted, rows_text
from bnf_align.sources.files import kind_of
from bnf_align.stats import auc

logger = logging.getLogger(__name__)

ANSWERS = {"chosen", "rejected", "completion"}
BINS = 10
BAR = 40
"""Characters of the longest bar."""


def data_card(given: Sequence[Row], selected: Selected, about: Mapping[str, Any]) -> Row:
    """The numbers of the card.

    Args:
        given: Rows that were selected from.
        selected: What became of them.
        about: What made them: command, scorer, seed.
    """
    rows = selected.rows
    ups, downs = labels_and_lengths(rows)
    given_scores = (value for row in given for value in row.get("scores", ()) if value is not None)
    values = np.clip(np.array([*given_scores], dtype=float), -1e300, 1e300)  # between wider ones no bin has a width
    counts, edges = np.histogram(values, bins=BINS) if len(values) else (np.zeros(0), np.zeros(0))
    return {
        "prompts": len({canonical(row["prompt"]) for row in given}),
        "candidates": sum(len(row.get("candidates", ANSWERS & row.keys())) for row in given),
        "duplicates": sum(row.get("duplicates", 0) for row in given),
        "pairs": sum("chosen" in row for row in rows),
        "ups": sum(row.get("label") is True for row in rows),
        "downs": sum(row.get("label") is False for row in rows),
        "left_out": {reason: len(ids) for reason, ids in selected.dropped.items()},
        "reasons": {reason: reason.as_dict() for reason in selected.dropped},
        "scores": {"counts": counts.tolist(), "edges": edges.tolist()},
        "characters": {"ups": _quantiles(ups), "downs": _quantiles(downs)},
        "length_auc": auc(ups, downs) if ups and downs else None,
        "near_identical_pairs": selected.near_identical,
        "pair_similarity": _quantiles(selected.similarities),
        **about,
    }


def card_text(card: Row) -> str:
    """The card as markdown."""
    lines = ["# Data card", "", "| | |", "|---|---|"]
    lines += [f"| scored by | {card['scored'].get('scorer')} |"] if card.get("scored") else []
    lines += [
        f"| {name} | {card[name]:,} |" for name in ("prompts", "candidates", "duplicates", "pairs", "ups", "downs")
    ]
    lines += [f"| of these rows in the test file | {card['test_rows']:,} |"] if card.get("test_rows") else []
    lines += [f"| left out: {reason} | {count:,} |" for reason, count in card["left_out"].items()]
    lines += [f"| note | {note} |" for note in card.get("notes", ())]
    if card["scores"]["counts"]:
        lines += ["", "## Scores of all candidates", "", "```", *_histogram(card["scores"]), "```"]
    lines += ["", "## Lengths", ""]
    lines += [f"* {side}: {_shown(values)} characters" for side, values in card["characters"].items()]
    auc = card["length_auc"]
    if auc is not None:
        lines.append(
            f"* An up is longer than a down with probability {auc:.2f} (0.50: length says nothing)."
            + (" Length alone tells them well apart: a model learns it first." if abs(auc - 0.5) > 0.15 else "")
        )
    lines += ["", "## How alike the two sides of a pair are", ""]
    lines.append(f"* similarity in words (1 is equal): {_shown(card['pair_similarity'])}")
    left_out = ", left out" if Reason("near_identical") in card["left_out"] else ""
    lines.append(
        f"* near-identical ({NEAR_IDENTICAL} or more){left_out}: {counted(card['near_identical_pairs'], 'pair')}. "
        "What both sides share is pushed up and down at once (section 2.3 of the paper: this is what breaks DPO)."
    )
    return "\n".join(lines) + "\n"


def _quantiles(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    return dict(zip(("p5", "p50", "p95"), np.quantile(values, [0.05, 0.5, 0.95]).tolist(), strict=True))


def _shown(values: Mapping[str, float] | None) -> str:
    return "none" if values is None else ", ".join(f"{name} {value:,.4g}" for name, value in values.items())


def _histogram(scores: Row) -> list[str]:
    most = max(scores["counts"], default=0) or 1
    return [
        f"{low:>10.3g} to {high:<10.3g} {'#' * round(BAR * count / most):<{BAR}} {count:,}"
        for low, high, count in zip(scores["edges"], scores["edges"][1:], scores["counts"], strict=False)
    ]


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
    train: list[Row] = selected.rows
    test: list[Row] = []
    if test_fraction:
        train, test = split_by_prompt(train, test_fraction, choice.seed, flag="--test-fraction")
        for row in chain(train, test):
            del row["row"]  # its number, which only checking needs
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
    bad = [i for i, row in enumerate(rows) if not is_scored(row)]
    if bad:
        raise BadInput(
            f"{path}: {rows_text(bad)} without one score per candidate, a number or null. Score them first: "
            "`bnf-align score`."
        )
    return rows


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
