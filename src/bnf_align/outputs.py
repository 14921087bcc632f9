"""Every file that a command writes: no target is a source, and all targets are replaced or none."""

from __future__ import annotations

import fcntl
import glob
import gzip
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from bnf_align.records import BadInput

LEFT_BEHIND = 3600
"""Seconds after which a temporary file belongs to nobody."""


def check_targets(targets: Mapping[str, str | Path], sources: Iterable[str | Path]) -> None:
    """Stop before anything is read or written where a target could not be written without harm.

    Args:
        targets: What names it (`--out`, or words where it follows from a flag) -> the file.
        sources: Files, folders and hub names that are read.

    Raises:
        BadInput: If a target is a folder, one of the sources or inside one, or two targets are one file.
    """
    read = [path for source in sources if (path := Path(source).expanduser()).exists()]
    seen: dict[Path, str] = {}
    for name, target in targets.items():
        path = Path(target).expanduser()
        if path.is_dir():
            raise BadInput(f"{name} {path} is a folder: name a file.")
        real = path.resolve()
        for source in read:
            same = path.exists() and path.samefile(source)  # by another name, or a link
            if same or source.resolve() in (real, *real.parents):
                raise BadInput(
                    f"{name} {path} would be written over {source}, which is read. Nothing is changed in place: "
                    "choose another name or folder."
                )
        if real in seen:
            raise BadInput(f"{seen[real]} and {name} are one file, {path}: choose another name.")
        seen[real] = name


@contextmanager
def alone(folder: str | Path) -> Iterator[None]:
    """Keep other processes that ask for it out of `folder`, which is made where it is not there.

    Raises:
        BadInput: If one of them is in it.
    """
    made = not Path(folder).exists()
    Path(folder).mkdir(parents=True, exist_ok=True)
    fd = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system that knows no locks
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BadInput(
                    f"{folder} is being written by another run, and two would mix their checkpoints. Wait for it, or "
                    "give another --output_dir."
                ) from error
        yield
    finally:
        os.close(fd)
        if made:
            with suppress(OSError):  # it holds something by now
                os.rmdir(folder)


@contextmanager
def replacing(*paths: Path, stale: Iterable[Path] = ()) -> Iterator[list[Path]]:
    """Temporary files that take the names of `paths` together when the block ends, and are gone if it fails.

    Of several files the first is the one that the others belong to: it goes first and comes last, so that a kill in
    between leaves it missing, and never beside files of another time.

    Args:
        paths: The files to write.
        stale: Files of an earlier time that do not belong to these; removed when all of these are whole.

    Raises:
        BadInput: If one cannot be written; then all are as they were.
    """
    temporary = [path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp") for path in paths]
    try:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            for left in left_behind(path.parent, f".{glob.escape(path.name)}.*.tmp"):
                left.unlink(missing_ok=True)
        yield temporary
        old = [*paths[:1], *stale] if len(paths) > 1 or stale else []
        for path in old:
            path.unlink(missing_ok=True)
        for new, path in reversed(list(zip(temporary, paths, strict=True))):
            os.replace(new, path)
    except OSError as error:
        names = {str(path) for path in (*paths, *temporary, *(path.parent for path in paths))}
        if error.filename is not None and str(error.filename) not in names:
            raise  # of something else, such as a file that is read
        listed = ", ".join(map(str, paths))
        raise BadInput(f"{listed} cannot be written: {error.strerror or error}. Choose another place.") from error
    finally:
        for path in temporary:
            with suppress(OSError):
                path.unlink()


@contextmanager
def whole_files(*paths: Path, stale: Iterable[Path] = ()) -> Iterator[list[TextIO]]:
    r"""UTF-8 files to write to, gzip if so named, that appear together when all are whole; see `replacing`.

    What JSON may hold and UTF-8 may not, half a character, is written as JSON's own escape, `\ud83d`.
    """
    with replacing(*paths, stale=stale) as temporary, ExitStack() as stack:
        yield [
            stack.enter_context(
                (gzip.open if path.name.lower().endswith(".gz") else open)(
                    new, "wt", encoding="utf-8", errors="backslashreplace", newline="\n"
                )
            )
            for path, new in zip(paths, temporary, strict=True)
        ]


def write_text(path: str | Path, text: str) -> None:
    """Write a text in one step: a reader sees the old file or the new one, never half of it.

    Raises:
        BadInput: If it cannot be written.
    """
    with whole_files(Path(path).expanduser()) as (file,):
        file.write(text)


def write_json(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write `value` as JSON, as `write_text` does."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def left_behind(folder: Path, pattern: str) -> list[Path]:
    """Temporary files in `folder` that nobody is writing any more, and that may hold people's chats.

    Two machines, or containers, that share a disk number their processes alike: only its age tells that a writer was
    killed. What vanishes while we look belonged to one that is alive.
    """
    found = []
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > LEFT_BEHIND:
                found.append(path)
    return found
