"""`bnf-align report`: the paper's tables for your own models."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from pathlib import Path

DESCRIPTION = """\
Tables 1 and 3 to 7 of the paper and the alignment tax, for your own models, from what `bnf-align eval score --json`,
`bnf-align eval rank --json` and `bnf-align train` write. What was not measured is said to be not measured."""

EPILOG = "A table that is not named is left out where there is nothing to show in it. See docs/report.md."

TABLES = ("1", "3", "4", "5", "6", "7", "tax", "compare", "differences", "compare-tax", "answers", "tuning")
SUFFIXES = {".md": "markdown", ".html": "html", ".htm": "html", ".tex": "latex"}


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    arguments = _parser().parse_args(argv)
    from bnf_align.outputs import check_targets, write_text
    from bnf_align.report import build_report, render

    report = build_report(
        arguments.files,
        _assigned("--rows", arguments.rows),
        tables=tuple(dict.fromkeys(arguments.table)),
        base=arguments.base,
        data=_assigned("--data", arguments.data),
        published=arguments.published,
        command=shlex.join(["bnf-align", "report", *argv]),
    )
    if arguments.out:
        check_targets({"--out": arguments.out}, [path for path in arguments.files if not Path(path).is_dir()])
    suffix = Path(arguments.out).suffix.lower() if arguments.out else ""
    text = render(report, arguments.format or SUFFIXES.get(suffix, "markdown"))
    if arguments.out:
        write_text(arguments.out, text)
    if arguments.json:
        print(json.dumps({**report.as_dict(), "out": arguments.out}, ensure_ascii=False))
    else:
        print(f"{arguments.out}: {', '.join(table.heading for table in report.tables)}" if arguments.out else text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bnf-align report", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("files", nargs="*", metavar="FILES", help="results, rankings, run.json, or folders with them")
    parser.add_argument("--table", nargs="+", choices=TABLES, default=[], help="which (default: all that can be made)")
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="NAME=FILE_OR_FOLDER",
        help="what a row is called and what belongs to it; BASE_MODEL:NAME puts it under a base model, whose own row "
        "is called Base; rows called 0%%, 25%%, ... make Table 6",
    )
    parser.add_argument("--base", metavar="MODEL", help="the model, by its own name, that others are compared with")
    parser.add_argument(
        "--data", nargs="+", metavar="TASK=FILE", help="items of arena_hard and wild_bench, for Table 3"
    )
    parser.add_argument("--published", action="store_true", help="add the paper's rows, where they compare with yours")
    parser.add_argument(
        "--format", choices=tuple(dict.fromkeys(SUFFIXES.values())), help="default: by --out, or markdown"
    )
    parser.add_argument("--out", metavar="FILE", help="where to write it (default: print it)")
    parser.add_argument("--json", action="store_true", help="print the tables as one JSON object")
    return parser


def _assigned(flag: str, values: Sequence[str] | None) -> dict[str, str]:
    """`NAME=VALUE` words as a dict."""
    from bnf_align.records import BadInput

    found: dict[str, str] = {}
    for word in values or []:
        name, equals, value = word.partition("=")
        if not (name.strip() and equals and value):
            raise BadInput(f"{flag} {word}: write {flag} NAME=FILE.")
        if name in found:
            raise BadInput(f"{flag} names {name!r} twice: put the files of one row into one folder.")
        found[name] = value
    return found
