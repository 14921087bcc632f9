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
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    arguments = parser.parse_args(argv)
    from bnf_align.lab.quickstart import quickstart, table

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("bnf_align").setLevel(logging.INFO)
    result = quickstart(Path(arguments.output_dir), seed=arguments.seed)
    print(json.dumps(result) if arguments.json else f"{table(result)}\n{_places(Path(arguments.output_dir))}")
    return 0


def _places(folder: Path) -> str:
    return (
        f"\nThe picture is {folder / 'quickstart.png'}, every number is in {folder / 'quickstart.json'}.\n"
        f"What was trained on is in {folder / 'data' / 'preferences.jsonl'}: look at it with `bnf-align doctor`."
    )
