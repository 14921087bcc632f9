"""`bnf-align import SOURCE PATHS... --out rows.jsonl`: an export of a chat product as preference rows."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnf_align.cli.flags import add_flag
from bnf_align.records import BadInput

EPILOG = (
    "Exit status: 0 clean, 1 warnings, or ratings left out, 2 nothing written. The rows are TRL's two types: "
    "prompt, completion, label, and prompt, chosen, rejected; `bnf-align doctor` and `bnf-align train` read them."
)
CLEAN, WARNINGS, UNUSABLE = 0, 1, 2
ENDINGS = (".jsonl", ".jsonl.gz")


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        found = _import(arguments)
    except BadInput as error:
        if not arguments.json:
            raise
        found = {"status": UNUSABLE, "error": str(error)}
    if arguments.json:
        print(json.dumps({name: value for name, value in found.items() if name != "lines"}, ensure_ascii=False))
    else:
        print("\n".join(found["lines"]))
    return int(found["status"])


def _parser() -> argparse.ArgumentParser:
    from bnf_align.sources import SOURCES

    parser = argparse.ArgumentParser(prog="bnf-align import", description=__doc__, epilog=EPILOG)
    parser.add_argument("source", metavar="SOURCE", help=f"auto, {', '.join(SOURCES)}")
    parser.add_argument("paths", nargs="+", metavar="PATHS", help="the files of the export, or folders of them")
    add_flag(parser, "--out", required=True, metavar="FILE", help="the rows: .jsonl, or .jsonl.gz")
    add_flag(
        parser,
        "--label-map",
        nargs="+",
        action="extend",
        help="what ratings mean: 5=up 1=down 3=drop; or what a winner's values mean: a=first b=second tie=tie "
        "none=both_bad; over what is known",
    )
    add_flag(
        parser,
        "--map",
        nargs="+",
        action="extend",
        help="columns by other names: prompt=question completion=answer label=vote",
    )
    add_flag(
        parser,
        "--winner",
        metavar="COLUMN",
        help="of a table: which of two answers is better, with --map first=COLUMN second=COLUMN",
    )
    add_flag(parser, "--score-name", help="which of several scores, questions or labels is the thumb")
    add_flag(parser, "--up-from", type=float, metavar="SCORE", help="a number is an up from here on")
    add_flag(parser, "--down-to", type=float, metavar="SCORE", help="a number is a down up to here")
    add_flag(
        parser,
        "--raters",
        default="majority",
        choices=("majority", "unanimous", "all"),
        help="several people's ratings of one answer: what most say (a tie is left out; default), only what all say, "
        "or a row each",
    )
    add_flag(
        parser,
        "--redact",
        action="store_true",
        help="mask likely personal data (e-mail, phone, card, IBAN, SSN), keys and tokens",
    )
    add_flag(parser, "--json", action="store_true", help="one JSON object instead of text")
    return parser


def _import(arguments: argparse.Namespace) -> dict[str, Any]:
    """Write the rows and say what became of the ratings."""
    from bnf_align.data.assignments import assignments
    from bnf_align.outputs import check_targets, whole_files
    from bnf_align.sources import Options, import_rows
    from bnf_align.sources.files import data_files

    if arguments.redact:
        from bnf_align.data.doctor.personal import redact_row
    options = Options(
        label_map=assignments("label_map", arguments.label_map),
        column_map=assignments("map", arguments.map),
        score_name=arguments.score_name,
        up_from=arguments.up_from,
        down_to=arguments.down_to,
        raters=arguments.raters,
        winner=arguments.winner,
    )
    out = Path(arguments.out).expanduser()
    if not out.name.endswith(ENDINGS):
        raise BadInput(f"--out {out}: rows are written as JSON Lines; call the file {' or '.join(ENDINGS)}.")
    check_targets({"--out": out}, data_files(arguments.paths))
    rows, report = import_rows(arguments.source, arguments.paths, options)
    masked: Counter[str] = Counter()
    with whole_files(out) as (file,):
        for row in rows:
            if arguments.redact:
                row, counts = redact_row(row)
                masked.update(counts)
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")
    if arguments.redact:
        listed = ", ".join(f"{count:,} x {kind}" for kind, count in masked.most_common()) or "nothing found"
        report.notes.append(f"masked as likely personal data or secrets: {listed}")
    status = WARNINGS if report.warnings or report.dropped else CLEAN
    lines = [*report.lines(), f"The rows are in {out}. Look at them with: bnf-align doctor {out}"]
    return {
        "status": status,
        "error": None,
        "out": str(out),
        **report.as_dict(),
        "dropped_rows": report.dropped,
        "masked": dict(masked),
        "lines": lines,
    }
