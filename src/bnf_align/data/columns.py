"""Which columns a source has, what they are called here, and what to say where they hold no preferences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bnf_align.records import BadInput, DataReport

COLUMNS = (
    "prompt",
    "chosen",
    "rejected",
    "completion",
    "label",
    "messages",
    "system",
    "tools",
    "chat_template_kwargs",
)
IMAGES = ("image", "images", "video", "videos", "audio", "audios")

SYNONYMS = {
    "prompt": ("question", "instruction", "query", "input", "problem", "context", "user"),
    "chosen": ("good", "preferred", "better", "best", "winner", "positive", "accepted", "chosen_response"),
    "rejected": ("bad", "dispreferred", "worse", "worst", "loser", "negative", "rejected_response"),
    "completion": ("answer", "response", "output", "reply", "generation", "text"),
    "label": ("score", "feedback", "thumbs", "thumb", "vote", "liked", "kto_tag", "is_good", "correct"),
}
"""What others call these columns; for the guess in the error message, never for reading."""
SYSTEM = ("system_prompt", "system_message", "system_instruction")
DIALOGUE = ("history", "dialogue", "dialog", "conversation", "conversations", "trajectory")
TALK = (*SYNONYMS["prompt"], "system", *SYSTEM, *DIALOGUE)
"""Names of columns that are part of a conversation, where they hold more than one word."""

WINNERS = {"winner", "winner_model_a", "winner_model_b", "winner_tie", "better", "better_response", "preference"}
WINNERS |= {"better_response_id", "safer_response_id", "preferred_response", "preference_strength", "preferred"}
WINNERS |= {"labels", "choice", "selected", "vote", "verdict", "chosen_model", "overall_preference", "winner_id"}
WINNERS |= {"human_preference", "better_answer", "preferred_answer"}
"""Names under which a column says of two answers which one is better."""

ROLE_KEYS = ("role", "from", "type")

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
    prompted: bool
    """Whether any row has a `prompt`: then none is read out of the answers of another."""
    system: bool
    """Whether any row has a text in `system`: then all rows are conversations, those of plain text too."""
    numbered: bool
    """Whether the rows bring their numbers along in `row`, as `split_by_prompt` writes them."""
    rows: int
    names: tuple[str, ...]
    """The source's own names, in the order in which they first occur."""

    def named(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """A copy of a row under this project's names."""
        named = dict(row)
        if self.renames:  # all values are taken before any is set: `--map chosen=rejected rejected=chosen` swaps
            gone = set(self.renames.values())
            named = {name: value for name, value in row.items() if name not in gone}
            named |= {ours: row.get(theirs) for ours, theirs in self.renames.items()}
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

    `column_map` is our name -> the source's (`--map`). The report gets the number of rows, that a `rating` is read as
    the label, and what looks like part of a conversation and is not read.

    Raises:
        BadInput: If the columns hold no preferences, or another column may be the prompt; the message says how to
            name or reshape them.
    """
    renames = column_map or {}
    # A list without a picture is no picture, and an empty system text is none.
    sparse = {*IMAGES, renames.get("system", "system")}
    names: dict[str, None] = {}
    firsts: dict[str, Mapping[str, Any]] = {}
    numbered, last = True, None
    for row in rows:
        report.rows += 1
        if not firsts.keys() >= row.keys():
            names.update(dict.fromkeys(row))
            for name, value in row.items():
                if value is not None and name not in firsts and (name not in sparse or _says_something(value)):
                    firsts[name] = row
        number = row.get("row") if numbered else None
        numbered = isinstance(number, int) and (-1 if last is None else last) < number < 2**63
        last = number
    if not report.rows:
        raise BadInput(f"{report.source} is empty: it has 0 rows.")
    for ours, theirs in renames.items():
        if ours not in COLUMNS:
            raise BadInput(f"--map {ours}={theirs}: there is no column `{ours}` here. Known: {', '.join(COLUMNS)}.")
        if theirs not in names:
            raise BadInput(f"--map {ours}={theirs}: no row has a column `{theirs}`. I see: {', '.join(names)}.")
    _refuse_unread_winner(names, renames)
    taken = {*renames, *renames.values()}
    seen = [*(name for name in names if name not in taken), *renames]
    filled = (firsts.keys() - taken) | {ours for ours, theirs in renames.items() if theirs in firsts}
    rated = "label" not in filled and "rating" in filled and bool(filled & {"completion", "messages"})
    if rated:
        filled = filled - {"rating"} | {"label"}
        report.notes.append("column `rating` is read as the label")
    elif {"label", "rating"} <= filled:
        report.notes.append("column `rating` is not read, since there is a `label`")
    _check_columns(report.source, seen, filled)
    columns = Columns(renames, rated, "prompt" in filled, "system" in filled, numbered, report.rows, tuple(names))
    read = filled & set(COLUMNS) - (set() if "label" in filled else {"messages"})
    talk = {name: row for name, row in firsts.items() if name not in taken | read and talks(name, row[name])}
    if talk and "prompt" not in filled and "chosen" in read and not _holds_conversation(firsts, renames):
        flags = " or ".join(f"--map prompt={name}" for name in talk)
        raise BadInput(
            f"{report.source}: there is no `prompt`, and {', '.join(f'`{name}`' for name in talk)} may be it. Nothing "
            f"is guessed from what the answers begin with: say {flags}, or take the column out."
        )
    for name, row in talk.items():
        told = {part for ours in read for part in _texts(columns.named(row).get(ours))}
        if not all(any(part in text for text in told) for part in _texts(row[name])):
            ours = "system" if name.lower() in ("system", *SYSTEM) else "prompt"
            report.warnings.append(
                f"column `{name}` looks like part of the conversation and is not read. Read it with "
                f"--map {ours}={name}, or take it out"
            )
    return columns


def cell(value: Any) -> Any:
    """A value as JSON would have it: an array of NumPy as a list, a gap in a table of pandas as None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return None if isinstance(value, float) and value != value else value


def _says_something(value: Any) -> bool:
    value = cell(value)
    return any(map(_says_something, value)) if isinstance(value, list) else value not in (None, "")


def talks(name: str, value: Any) -> bool:
    """Whether a column looks like part of a conversation: by its name and its words, or by its messages."""
    if isinstance(value, str):
        return (name.lower() in TALK and " " in value.strip()) or looks_like_messages(value)
    return isinstance(value, list) and bool(value) and all(map(is_message, value))


def is_message(value: Any) -> bool:
    """Whether an object is a message, of `role` and `content` or of ShareGPT's `from` and `value`."""
    return isinstance(value, dict) and ("role" in value or {"from", "value"} <= value.keys())


def looks_like_messages(text: str) -> bool:
    """Whether a text may be messages written as JSON, or as Python prints them."""
    return text[:1] in "[{ \n" and text.lstrip()[:1] in ("[", "{") and ("role" in text or "from" in text)


def _holds_conversation(firsts: Mapping[str, Mapping[str, Any]], renames: Mapping[str, str]) -> bool:
    """Whether answers are whole conversations, with the prompt in them, in the first row that has any."""
    theirs = renames.get("chosen", "chosen")
    chosen = cell(firsts[theirs][theirs])
    return len(chosen) > 1 if isinstance(chosen, list) else isinstance(chosen, str) and looks_like_messages(chosen)


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value, roles left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        parts = value if isinstance(value, list) else [part for key, part in value.items() if key not in ROLE_KEYS]
        for part in parts:
            yield from _texts(part)


def _check_columns(source: str, seen: list[str], filled: set[str]) -> None:
    pictures = [name for name in IMAGES if name in filled]
    if pictures:
        raise BadInput(f"{source}: column `{pictures[0]}`: only text is supported, not images, video or audio.")
    if any(
        shape <= filled for shape in ({"chosen", "rejected"}, {"prompt", "completion", "label"}, {"messages", "label"})
    ):
        return
    for key, name, needs in SHAPES:  # its importer reads files: rows in memory come to none
        if key in seen:
            raise BadInput(
                f"{source}: This looks like {name}. It is read from a file (`dataset.to_json(FILE)` makes one of a "
                f"dataset) and without --map, where its rows have {needs}. Here they have {', '.join(seen)}."
            )
    found = f"{source}: No preference columns found. I see: {', '.join(seen)}."
    if empty := [name for name in seen if name in COLUMNS and name not in filled]:
        found += f" Empty in every row: {', '.join(empty)}."
    pair, single = ("prompt", "chosen", "rejected"), ("prompt", "completion", "label")
    for kind, wanted in (("pairs", pair), ("single answers with a label", single)):
        guess = {ours: _guess(ours, seen, filled) for ours in wanted}
        if all(guess.values()):
            flags = " ".join(f"{ours}={theirs}" for ours, theirs in guess.items() if ours != theirs)
            raise BadInput(f"{found} They look like {kind}: name them with --map {flags}")
    needs, parts = "Single answers need", ("label", "prompt") if filled & {"completion", "messages"} else ()
    if filled & {"chosen", "rejected"}:
        needs, parts = "A pair needs", ("chosen", "rejected")
    for name in (name for name in parts if name not in filled):
        raise BadInput(f"{found} {needs} `{name}` too: name the column that holds it with --map {name}=COLUMN")
    if winner := next((name for name in seen if name.lower() in WINNERS), None):
        found += (
            f" If `{winner}` says which of two answers won: `bnf-align import table FILE --map prompt=COLUMN "
            f"first=COLUMN second=COLUMN --winner {winner} --out rows.jsonl`."
        )
    raise BadInput(
        f"{found} Pairs need prompt, chosen and rejected; single answers prompt, completion and label. Name them, for "
        "example with --map prompt=COLUMN completion=COLUMN label=COLUMN"
    )


def _guess(ours: str, seen: list[str], filled: set[str]) -> str | None:
    if ours in filled:
        return ours
    names = (ours, *SYNONYMS[ours])
    return next((name for name in seen if name.strip().lower() in names and name in filled), None)


def _refuse_unread_winner(names: Iterable[str], column_map: Mapping[str, str]) -> None:
    """Stop where `--map` takes one of two columns for the better answer in every row, beside a column that knows.

    Args:
        names: The columns of the source.
        column_map: Our name -> the source's.

    Raises:
        BadInput: With the command that reads the winner.
    """
    chosen, rejected = column_map.get("chosen", "chosen"), column_map.get("rejected", "rejected")
    unread = [name for name in names if name.lower() in WINNERS and name not in column_map.values()]
    if unread and {chosen, rejected} != {"chosen", "rejected"}:
        prompt = f"prompt={column_map['prompt']} " if "prompt" in column_map else ""
        raise BadInput(
            f"Column `{unread[0]}` looks like what says which answer won, and --map chosen={chosen} "
            f"rejected={rejected} would take `{chosen}` for the better one in every row. Read the winner with "
            f"`bnf-align import table FILE --map {prompt}first={chosen} second={rejected} --winner {unread[0]} "
            "--out rows.jsonl`; if it says something else, take the column out of the file"
        )
