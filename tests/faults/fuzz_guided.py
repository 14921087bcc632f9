"""Spoilt input led by coverage: `pip install atheris`, then `python tests/faults/fuzz_guided.py MINUTES [CORPUS]`.

The inputs are those of `fuzz.py`; here libFuzzer chooses how to spoil them, and keeps in the folder CORPUS what
reached new code. Each kind of traceback is printed once, and the fuzzing goes on.
"""

import logging
import sys
import tempfile
import traceback
import warnings
from io import BytesIO
from pathlib import Path
from random import Random

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))

import conftest  # noqa: F401 (environment and threads, before anything else)

with atheris.instrument_imports(include=["bnf_align"]):
    from fuzzing import TARGETS, outcome


class Drawn(Random):
    """Draws from bytes, and zeros where they end: two inputs that are alike are spoilt alike."""

    def __init__(self, data: bytes):
        super().__init__(0)
        self.data = BytesIO(data)

    def getrandbits(self, k: int) -> int:
        size = (k + 7) // 8
        return int.from_bytes(self.data.read(size).ljust(size, b"\0")) >> (8 * size - k)

    def random(self) -> float:
        return self.getrandbits(53) / 2**53


seen: set[tuple] = set()


def one_input(data: bytes) -> None:
    """Spoil and read one target."""
    chance = Drawn(data)
    name = chance.choice(list(TARGETS))
    with tempfile.TemporaryDirectory() as folder:
        try:
            outcome(name, Path(folder), chance)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            kind = (type(error).__name__, where.filename, where.lineno)
            if kind not in seen:
                seen.add(kind)
                print(f"\n=== {name}: {data!r}\n{traceback.format_exc()}", flush=True)


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    minutes, *corpus = sys.argv[1:]
    flags = [f"-max_total_time={int(60 * float(minutes))}", "-max_len=400", "-timeout=60", "-rss_limit_mb=8192"]
    atheris.Setup([sys.argv[0], *flags, *corpus], one_input)
    atheris.Fuzz()
