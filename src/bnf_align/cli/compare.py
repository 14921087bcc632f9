"""`bnf-align compare`: methods x settings x seeds on the same rows, and which differences are real."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

from bnf_align.cli.flags import RESUME, add_cluster_flags, add_flag, cluster


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="bnf-align compare", description=__doc__, epilog=RESUME.partition(" Keys")[0]
    )
    parser.add_argument("--config", required=True, help="a YAML file; docs/compare.md says what it holds")
    add_flag(parser, "--out", help="the folder of everything, over the file's own `out`")
    add_cluster_flags(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object, that of compare.json, instead of text")
    arguments = parser.parse_args(argv)
    from bnf_align.cli.arguments import settings
    from bnf_align.cli.recipe import read_with_lines
    from bnf_align.compare import compare, read
    from bnf_align.outputs import write_text
    from bnf_align.report import Report, build_report, render

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    found, lines = read_with_lines(arguments.config)
    workers = cluster(arguments)
    plan = read(found | ({"out": arguments.out} if arguments.out else {}), lines, settings)
    record = compare(plan, cluster=workers, command=shlex.join(["bnf-align", "compare", *argv]))
    folder = Path(plan.out)
    text = render(Report(build_report([folder / "compare.json"]).tables, [], record["command"]), "markdown")
    write_text(folder / "compare.md", text)
    print(json.dumps(record) if arguments.json else text.rstrip())
    return 0
