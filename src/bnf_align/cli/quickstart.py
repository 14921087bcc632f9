"""`bnf-align quickstart`: offline, two cores, minutes: a tiny model learns from thumbs."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from bnf_align.cli.flags import add_flag


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    parser = argparse.ArgumentParser(prog="bnf-align quickstart", description=__doc__)
    add_flag(parser, "--output_dir", default="quickstart", help="receives everything (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed is another base model and other data")
    parser.add_argument(
        "--real", metavar="MODEL", help="a chat model instead of the tiny one, such as SmolLM2-135M-Instruct.Q4_1.gguf"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    arguments = parser.parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("bnf_align").setLevel(logging.INFO)
    out = Path(arguments.output_dir)
    if arguments.real:
        from bnf_align.journal import read_jsonl
        from bnf_align.lab import real

        result = real.real_quickstart(arguments.real, out, seed=arguments.seed)
        text = real.table(result, list(read_jsonl(out / "bnf" / "samples.jsonl")))
    else:
        from bnf_align.lab.quickstart import quickstart, table

        result = quickstart(out, seed=arguments.seed)
        text = (
            f"{table(result)}\n\n"
            f"Open {out / 'report.html'} in a browser: the same with curves, answers side by side and tokens.\n"
            f"The picture is {out / 'quickstart.png'}, every number is in {out / 'quickstart.json'}.\n"
            f"What was trained on is in {out / 'data' / 'preferences.jsonl'}: look at it with `bnf-align doctor`."
        )
    print(json.dumps(result) if arguments.json else text)
    return 0
