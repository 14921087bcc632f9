"""Every answer a judge ever gave, on disk by what it was asked.

    ROOT/<model>/<time>-<digits>.jsonl      one shard per process: answers in the order in which they came

A line is written whole the moment its answer arrives and never touched again. So a kill costs nothing that was paid
for, several processes share the folder, on a network file system too, and a person can read it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
import uuid
from pathlib import Path
from typing import Any, NamedTuple

from bnf_align.journal.lines import append_bytes, row_bytes

logger = logging.getLogger(__name__)


def question_key(body: dict[str, Any]) -> str:
    """The content address of a request: 32 hexadecimal digits of model, messages and sampling."""
    return hashlib.blake2b(json.dumps(body, sort_keys=True).encode(), digest_size=16).hexdigest()


class _Place(NamedTuple):
    shard: Path
    offset: int


class JudgeCache:
    """The answers of one judge.

    Args:
        root: Folder of the caches of all judges; made when the first answer arrives.
        model: The judge's name.
    """

    def __init__(self, root: str | Path, model: str) -> None:
        self.folder = Path(root).expanduser() / re.sub(r"[^\w.-]+", "-", model)
        self._shard = self.folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}.jsonl"
        self._places: dict[str, _Place] = {}
        for shard in sorted(self.folder.glob("*.jsonl")):
            self._index(shard)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def get(self, key: str) -> dict[str, Any] | None:
        """What was stored under `key`."""
        place = self._places.get(key)
        if place is None:
            return None
        with open(place.shard, "rb") as file:
            file.seek(place.offset)
            return json.loads(file.readline())

    def put(self, key: str, entry: dict[str, Any]) -> None:
        """Store `entry`; when this returns it outlives the process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._shard, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            offset = os.fstat(fd).st_size
            append_bytes(fd, row_bytes({"key": key, **entry}))
        finally:
            os.close(fd)
        self._places[key] = _Place(self._shard, offset)

    def _index(self, shard: Path) -> None:
        offset = damaged = 0
        with open(shard, "rb") as file:
            for line in file:
                try:
                    self._places[json.loads(line)["key"]] = _Place(shard, offset)
                except (ValueError, KeyError, TypeError):
                    damaged += 1
                offset += len(line)
        if damaged:  # a kill in the middle of a write leaves one
            logger.warning(f"{shard}: {damaged} lines are damaged and ignored; their questions are asked again.")
