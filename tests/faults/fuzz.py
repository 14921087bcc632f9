"""Spoilt input for as long as it is let: `python tests/faults/fuzz.py MINUTES [SEED]` prints each kind of traceback.

A table at the end says how often each target was read and refused.
"""

import itertools
import logging
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).parents[1]))

import conftest  # noqa: F401 (environment and threads, before anything else)
from fuzzing import TARGETS, outcome


def main(minutes: float, seed: int = 0) -> int:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    counts: dict[str, Counter[str]] = {name: Counter() for name in TARGETS}
    seen: dict[tuple, str] = {}
    deadline = time.monotonic() + 60 * minutes
    for number, name in zip(itertools.count(seed * 10**9), itertools.cycle(TARGETS), strict=False):
        if time.monotonic() > deadline:
            break
        with tempfile.TemporaryDirectory() as folder:
            try:
                counts[name][outcome(name, Path(folder), Random(f"{number} {name}"))] += 1
            except Exception as error:
                counts[name]["traceback"] += 1
                where = traceback.extract_tb(error.__traceback__)[-1]
                kind = (type(error).__name__, where.filename, where.lineno)
                if kind not in seen:
                    seen[kind] = name
                    print(f"\n=== {name}: Random({f'{number} {name}'!r})\n{traceback.format_exc()}", flush=True)
    print("\n| input | read | refused | traceback |\n|---|---|---|---|")
    for name, found in counts.items():
        print(f"| {name} | {found['read']:,} | {found['refused']:,} | {found['traceback']:,} |")
    total = sum(counts.values(), Counter())
    print(f"| all | {total['read']:,} | {total['refused']:,} | {total['traceback']:,} |")
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), *map(int, sys.argv[2:])))
