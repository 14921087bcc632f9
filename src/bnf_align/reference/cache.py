"""The reference cache on disk: log-probabilities by content, shared between runs, methods and people.

    ROOT/<namespace>/manifest.json     what the reference is: hash of its weights, config, dtype, attention, ...
    ROOT/<namespace>/<digest>.arrow    a shard: column `key` (16 bytes), column `ref_logps` (list of float32)

A key is the hash of a response's token ids and scored mask, so it outlives shuffling, other learning rates and a
growing data set, and cannot outlive a change of tokens. A shard is named by the hash of its bytes and gets its name
only when it is whole: a kill loses at most what was not yet written, and damage is noticed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bnf_align.outputs import left_behind, replacing, write_json

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
SCHEMA = pa.schema([("key", pa.binary(16)), ("ref_logps", pa.list_(pa.float32()))])

Values = dict[bytes, np.ndarray]
"""Key of a response -> (scored tokens,) float32 reference log-probabilities, nats."""


def default_root() -> Path:
    """`$BNF_ALIGN_CACHE/reference`, or `~/.cache/bnf-align/reference`."""
    return Path(os.environ.get("BNF_ALIGN_CACHE", "~/.cache/bnf-align")).expanduser() / "reference"


def digest(data: bytes) -> str:
    """32 hexadecimal digits that stand for `data`."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def row_key(input_ids: np.ndarray, mask: np.ndarray) -> bytes:
    """The content address of a response: 16 bytes of its token ids and of which of them are scored."""
    content = input_ids.astype("<i4").tobytes() + np.packbits(mask).tobytes() + len(mask).to_bytes(8, "little")
    return hashlib.blake2b(content, digest_size=16).digest()


class ReferenceCache:
    """One namespace of the cache, in a folder of `root` that is called by the hash of `namespace`.

    `namespace` is what the values depend on besides the tokens, as JSON values; `about` is what a person may want to
    know of it (model name, ...).
    """

    def __init__(self, root: str | Path, namespace: Mapping[str, Any], about: Mapping[str, Any] | None = None) -> None:
        self.name = digest(json.dumps(dict(namespace), sort_keys=True).encode())
        self.folder = Path(root).expanduser() / self.name
        self.manifest = {**namespace, "about": dict(about or {})}
        self.unkept = 0
        """Values that could not be written."""

    def read(self, keys: Iterable[bytes]) -> Values:
        """The stored values of those `keys` that are there; what is damaged or not finite is not, and that is said."""
        wanted, found, infinite = set(keys), {}, 0
        for path, table in read_shards(self.folder):
            if table is None:
                logger.warning(f"{path} is damaged and ignored; its rows are computed again.")
                continue
            values = table.column("ref_logps").combine_chunks()
            flat, offsets = values.values.to_numpy(), values.offsets.to_numpy()
            for row, key in enumerate(table.column("key").to_pylist()):
                if key in wanted:
                    stored = flat[offsets[row] : offsets[row + 1]]
                    if np.isfinite(stored).all():
                        found[key] = stored
                    else:
                        infinite += 1
        if infinite:
            logger.warning(f"{self.folder}: {infinite:,} stored rows are NaN or infinite and computed again.")
        if found:
            with suppress(OSError):  # a cache that may only be read
                os.utime(self.folder / MANIFEST)  # the time of the last use, for `gc`
        return found

    def write(self, values: Values) -> None:
        """Add one shard with `values`.

        Raises:
            BadInput: If the folder cannot be written; nothing is left half-written.
        """
        if not values:
            return
        if not _manifest(self.folder):
            write_json(self.folder / MANIFEST, self.manifest)
        lists = [np.asarray(value, dtype=np.float32) for value in values.values()]
        offsets = np.cumsum([0, *map(len, lists)], dtype=np.int32)
        column = pa.ListArray.from_arrays(offsets, pa.array(np.concatenate(lists)))
        table = pa.table([pa.array(list(values), pa.binary(16)), column.cast(pa.list_(pa.float32()))], schema=SCHEMA)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, SCHEMA) as writer:
            writer.write_table(table)
        data = sink.getvalue().to_pybytes()
        with replacing(self.folder / f"{digest(data)}.arrow") as (temporary,):
            temporary.write_bytes(data)


def read_shards(folder: Path) -> Iterator[tuple[Path, pa.Table | None]]:
    """Every shard of a namespace, in the order of names; None where its bytes are not what its name says."""
    for path in sorted(folder.glob("*.arrow")):
        data = path.read_bytes()
        yield path, pa.ipc.open_file(data).read_all() if digest(data) == path.stem else None


def _manifest(folder: Path) -> dict[str, Any]:
    """What `manifest.json` says of a namespace; nothing where it is missing or damaged: the shards hold without it."""
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) and isinstance(found.get("about", {}), dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}


@dataclass(frozen=True)
class NamespaceInfo:
    """What `bnf-align reference ls` and `verify` say of one namespace."""

    folder: Path
    manifest: dict[str, Any]
    rows: int
    tokens: int
    size: int
    """Bytes."""
    used: float
    """Seconds since the epoch at the last read or write."""
    damaged: list[Path]


def namespaces(root: str | Path) -> list[NamespaceInfo]:
    """Every namespace under `root`, with or without a manifest, the last used first; reads and checks every shard."""
    found = []
    files = [path for name in (MANIFEST, "*.arrow") for path in Path(root).expanduser().glob(f"*/{name}")]
    for folder in sorted({path.parent for path in files}):
        tables = dict(read_shards(folder))
        whole = [table for table in tables.values() if table is not None]
        found.append(
            NamespaceInfo(
                folder=folder,
                manifest=_manifest(folder),
                rows=sum(table.num_rows for table in whole),
                tokens=sum(len(table.column("ref_logps").combine_chunks().values) for table in whole),
                size=sum(path.stat().st_size for path in tables),
                used=(folder / MANIFEST if (folder / MANIFEST).exists() else folder).stat().st_mtime,
                damaged=[path for path, table in tables.items() if table is None],
            )
        )
    return sorted(found, key=lambda info: -info.used)


def collect_garbage(root: str | Path, older_than_days: float, dry_run: bool = False) -> tuple[list[Path], int]:
    """Delete damaged shards, what a kill left behind, and namespaces unused for `older_than_days`.

    Returns the deleted files (with `dry_run`, those that would be) and their bytes.
    """
    now, doomed = time.time(), []
    for info in namespaces(root):
        old = now - info.used > older_than_days * 86400
        doomed += list(info.folder.iterdir()) if old else info.damaged
    doomed += [path for path in left_behind(Path(root).expanduser(), "*/.*.tmp") if path not in doomed]
    size = sum(path.stat().st_size for path in doomed)
    if not dry_run:
        for path in doomed:
            path.unlink(missing_ok=True)
        for folder in {path.parent for path in doomed}:
            with suppress(OSError):  # it holds more, or another run of this was faster
                folder.rmdir()
    return doomed, size
