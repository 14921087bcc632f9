"""Which columns a source has, what they are called here, and what to say where they hold no preferences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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

SHAPES = (
    ("preferred_output", "OpenAI's DPO format", "input, preferred_output and non_preferred_output"),
    ("conversations", "the ShareGPT format", "conversations with kto_tag, or with chosen and rejected"),
)
"""A column, the format that it gives away, and what a row of that needs; `sources.formats`."""


@dataclass(frozen=True)
class Columns:
    """What a source calls its columns: learnt from all of its rows, then applied to each."""

    renames: Mapping[str, str]
    """Our name -> the source's, as `--map` gives it."""
    rated: bool
    """Whether `rating` stands for the label."""
    numbered: bool
    """Whether the rows bring their numbers along in `row`, as `split_by_prompt` writes them."""
    rows: int
    names: tuple[str, ...]
    """The source's own names, in the order in which they first occur."""

    def named(self, row: Mapping[str, Any]) -> Row:
        """A copy of a row under this project's names."""
        named = _renamed(row, self.renames) if self.renames else dict(row)
        if self.rated:
            named["label"] = named.pop("rating", None)
        return named

    def number(self, position: int, row: Mapping[str, Any]) -> int:
        """The number of the row at a position in the source."""
        return int(row["row"]) if self.numbered else position


def read_columns(
    rows: Iterable[Mapping[str, Any]], column_map: Mapping[str, str] | None, report: DataReport
) -> Columns:
    """Read all rows for their columns; nothing of them is kept.

    Args:
        rows: Raw rows.
        column_map: Our name -> the source's, as `--map` gives it.
        report: Where their number goes, and that a `rating` is read as the label.

    Raises:
        BadInput: If the columns hold no preferences; the message says how to name or reshape them.
    """
    names: dict[str, None] = {}
    filled: set[str] = set()
    numbered, last = True, None
    for row in rows:
        report.rows += 1
        if not filled.issuperset(row):
            names.update(dict.fromkeys(row))
            filled.update([name for name, value in row.items() if value is not None])
        number = row.get("row") if numbered else None
        numbered = isinstance(number, int) and (-1 if last is None else last) < number < 2**63
        last = number
    if not report.rows:
        raise BadInput(f"{report.source} is empty: it has 0 rows.")
    renames = _checked_map(column_map or {}, names)
    seen, filled = _names_after(names, filled, renames)
    rated = "label" not in filled and "rating" in filled and bool(filled & {"completion", "messages"})
    if rated:
        filled = filled - {"rating"} | {"label"}
        report.notes.append("column `rating` is read as the label")
    _check_columns(report.source, seen, filled)
    return Columns(renames, rated, numbered, report.rows, tuple(names))


def _checked_map(column_map: Mapping[str, str], names: Iterable[str]) -> Mapping[str, str]:
    for ours, theirs in column_map.items():
        if ours not in COLUMNS:
            raise BadInput(f"--map {ours}={theirs}: there is no column `{ours}` here. Known: {', '.join(COLUMNS)}.")
        if theirs not in names:
            raise BadInput(f"--map {ours}={theirs}: no row has a column `{theirs}`. I see: {', '.join(names)}.")
    return column_map


def _renamed(row: Mapping[str, Any], renames: Mapping[str, str]) -> Row:
    # All values are taken before any is set: `--map chosen=rejected rejected=chosen` swaps.
    gone = set(renames.values())
    named = {name: value for name, value in row.items() if name not in gone}
    return named | {ours: row.get(theirs) for ours, theirs in renames.items()}


def _names_after(
    names: Mapping[str, None], filled: set[str], renames: Mapping[str, str]
) -> tuple[list[str], set[str]]:
    """Names, and names with a value, as they are after renaming."""
    taken = {*renames, *renames.values()}
    seen = [*(name for name in names if name not in taken), *renames]
    return seen, (filled - taken) | {ours for ours, theirs in renames.items() if theirs in filled}


def _check_columns(source: str, seen: list[str], filled: set[str]) -> None:
    pictures = [name for name in IMAGES if name in filled]
    if pictures:
        raise BadInput(f"{source}: column `{pictures[0]}`: only text is supported, not images, video or audio.")
    if not (
        {"chosen", "rejected"} <= filled
        or {"prompt", "completion", "label"} <= filled
        or {"messages", "label"} <= filled
    ):
        raise BadInput(f"{source}: {_unknown(seen, filled)}")


def _unknown(seen: list[str], filled: set[str]) -> str:
    """What to do about columns that hold no preferences."""
    if shape := _known_shape(seen):
        return shape
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


def _known_shape(seen: list[str]) -> str | None:
    """What to do with a format known by name, or None. Its importer reads files: rows in memory come to none."""
    found = next(((name, needs) for key, name, needs in SHAPES if key in seen), None)
    return found and (
        f"This looks like {found[0]}. It is read from a file (`dataset.to_json(FILE)` makes one of a dataset) and "
        f"without --map, where its rows have {found[1]}. Here they have {', '.join(seen)}."
    )
