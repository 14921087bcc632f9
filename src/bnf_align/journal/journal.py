"""A job's rows on disk: a file that grows row by row, outlives a kill, and ends as if nothing had happened.

PATH.partial      rows in the order in which they were finished; a killed run loses at most half a line of it
PATH              all rows in the order asked for; appears whole or not at all
PATH.card.json    what the rows were made with, so that two models never share a file
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any, NamedTuple

from bnf_align.journal.lines import BOM, Row, append_bytes, row_bytes
from bnf_align.outputs import replacing, write_json
from bnf_align.records import BadInput, counted

logger = logging.getLogger(__name__)


class _Place(NamedTuple):
    file: Path
    offset: int
    length: int


class Journal:
    """The rows of one job, one writer at a time.

    Only ids and places are held in memory. A row's bytes are never written anew: `finish` copies them, so a resumed
    job ends with the same file as an uninterrupted one. Use it as a context manager, or `close` it.

    Args:
        path: The finished file, a .jsonl. Rows that are there already count as done.
        card: What the rows depend on besides their id: model, sampling, wording.
        about: What is worth knowing and may differ from run to run, such as the command; kept under `about`.

    Raises:
        BadInput: If another process writes `path`, a line of it is no row, or its rows were made with another card.
    """

    def __init__(
        self,
        path: str | Path,
        card: Mapping[str, Any] | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = Path(path).expanduser()
        if self.path.suffix == ".gz":
            raise BadInput(f"{path}: rows are appended one by one, which a .gz cannot take. Name a .jsonl with --out.")
        self.partial = self.path.with_name(f"{self.path.name}.partial")
        self._card = self.path.with_name(f"{self.path.name}.card.json")
        self._places: dict[str, _Place] = {}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._fd: int | None = _locked(self.partial)
        try:
            self._read(self.path)
            self._read(self.partial)
            if card is not None:
                self._check(card, about or {})
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        if failure and not self._places:  # a card alone would speak of rows that nobody made
            self._card.unlink(missing_ok=True)
        self.close()

    @property
    def done(self) -> Set[str]:
        """Ids of the rows that are on disk."""
        return self._places.keys()

    def rows(self) -> dict[str, Row]:
        """Id -> row, read from disk; of several rows with one id, the last."""
        return dict(self.read())

    def read(self) -> Iterator[tuple[str, Row]]:
        """The same, one at a time."""
        for name, line in self._lines(self._places):
            yield name, json.loads(line)

    def row(self, name: str) -> Row:
        """The row with the id `name`, read from disk.

        Raises:
            KeyError: If there is none.
        """
        place = self._places[name]
        with open(place.file, "rb") as file:
            file.seek(place.offset)
            return dict(json.loads(file.read(place.length)))

    def append(self, rows: Iterable[Row], sync: bool = False) -> int:
        """Add the rows that are new, and say how many these are; what is finished stays as it is.

        A batch that a kill left half done is computed again as a whole, for its rounding, and must not replace rows
        that somebody may have read. When this returns the rows outlive the process; with `sync`, a power cut as well.
        """
        assert self._fd is not None, "the journal is closed"
        new = {name: row for row in rows if (name := str(row["id"])) not in self._places}
        written = [(name, row_bytes(row)) for name, row in new.items()]
        offset = os.fstat(self._fd).st_size
        append_bytes(self._fd, b"".join(line for _, line in written))
        if sync:
            os.fsync(self._fd)
        for name, line in written:
            self._places[name] = _Place(self.partial, offset, len(line))
            offset += len(line)
        return len(written)

    def finish(self, order: Iterable[str]) -> Path:
        """Write `path` with its rows in `order`, remove the partial file and close the journal.

        Ids without a row are passed over. Rows that `order` does not name follow at the end, and it is said:
        nothing finished is lost.
        """
        # `order` may be any iterable; as the keys of a dict it keeps its order and names every row once.
        names = dict.fromkeys(map(str, order))
        if others := [name for name in self._places if name not in names]:
            logger.warning(
                f"{self.path}: {counted(len(others), 'row')} of an earlier job (first: {others[0]!r}), none of "
                "this one: kept, at the end. Give another --out to be without."
            )
        with replacing(self.path) as (temporary,), open(temporary, "wb") as file:
            file.writelines(line + b"\n" for _, line in self._lines([*names, *others]))
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the new name on an empty file
        # A kill before this line leaves every row in both files, which the next run reads as one.
        self.partial.unlink()
        self.close()
        return self.path

    def close(self) -> None:
        """Let go of the file; a partial file without rows is removed."""
        if self._fd is None:
            return
        if os.fstat(self._fd).st_size == 0:
            self.partial.unlink(missing_ok=True)
        os.close(self._fd)
        self._fd = None

    def _read(self, source: Path) -> None:
        if not source.exists():
            return
        assert self._fd is not None
        offset = 0
        with open(source, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        row = json.loads(line)  # of bytes, it takes a byte order mark in its stride
                        if not isinstance(row, dict) or "id" not in row:
                            raise ValueError("no JSON object with 'id'")
                        self._places[str(row["id"])] = _Place(source, offset, len(line))
                    except (ValueError, RecursionError) as error:
                        if source != self.partial or line.endswith(b"\n"):
                            advice = "Mend or remove that line, or give another --out."
                            raise BadInput(f"{source}, line {number}: not a row ({error}). {advice}") from error
                        os.ftruncate(self._fd, offset)
                        logger.warning(
                            f"{self.partial}: the last line was cut short by a kill; its row will be made again."
                        )
                offset += len(line)
        # A whole last line gets its newline, or the next row would continue it.
        size = os.fstat(self._fd).st_size
        if source == self.partial and size and os.pread(self._fd, 1, size - 1) != b"\n":
            append_bytes(self._fd, b"\n")

    def _lines(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Ids and the bytes of their rows, without line ends."""
        files = {file: os.open(file, os.O_RDONLY) for file in {place.file for place in self._places.values()}}
        try:
            for name in names:
                if place := self._places.get(name):
                    yield name, os.pread(files[place.file], place.length, place.offset).strip().removeprefix(BOM)
        finally:
            for fd in files.values():
                os.close(fd)

    def _check(self, card: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Compare `card` with that of the rows on disk; without rows there is nothing to mix up."""
        now = json.loads(json.dumps(dict(card), default=str))
        if not self._places:
            write_json(self._card, {**now, "about": about} if about else now)
            return
        way_out = f"Give another --out, or delete {self.path.name}* to begin anew."
        try:
            before = json.loads(self._card.read_text(encoding="utf-8"))
            if not isinstance(before, dict):
                raise ValueError
            before.pop("about", None)
        except (FileNotFoundError, ValueError, RecursionError) as error:
            raise BadInput(
                f"{self.path} has {len(self._places):,} rows, but {self._card.name}, which says what made them, "
                f"{'is not there' if isinstance(error, FileNotFoundError) else 'cannot be read'}. {way_out}"
            ) from error
        if differences := list(_differences(before, now)):
            raise BadInput(
                f"{self.path} was begun with other settings ({'; '.join(differences)}), and one file must not mix "
                f"them. {way_out}"
            )


def _locked(path: Path) -> int:
    """A descriptor that appends to `path` and that no other process has."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(fd)
            raise BadInput(
                f"{path} is being written by another process: two writers would mix their rows. Wait for it, or give "
                "another --out."
            ) from error
        except OSError:
            logger.warning(f"{path}: this file system knows no locks. Let only one process write it.")
        # Its last owner may have removed the file between our opening and our locking it.
        if path.exists() and os.path.samestat(os.fstat(fd), path.stat()):
            return fd
        os.close(fd)


def _differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif isinstance(before, list) and isinstance(now, list) and before != now:
        if len(before) != len(now):
            yield f"{name}: {len(before)} there, {len(now)} now"
        for number, (one, other) in enumerate(zip(before, now, strict=False)):
            yield from _differences(one, other, f"{name}.{number}")
    elif before != now:
        yield f"{name}: {before!r} there, {now!r} now"
