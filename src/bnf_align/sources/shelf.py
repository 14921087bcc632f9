"""Records that must be found again, in files of any order and size: kept on disk, not in memory."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any

from bnf_align.records import BadInput
from bnf_align.sources.source import Record


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
