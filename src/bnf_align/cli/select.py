"""`bnf-align select`: scored candidates, or pairs, to preference rows: pairs, thumbs or both, with a data card."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from dataclasses import fields

from bnf_align.cli.flags import add_flag
from bnf_align.records import counted


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    arguments = _parser().parse_args(argv)
    from bnf_align.construct.dataset import write_selection
    from bnf_align.construct.select import Choice

    choice = Choice(**{entry.name: getattr(arguments, entry.name) for entry in fields(Choice)})
    about = {"command": shlex.join(["bnf-align", "select", *argv])}
    card = write_selection(arguments.source, arguments.out, choice, arguments.test_fraction, about, arguments.split)
    print(json.dumps(card, ensure_ascii=False) if arguments.json else _said(card, arguments.out))
    return 0


def _said(card: dict, out: str) -> str:
    rows, test = card["pairs"] + card["ups"] + card["downs"], card["test_rows"]
    where = f": {counted(rows - test, 'row')} in {out}, {test:,} in the test file beside it" if test else f" in {out}"
    kinds = ", ".join(counted(card[f"{one}s"], one) for one in ("pair", "up", "down"))
    lines = [f"{kinds}{where}"]
    lines += [f"  left out {count:,}: {reason}" for reason, count in card["left_out"].items()]
    if card["near_identical_pairs"] and card["choice"]["near_identical"] == "keep":
        near = counted(card["near_identical_pairs"], "near-identical pair")
        lines.append(f"  {near}: --near-identical drop leaves them out")
    lines += [f"  note: {note}" for note in card["notes"]]
    return "\n".join([*lines, f"The data card is in {out}.card.md."])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bnf-align select", description=__doc__)
    parser.add_argument(
        "source",
        help="what `bnf-align score` wrote; or pairs and thumbs as train reads them: a file, folder or hub name",
    )
    add_flag(parser, "--split", default="train", help="of pairs: which split, where there are several")
    add_flag(parser, "--out", required=True, help="the preference rows, for `train --dataset_name`")
    add_flag(parser, "--unpaired", action="store_true", help="thumbs instead of pairs")
    add_flag(parser, "--threshold", type=float, help="unpaired: scores from here on are ups, others downs")
    add_flag(parser, "--top", type=float, help="unpaired: the best share of all candidates are ups")
    add_flag(parser, "--bottom", type=float, help="unpaired: the worst share are downs")
    add_flag(parser, "--repeats", default="keep", choices=("keep", "drop"), help="unpaired: answers given repeatedly")
    add_flag(parser, "--margin", type=float, default=0.0, help="a pair's scores differ by more (default 0: no ties)")
    add_flag(parser, "--pairing-ratio", type=float, default=1.0, help="share of pairs that stay pairs (paper: 5.2)")
    add_flag(parser, "--balance", action="store_true", help="as many ups as downs, by leaving some out at random")
    add_flag(parser, "--near-identical", default="keep", choices=("keep", "drop"), help="pairs differing in few words")
    add_flag(parser, "--test-fraction", type=float, default=0.0, help="share of the prompts into OUT's test file")
    add_flag(parser, "--seed", type=int, default=0)
    add_flag(parser, "--json", action="store_true", help="the data card as one JSON object")
    return parser
