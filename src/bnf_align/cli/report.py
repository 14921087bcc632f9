"""`bnf-align report`: one page of everything that was recorded, and the paper's tables for your own models."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event

from bnf_align.records import BadInput

DESCRIPTION = """\
One HTML page that shows what a run, a comparison or an evaluation recorded (--html FILE), and as tables of their own
Tables 1 and 3 to 7 of the paper and the alignment tax, for your own models, from what `bnf-align eval score --json`,
`bnf-align eval rank --json` and `bnf-align train` write. What was not measured is said to be not measured."""

EPILOG = "A table that is not named is left out where there is nothing to show in it. See docs/report.md."

TABLES = ("1", "3", "4", "own", "5", "6", "7", "tax", "compare", "differences", "compare-tax", "answers", "tuning")
RECORDS = (".json", ".jsonl", ".parquet")
"""What a folder's records end in: none of them is written over."""
SUFFIXES = {".md": "markdown", ".html": "html", ".htm": "html", ".tex": "latex", ".csv": "csv"}


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    arguments = _parser().parse_args(argv)
    command = shlex.join(["bnf-align", "report", *argv])
    if arguments.watch:
        from bnf_align.report.watch import watching

        with suppress(KeyboardInterrupt), watching(arguments.watch, arguments.port, command) as url:
            print(f"The page is at {url}, and follows {arguments.watch}. Stop with Ctrl-C.", flush=True)
            Event().wait()
        return 0
    from bnf_align.outputs import check_targets, write_text
    from bnf_align.report import build_report, render

    report = build_report(
        arguments.files,
        _assigned("--rows", arguments.rows),
        tables=tuple(dict.fromkeys(arguments.table)),
        base=arguments.base,
        data=_assigned("--data", arguments.data),
        published=arguments.published,
        command=command,
    )
    targets = {flag: path for flag, path in (("--out", arguments.out), ("--html", arguments.html)) if path}
    records = (file for path in arguments.files for file in Path(path).glob("**/*") if file.suffix in RECORDS)
    check_targets(targets, [*(path for path in arguments.files if not Path(path).is_dir()), *records])
    suffix = Path(arguments.out).suffix.lower() if arguments.out else ""
    formats = {"--out": arguments.format or SUFFIXES.get(suffix, "markdown"), "--html": "html"}
    texts = {flag: render(report, formats[flag]) for flag in targets or ("--out",)}
    for flag, path in targets.items():
        write_text(path, texts[flag])
    if arguments.json:
        named = {"out": arguments.out, "html": arguments.html}
        print(json.dumps({**report.as_dict(), **named}, ensure_ascii=False))
    elif targets:
        shown = ", ".join(table.heading for table in report.tables) or "no table, only the page"
        print("\n".join(f"{path}: {shown}" for path in targets.values()))
    else:
        print(texts["--out"])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bnf-align report", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("files", nargs="*", metavar="FILES", help="records, or folders with them")
    parser.add_argument("--table", nargs="+", choices=TABLES, default=[], help="which (default: all that can be made)")
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="NAME=FILE_OR_FOLDER",
        help="what a row is called and what belongs to it; BASE_MODEL:NAME puts it under a base model, whose own row "
        "is called Base; rows called 0%%, 25%%, ... make Table 6",
    )
    parser.add_argument("--base", metavar="MODEL", help="the model, by its own name, that others are compared with")
    parser.add_argument("--data", nargs="+", metavar="TASK=FILE", help="items of arena_hard, wild_bench for Table 3")
    parser.add_argument("--published", action="store_true", help="add the paper's rows, where they compare with yours")
    parser.add_argument(
        "--format", choices=tuple(dict.fromkeys(SUFFIXES.values())), help="default: by --out, or markdown"
    )
    parser.add_argument("--out", metavar="FILE", help="where to write it (default: print it)")
    parser.add_argument("--html", metavar="FILE", help="write the page: one file that needs nothing else")
    parser.add_argument("--watch", metavar="RUN", help="serve the page of a run to this machine while it trains")
    parser.add_argument("--port", type=int, help="of --watch (default: the first free one from 7870)")
    parser.add_argument("--json", action="store_true", help="print the tables as one JSON object")
    return parser


def _assigned(flag: str, values: Sequence[str] | None) -> dict[str, str]:
    """`NAME=VALUE` words as a dict."""
    found: dict[str, str] = {}
    for word in values or []:
        name, equals, value = word.partition("=")
        if not (name.strip() and equals and value):
            raise BadInput(f"{flag} {word}: write {flag} NAME=FILE.")
        if name in found:
            raise BadInput(f"{flag} names {name!r} twice: put the files of one row into one folder.")
        found[name] = value
    return found
