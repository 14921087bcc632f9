"""Ten thousand judge calls through a server that fails three times in ten, killed and resumed.

    python benchmarks/judge_calls.py

The server (`tests/model_server.py`) answers 500 and 429, cuts connections, is silent, and sends HTML, half a JSON text
and JSON that is no completion. The asking process is killed with SIGKILL at random moments and started again with the
same cache. Checked: every question ends with its own answer, and none whose answer was on disk is asked again. An
answer that a kill meets between the server's socket and the disk is lost: these are counted, at most one a connection.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from bnf_align.endpoint import Endpoint
from bnf_align.judge import Judge
from model_server import KINDS, ModelServer

CONCURRENCY = 64


def ask(url: str, folder: str, questions: int) -> None:
    """Ask all questions, as `bnf-align eval judge` does."""
    endpoint = Endpoint(url, "a-judge", concurrency=CONCURRENCY, timeout=10, retries=20, backoff=0.01)
    asked = ((str(i), [{"role": "user", "content": f"question {i}"}]) for i in range(questions))
    for one in Judge(endpoint, folder).ask(asked, max_tokens=64):
        assert one.text == f"answer to question {one.id}", one


def on_disk(folder: str) -> set[str]:
    """Prompts whose answer is whole in the cache."""
    lines = [line for path in Path(folder).rglob("*.jsonl") for line in path.read_bytes().split(b"\n")[:-1]]
    return {json.loads(line)["text"].removeprefix("answer to ") for line in lines}


def run_until(goal: int | None, server: ModelServer, folder: str, questions: int) -> None:
    """One process that asks, killed when the server has sent `goal` answers."""
    asker = multiprocessing.get_context("spawn").Process(target=ask, args=(server.url, folder, questions))
    asker.start()
    while asker.is_alive() and (goal is None or server.served.total() < goal):
        time.sleep(0.002)
    if goal is not None:
        asker.kill()
    asker.join()
    assert goal is not None or asker.exitcode == 0, asker.exitcode


def asked_again(before: Counter[str], after: Counter[str], kept: set[str]) -> int:
    """Requests for prompts whose answer was kept."""
    return sum(after[prompt] - before[prompt] for prompt in kept)


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=10_000)
    parser.add_argument("--failures", type=float, default=0.3)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance = random.Random(options.seed)
    goals = sorted(chance.randrange(100, options.questions) for _ in range(options.kills))
    kinds = KINDS * 8 + ("timeout",)  # a silent server costs the whole time-out, so it is rare here as elsewhere
    begun, again = time.perf_counter(), 0
    with (
        ModelServer(failures=options.failures, kinds=kinds, seed=options.seed) as server,
        tempfile.TemporaryDirectory() as folder,
    ):
        for goal in [*goals, None]:
            kept, before = on_disk(folder), server.received.copy()
            run_until(goal, server, folder, options.questions)
            again += asked_again(before, server.received, kept)
        complete = len(on_disk(folder))
    seconds = time.perf_counter() - begun
    print(f"questions answered                  {complete:,} of {options.questions:,}")
    print(f"attempts                            {server.received.total():,}")
    print(f"failures injected                   {server.failed.total():,} {dict(sorted(server.failed.items()))}")
    print(f"kills, after so many answers        {goals}")
    print(f"asked again with the answer on disk {again}")
    print(f"answers a kill met on their way     {server.served.total() - complete}")
    print(f"seconds                             {seconds:.0f}")
    assert complete == options.questions
    assert again == 0


if __name__ == "__main__":
    main()
