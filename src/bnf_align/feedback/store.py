"""Judgements on disk: one line of JSON for each, in a file that `bnf-align train` reads as it stands.

    {"id": ..., "created_at": ..., "user": ..., "model": ..., "reason": ...,
     "prompt": [...], "completion": [...], "label": true}
or, of two answers,
     "prompt": [...], "chosen": [...], "rejected": [...]}

A new judgement is appended. One that is changed or taken back is changed or left out in a copy of the file that then
takes its name: whoever reads it, this package or not, finds every judgement once, with the label it has now, and needs
no rule about which of two lines counts.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from bnf_align.journal.lines import Row, append_bytes, read_jsonl, row_bytes
from bnf_align.records import BadInput

logger = logging.getLogger(__name__)

Message = dict[str, Any]
Prompt = str | list[Message]

BEGINNING = b'{"id": "'
"""What every line of ours begins with, so that half a line of ours is told from somebody's notes."""


def thumb(prompt: Prompt, answer: str, label: bool, **about: Any) -> Row:
    """A row that says whether an answer is good.

    Args:
        prompt: The conversation before the answer, or a plain text, which the answer continues.
        answer: What the model said.
        label: True for a thumb up.
        about: `user`, `model`, `reason`, and whatever else is worth keeping.
    """
    return {**_head(**about), "prompt": prompt, "completion": _said(answer, prompt), "label": label}


def choice(prompt: Prompt, chosen: str, rejected: str, **about: Any) -> Row:
    """A row that says which of two answers is the better one; see `thumb`."""
    return {**_head(**about), "prompt": prompt, "chosen": _said(chosen, prompt), "rejected": _said(rejected, prompt)}


def _head(
    *, user: str | None = None, model: str | None = None, reason: str | None = None, **more: Any
) -> dict[str, Any]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"id": uuid4().hex, "created_at": now, "user": user, "model": model, "reason": reason, **more}


def _said(answer: str, prompt: Prompt) -> Prompt:
    """`answer` as the prompt is written: training joins plain texts, and a chat template writes messages."""
    return answer if isinstance(prompt, str) else [{"role": "assistant", "content": answer}]


class Store:
    """The file. Any number of processes and threads may use it at once: each holds a lock for as long as it writes.

    Args:
        path: A .jsonl file, made when it is not there, readable by its owner alone.

    Raises:
        BadInput: If it is no .jsonl file, cannot be written, or a line of it is no row.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser().resolve()  # a link must not be replaced by a file
        if self.path.suffix != ".jsonl":
            raise BadInput(f"{path}: thumbs are kept as JSON Lines. Name a .jsonl file with --store.")
        self._lock = self.path.with_name(f".{self.path.name}.lock")
        self._copy = self.path.with_name(f".{self.path.name}.tmp")
        try:  # what cannot be read or written stops here, not after somebody's first thumb
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.rows()
            _sync_folder(self.path.parent)
        except OSError as error:
            raise BadInput(f"{path}: thumbs cannot be kept there ({error}). Name another --store.") from error

    def rows(self) -> list[Row]:
        """All rows, in the order in which they were first made."""
        with self._locked():
            return list(read_jsonl(self.path))

    def append(self, row: Row) -> None:
        """Add a row. When this returns it outlives a kill and a power cut.

        Raises:
            OSError: If the disk is full or broken; nothing is added then.
        """
        with self._locked() as fd:
            append_bytes(fd, row_bytes(row))
            os.fsync(fd)

    def put(self, before: Row | None, after: Row | None) -> Row | None:
        """Make the judgement `before` the judgement `after`, or None of either; returns what is stored now."""
        if after is None:
            if before:
                self._rewrite(lambda old: None if old.get("id") == before["id"] else old)
            return None
        if before:
            after = {**after, "id": before["id"]}
        if not before or not self.replace(after):  # somebody had it deleted, and now judges again
            self.append(after)
        return after

    def put_all(self, before: Sequence[Row], after: Sequence[Row]) -> list[Row]:
        """The same for a judgement of several rows, all of them or none; returns what is stored now."""
        if len(before) <= 1 and len(after) <= 1:
            stored = self.put(*(rows[0] if rows else None for rows in (before, after)))
            return [stored] if stored else []
        gone = {row["id"] for row in before}
        self._rewrite(lambda old: None if old.get("id") in gone else old, after)
        return list(after)

    def explain(self, rows: Sequence[Row], reason: str) -> list[Row]:
        """Put a reason on the rows of a judgement; returns them, or none where somebody had them deleted."""
        rows = [{**row, "reason": reason.strip() or None} for row in rows]
        return rows if all(self.replace(row) for row in rows) else []

    def replace(self, row: Row) -> bool:
        """Put `row` where the row with its id is; False where there is none, since somebody deleted it."""
        return bool(self._rewrite(lambda old: row if old.get("id") == row["id"] else old))

    def delete_user(self, name: str) -> int:
        """Take all rows of a person out of the file; returns how many they were."""
        return self._rewrite(lambda old: None if old.get("user") == name else old)

    def _rewrite(self, change: Callable[[Row], Row | None], added: Sequence[Row] = ()) -> int:
        """Write the file anew with every row as `change` returns it, None leaving it out, and then what is added.

        Returns:
            How many rows changed.
        """
        changed = 0
        with self._locked() as fd:
            try:
                with open(self.path, "rb") as old, open(self._copy, "wb") as new:
                    os.fchmod(new.fileno(), os.fstat(fd).st_mode)
                    for line in filter(bytes.strip, old):
                        row = _row(line)
                        kept = change(row)
                        changed += kept is not row
                        new.write(line if kept is row else b"" if kept is None else row_bytes(kept))
                    new.writelines(map(row_bytes, added))
                    new.flush()
                    os.fsync(new.fileno())  # or a power cut could leave the name on an empty file
                if changed or added:
                    os.replace(self._copy, self.path)
                    _sync_folder(self.path.parent)
            finally:
                self._copy.unlink(missing_ok=True)  # a disk that is full needs the room
        return changed

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The file, open to append to, whole, and ours alone."""
        # A lock of the file itself would be lost when another file takes its name.
        lock = os.open(self._lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(lock, self.path)
            self._copy.unlink(missing_ok=True)  # of a process that was killed: it may hold rows deleted since
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                self._mend(fd)
                yield fd
            finally:
                os.close(fd)
        finally:
            os.close(lock)

    def _mend(self, fd: int) -> None:
        """Drop what a kill in the middle of a write left of the last line: nobody was told that it is kept."""
        size = os.fstat(fd).st_size
        if not size or os.pread(fd, 1, size - 1) == b"\n":
            return
        content = self.path.read_bytes()
        start = content.rfind(b"\n") + 1
        last = content[start:]
        try:
            _row(last)
        except ValueError as error:
            if not BEGINNING.startswith(last[: len(BEGINNING)].rstrip(b"\0")):  # a power cut may leave zeros
                raise BadInput(
                    f"{self.path}: the last line is not a row of thumbs. Mend it, or name another --store."
                ) from error
            os.ftruncate(fd, start)
            logger.warning(f"{self.path}: the last line was cut short by a kill and is left out.")
        else:
            append_bytes(fd, b"\n")


def _row(line: bytes) -> Row:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"not a row of thumbs: {line!r:.60}")
    return row


def _lock(fd: int, path: Path) -> None:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except OSError as error:
        raise BadInput(
            f"{path}: its file system knows no locks ({error.strerror}), so two people's thumbs could be mixed. Put "
            "the --store on a local disk."
        ) from error


def _sync_folder(folder: Path) -> None:
    """Make a name in `folder`, new or changed, outlive a power cut."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
