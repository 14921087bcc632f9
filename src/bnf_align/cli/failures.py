"""What to say where no input is at fault: memory that does not suffice, a disk that is full, a process that died."""

from __future__ import annotations

import errno
import re

LESS_MEMORY = dict.fromkeys(
    ("train", "reference", "compare"),
    "A smaller --max_tokens_per_micro_batch (default 8192) takes less and changes no result; then --use_peft, "
    "--gradient_checkpointing true, or --max_length. `bnf-align plan` says what a run needs.",
)
LESS_MEMORY |= dict.fromkeys(
    ("generate", "score", "eval", "analyze", "construct"),
    "A smaller --batch-rows, --batch-tokens, --max-length or --max-new-tokens takes less, as far as the verb has it.",
)
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENAMETOOLONG}
NO_MEMORY = re.compile(r"out of memory|can't allocate memory|not enough memory|Cannot allocate memory", re.IGNORECASE)
# What safetensors and torch make of an error of the disk.
NOT_WRITTEN = re.compile(r"os error (\d+)|PytorchStreamWriter failed|unexpected pos \d+|file write failed")


def in_plain_words(error: Exception, verb: str) -> str | None:
    """What happened and what mends it; None for an error that is none of these."""
    said = " ".join(str(error).split())[:300]
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and NO_MEMORY.search(said)):
        advice = LESS_MEMORY.get(verb, "Close other programs, or take a machine with more.")
        return f"Out of memory ({said or type(error).__name__}). {advice}"
    if isinstance(error, OSError):
        written = error.errno in DISK
        where = f"{error.filename}: " if error.filename else ""
        said = f"{where}{error.strerror or error}"
    else:
        found = NOT_WRITTEN.search(said)
        written = found is not None and (found[1] is None or int(found[1]) in DISK)
    if written:
        return f"A file cannot be written or read: {said}. Make room or give another folder; what was whole stays."
    if type(error).__name__ == "BrokenProcessPool":
        return (
            "A process that worked for this command has died, most often because the machine had no memory left for "
            "it. Fewer processes take less; what was done is kept, and the same command goes on."
        )
    return None
