"""`bnf-align lab`: the paper's claims as experiments in the tiny world of the quickstart."""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Sequence
from pathlib import Path

from bnf_align.cli.flags import add_flag, count
from bnf_align.lab.claims import CLAIMS


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    parser = argparse.ArgumentParser(prog="bnf-align lab", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    claims = "\n".join(f"  {name:<15} {claim.says}" for name, claim in CLAIMS.items())
    run = verbs.add_parser(
        "run",
        help="run what a claim's experiment still lacks",
        description=f"Run what a claim's experiment still lacks.\n\nclaims:\n{claims}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("claim", choices=[*CLAIMS, "all"], help="one of the claims above, or all in their order")
    add_flag(run, "--seeds", type=count, default=5, help="each has its own base and data (default %(default)s)")
    add_flag(run, "--budget-minutes", type=float, default=math.inf, help="start no run after so long")
    add_flag(run, "--processes", type=count, default=1, help="of one thread each (default %(default)s)")
    add_flag(run, "--output_dir", default="lab", help="receives bases and data (default %(default)s)")
    add_flag(run, "--results", default="benchmarks/results/lab/runs.csv", help="gets every run (default %(default)s)")
    arguments = parser.parse_args(argv)
    from bnf_align.lab.experiment import FIRST_SEED, run_all

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("bnf_align.lab").setLevel(logging.INFO)
    names = list(CLAIMS) if arguments.claim == "all" else [arguments.claim]
    results, seeds = Path(arguments.results), range(FIRST_SEED, FIRST_SEED + arguments.seeds)
    missing = run_all(
        [run for name in names for run in CLAIMS[name].runs],
        seeds,
        Path(arguments.output_dir),
        results,
        minutes=arguments.budget_minutes,
        processes=arguments.processes,
        command="bnf-align lab " + " ".join(argv),
    )
    lacking = f"{missing:,} runs are missing, the same command goes on" if missing else "nothing is missing"
    print(f"{results}: {lacking}.")
    return 0
