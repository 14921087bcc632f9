"""Which columns a source has, what they are called here, and which shapes are known but not read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bnf_align.records import BadInput, DataReport

Row = dict[str, Any]

COLUMNS = ("prompt", "chosen", "rejected", "completion", "label", "messages", "tools", "chat_template_kwargs")
IMAGES = ("image", "images", "video", "videos", "audio", "audios")
PAIR = ("prompt", "chosen", "rejected")
SINGLE = ("prompt", "completion", "label")

SYNONYMS = {
    "prompt": ("question", "instruction", "query", "input", "problem", "context", "user"),
    "chosen": ("good", "preferred", "better", "best", "winner", "positive", "accepted", "chosen_response"),
    "rejected": ("bad", "dispreferred", "worse", "worst", "loser", "negative", "rejected_response"),
    "completion": ("answer", "response", "output", "reply", "generation", "text"),
    "label": ("score", "feedback", "thumbs", "thumb", "vote", "liked", "kto_tag", "is_good", "correct"),
}
"""What others call these columns; for the guess in the error message, never for reading."""


def named_rows(
    rows: Iterable[Mapping[str, Any]], column_map: Mapping[str, str] | None, report: DataReport
) -> list[Row]:
    """The rows under this project's column names.

    Args:
        rows: Raw rows.
        column_map: Our name -> the source's, as `--map` gives it.
        report: Where a `rating` read as the label is said.

    Raises:
        BadInput: If the columns hold no preferences; the message says how to name or reshape them.
    """
    named = _renamed([dict(row) for row in rows], column_map or {})
    if not named:
        raise BadInput(f"{report.source} is empty: it has 0 rows.")
    seen = dict.fromkeys(name for row in named for name in row)
    filled = {name for row in named for name, value in row.items() if value is not None}
    if "label" not in filled and "rating" in filled and filled & {"completion", "messages"}:
        for row in named:
            row["label"] = row.pop("rating", None)
        filled = filled - {"rating"} | {"label"}
        report.notes.append("column `rating` is read as the label")
    pictures = [name for name in IMAGES if name in filled]
    if pictures:
        raise BadInput(f"{report.source}: column `{pictures[0]}`: only text is supported, not images, video or audio.")
    if not (
        {"chosen", "rejected"} <= filled
        or {"prompt", "completion", "label"} <= filled
        or {"messages", "label"} <= filled
    ):
        raise BadInput(f"{report.source}: {_unknown(list(seen), filled)}")
    return named


def _renamed(rows: list[Row], column_map: Mapping[str, str]) -> list[Row]:
    for ours, theirs in column_map.items():
        if ours not in COLUMNS:
            raise BadInput(f"--map {ours}={theirs}: there is no column `{ours}` here. Known: {', '.join(COLUMNS)}.")
        if not any(theirs in row for row in rows):
            seen = ", ".join(dict.fromkeys(name for row in rows for name in row))
            raise BadInput(f"--map {ours}={theirs}: no row has a column `{theirs}`. I see: {seen}.")
    for row in rows:  # all values are taken before any is set: `--map chosen=rejected rejected=chosen` swaps
        values = {ours: row.get(theirs) for ours, theirs in column_map.items()}
        for theirs in column_map.values():
            row.pop(theirs, None)
        row.update(values)
    return rows


def _unknown(seen: list[str], filled: set[str]) -> str:
    """What to do about columns that hold no preferences."""
    reshape = _known_shape(set(seen))
    if reshape:
        return reshape
    found = f"No preference columns found. I see: {', '.join(seen)}."
    empty = [name for name in seen if name in COLUMNS and name not in filled]
    if empty:
        found += f" Empty in every row: {', '.join(empty)}."
    for kind, wanted in (("pairs", PAIR), ("single answers with a label", SINGLE)):
        guess = {ours: _guess(ours, seen, filled) for ours in wanted}
        if all(guess.values()):
            flags = " ".join(f"{ours}={theirs}" for ours, theirs in guess.items() if ours != theirs)
            return f"{found} They look like {kind}: name them with --map {flags}"
    return f"{found} {_missing(filled)}"


def _guess(ours: str, seen: list[str], filled: set[str]) -> str | None:
    if ours in filled:
        return ours
    return next((name for name in seen if name.lower() in SYNONYMS[ours] and name in filled), None)


def _missing(filled: set[str]) -> str:
    if filled & {"chosen", "rejected"}:
        lacking = next(name for name in ("chosen", "rejected") if name not in filled)
        return f"A pair needs `{lacking}` too: name the column that holds it with --map {lacking}=COLUMN"
    if filled & {"completion", "messages"}:
        lacking = "label" if "label" not in filled else "prompt"
        return f"Single answers need `{lacking}` too: name the column that holds it with --map {lacking}=COLUMN"
    return (
        "Pairs need prompt, chosen and rejected; single answers prompt, completion and label. Name them, for example "
        "with --map prompt=COLUMN completion=COLUMN label=COLUMN"
    )


def _known_shape(seen: set[str]) -> str | None:
    """How to reshape a format known by name, or None."""
    if {"preferred_output", "non_preferred_output"} <= seen:
        return (
            "This is OpenAI's DPO format (input, preferred_output, non_preferred_output), which is not read as it "
            "stands. Write each row as prompt = input.messages, chosen = preferred_output, "
            "rejected = non_preferred_output, and tools = input.tools where there are any."
        )
    if "conversations" in seen:
        return (
            "This is the ShareGPT format (conversations of from and value), which is not read as it stands. Write "
            "each turn as {role, content}, with role user for human and assistant for gpt; then a row is messages and "
            "label, or prompt, chosen and rejected."
        )
    return None
