"""How many stored answers are scored in a CPU second: reading the gzip, extraction, grading and metrics.

    BNF_ALIGN_DATA=... python benchmarks/score_speed.py

The seven files of answers in the public data folder are repeated to 130,000 rows, the size of everything that
ZeroEval has published. Writes the row score-speed of `results/claims.csv`.
"""

from __future__ import annotations

import gzip
import os
import tempfile
import time
from pathlib import Path

import numpy as np
from protocol import bootstrap, one_thread, write_claim

from bnf_align.evaluation.score import score_file

ROWS, ROUNDS, SECONDS = 130_000, 7, 10
FILES = {
    "gsm": "gsm8k",
    "math-l5": "math_l5",
    "crux": "crux",
    "mmlu-redux": "mmlu_redux",
}


def repeated(source: Path, folder: Path, rows: int) -> list[tuple[Path, str]]:
    """Files with the rows of those in `source`, repeated in turn until there are `rows` in all, and their tasks."""
    answers = {
        path: gzip.decompress(path.read_bytes()).splitlines(keepends=True)
        for name in FILES
        for path in sorted((source / name).glob("*.gz"))
        if not path.name.startswith("labels")
    }
    times, rest = divmod(rows, sum(map(len, answers.values())))
    written = []
    for path, lines in answers.items():
        more, rest = lines[:rest], max(0, rest - len(lines))
        written.append((folder / f"{path.parent.name}-{path.name}", FILES[path.parent.name]))
        written[-1][0].write_bytes(gzip.compress(b"".join(lines * times + more), 6))
    return written


def score(files: list[tuple[Path, str]]) -> int:
    """Score every file; the rows that counted."""
    return sum(int(score_file(path, task).metrics["total"] or 0) for path, task in files)


def rows_per_second(files: list[tuple[Path, str]], rounds: int) -> np.ndarray:
    """Rows scored per CPU second, (rounds,)."""
    speeds = []
    with one_thread():
        for _ in range(rounds):
            start = time.process_time()
            rows = score(files)
            speeds.append(rows / (time.process_time() - start))
    return np.array(speeds)


def main() -> None:
    """Measure and write the claim."""
    source = Path(os.environ["BNF_ALIGN_DATA"]) / "zeroeval"
    with tempfile.TemporaryDirectory() as folder:
        speeds = rows_per_second(repeated(source, Path(folder), ROWS), ROUNDS)
    claim = f"rows per CPU second, {ROWS:,} stored answers of the four ZeroEval tasks, gzip reading included"
    holds = write_claim("score-speed", claim, bootstrap(speeds, np.median), f"low >= {ROWS // SECONDS}")
    print(f"{np.median(speeds):,.0f} rows per CPU second, {ROWS / np.median(speeds):.1f} s for all: {holds}")


if __name__ == "__main__":
    main()
