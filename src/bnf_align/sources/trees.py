"""Chats as trees of messages: from a rated answer up the parent pointers to the root, and so to its prompt.

Chat products keep a tree: an edited question or a regenerated answer is one more child. The list order of an export
mixes the branches, so only the pointers say what an answer replied to.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport
from bnf_align.sources.fields import Where, dicts, filled, inside, part
from bnf_align.sources.source import Message, Options, Record, Source, Thumb


class Shelf:
    """Records by id and by group, in a database that SQLite keeps in a temporary file and deletes by itself.

    Args:
        records: Id, group and record of each; of several with one id the last one counts.

    Raises:
        BadInput: If the temporary file finds no place; and what reading the records raises.

    Example:
        >>> shelf = Shelf([("a", 1, {"n": 0}), ("b", 1, {"n": 1})])
        >>> shelf.get("b"), shelf.get("c"), shelf.group(1)
        ({'n': 1}, None, [{'n': 0}, {'n': 1}])
    """

    def __init__(self, records: Iterable[tuple[Any, Any, Record]]) -> None:
        self._database = sqlite3.connect("")
        # repr and JSON: ids may be numbers too long for SQLite, and texts hold characters that it refuses.
        texts = ((repr(name), repr(group), json.dumps(record, default=str)) for name, group, record in records)
        try:
            self._database.execute("CREATE TABLE record (name TEXT, family TEXT, body TEXT)")
            self._database.executemany("INSERT INTO record VALUES (?, ?, ?)", texts)
            self._database.execute("CREATE INDEX by_name ON record (name)")
            self._database.execute("CREATE INDEX by_family ON record (family)")
        except sqlite3.OperationalError as error:
            raise BadInput(
                f"What is rated must be looked up on disk, and there is no room for that ({error}): name a folder "
                "that has as much as the export with the environment variable SQLITE_TMPDIR."
            ) from error

    def get(self, name: Any) -> Record | None:
        """The record with an id, None without one."""
        found = self._select("name = ? ORDER BY rowid DESC LIMIT 1", name)
        return found[0] if found else None

    def group(self, name: Any) -> list[Record]:
        """The records of a group, in the order in which they came."""
        return self._select("family = ? ORDER BY rowid", name)

    def _select(self, where: str, name: Any) -> list[Record]:
        found = self._database.execute(f"SELECT body FROM record WHERE {where}", (repr(name),))
        return [json.loads(body) for (body,) in found]


Nodes = Mapping[str, Any] | Shelf
"""The messages of one conversation or of many, by id."""


ROOTS = (None, "", "00000000-0000-0000-0000-000000000000")
"""What stands for "no parent"; the zeros are LibreChat's."""

REASONING = re.compile(
    r'<details\s+type="(?:reasoning|code_interpreter|tool_calls)"[^>]*>.*?(?:</details>|\Z)'
    r"|\A\s*<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)"
    r"|\A\s*:::thinking\s.*?(?:^:::\s*$|\Z)",
    re.DOTALL | re.IGNORECASE | re.MULTILINE,
)
"""Blocks that were shown folded: Open WebUI's details; at the beginning, for an answer may be about them, the tags of
reasoning models and LibreChat's fences."""


def without_reasoning(text: str) -> str:
    r"""An answer as the person read it, without the folded blocks before it.

    Example:
        >>> without_reasoning("<think>2 and 2 ...</think>\n\nFour.")
        'Four.'
    """
    folded = ("<" in text or ":::" in text) and REASONING.search(text)
    return REASONING.sub("", text).strip() if folded else text


class Rated(NamedTuple):
    """A message that was rated."""

    row: int
    """Number of the record that says so."""
    nodes: Nodes
    leaf: Any
    """Its id."""
    value: Any
    chat: Any
    """What identifies the conversation: message ids may repeat from one to the next."""
    about: Record
    """The record that the extras are read from."""
    system: Any = None
    """The system prompt of the conversation, where the product keeps it beside the messages."""
    refused: Reason | None = None
    """Why it makes no row."""


@dataclass(frozen=True, kw_only=True)
class Tree(Source):
    """A chat product: where its messages keep their parts, and which of them are rated."""

    parent: str
    """Where a message has the id of the one that it answers."""
    role: Callable[[Record], str | None]
    """Whose a message is; "" for one that was not shown, such as a tool's or an empty root; None where it is not
    said."""
    text: Callable[[Record], Any]
    """What it says; anything but a string is a message that is not text."""
    rated: Callable[[Sequence[Path]], Iterator[Rated]]
    """The ratings in files."""
    extras: Mapping[str, Where] = field(default_factory=dict)
    """Our column -> where `Rated.about` has it."""
    files: Callable[[Record], Any] = lambda node: node.get("files")
    """What came with a message, a list of objects with a type."""

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb]:
        """A thumb per rating; what cannot be rebuilt is counted."""
        for one in self.rated(paths):
            found = one.refused or self.thumb(one)
            if isinstance(found, Reason):
                report.drop(found, one.row)
            else:
                yield found

    def thumb(self, one: Rated) -> Thumb | Reason:
        """A rating with its conversation, or why that cannot be rebuilt."""
        path: list[Record] = []
        seen, at = set(), one.leaf
        while at not in ROOTS:
            node = one.nodes.get(at) if isinstance(at, str) else None
            if isinstance(at, str) and at in seen:
                return Reason("circle")
            if not isinstance(node, dict):
                return Reason("message_missing" if path else "answer_not_in_thread")
            seen.add(at)
            path.append(node)
            at = node.get(self.parent)
        said = [self.message(node) for node in reversed(path)]
        turns: list[Message] = []
        for turn in said:
            if isinstance(turn, Reason):
                return turn
            turns += [] if turn is None else [turn]
        if not said or said[-1] is None or turns[-1]["role"] != "assistant":
            return Reason("not_an_answer")
        if isinstance(one.system, str) and one.system.strip():
            turns.insert(0, {"role": "system", "content": one.system})
        question = path[0].get(self.parent)
        return Thumb(
            one.row,
            turns[:-1],
            turns[-1:],
            one.value,
            answer=f"{one.chat}/{one.leaf}",
            extras=filled(**{name: part(one.about, where) for name, where in self.extras.items()}),
            question=None if question in (None, "") else f"{one.chat}/{question}",
        )

    def message(self, node: Record) -> Message | Reason | None:
        """A message, or why it cannot be read; None of one that was not shown."""
        role = self.role(node)
        if role is None:
            return Reason("message_of_nobody")
        if not role:
            return None
        if node.get("error") is True:  # older versions put what went wrong in the place of the answer
            return Reason("error_message")
        if any("image" in str(file.get("type")) for file in dicts(self.files(node))):
            return Reason("image")
        text = self.text(node)
        if not isinstance(text, str):
            return Reason("not_text")
        return {"role": role, "content": without_reasoning(text) if role == "assistant" else text}


def role_at(path: str, roles: Mapping[Any, str] | None = None) -> Callable[[Record], str | None]:
    """Whose a message is, by a field of it: as it stands there, or what its values mean; None for all else."""

    def role(node: Record) -> str | None:
        value = inside(node, path)
        known = value if roles is None else roles.get(value) if isinstance(value, str | bool) else None
        return known if isinstance(known, str) and known else None

    return role
