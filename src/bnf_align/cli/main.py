"""The command `bnf-align`: finds the verb, runs it, and turns an error that the user can mend into one clear text."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Sequence
from importlib import import_module

from bnf_align.records import BadInput

VERBS = {
    "quickstart": "offline, two cores, minutes: a tiny model learns from thumbs, with a table and a picture",
    "doctor": "what is this file, what is wrong with it, what would training do with it",
    "train": "align a model: bnf-align train --model_name_or_path M --dataset_name FILE --output_dir OUT",
    "reference": "the reference cache: build, ls, verify, gc",
    "plan": "memory, hours and disk of a run before you start it",
    "eval": "benchmarks: run, judge, score, rank",
    "report": "the paper's tables for your own models: markdown, HTML, LaTeX",
    "env": "versions, devices, what is missing and the pip line for it",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `bnf-align VERB ...`.

    Returns:
        The exit status: 0 done, 1 for the doctor's warnings, 2 for input that the user has to mend.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0
    verb, *rest = [_value(argument) for argument in arguments]
    if verb not in VERBS:
        print(f"bnf-align: {verb!r} is not a verb.\n\n{_help()}", file=sys.stderr)
        return 2
    # transformers and TRL report usage unless told otherwise; nothing here does so by itself.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    # Where it is installed, peft imports it, and it complains of kernels that only QLoRA would use.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        return int(import_module(f"bnf_align.cli.{verb}").main(rest))
    except BadInput as error:
        print(f"bnf-align {verb}: {error}", file=sys.stderr)
        return 2


def _value(argument: str) -> str:
    """`argument`, with a space before what argparse would take for an option: -1=down after --label_map."""
    return f" {argument}" if re.match(r"-\d.*=", argument) else argument


def _help() -> str:
    verbs = "\n".join(f"  {verb:<11} {summary}" for verb, summary in VERBS.items())
    return (
        "Align a language model from thumbs up and thumbs down.\n\n"
        f"usage: bnf-align VERB ...\n\n{verbs}\n\nbnf-align VERB --help says more."
    )
