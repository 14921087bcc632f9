"""`bnf-align score`: a number for every candidate, by a verifier, IFEval, a reward model, PairRM or a judge."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from functools import partial
from typing import Any

from bnf_align.cli.flags import (
    RESUME,
    add_batch_flags,
    add_cluster_flags,
    add_flag,
    add_url_flags,
    check_out,
    cluster,
    count,
    key_variable,
    request_fields,
    text_of,
)

SCORERS = ("verifier", "ifeval", "reward_model", "armorm", "pairrm", "judge")


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status: 0 done, 1 where rows have no scores yet."""
    arguments = _parser().parse_args(argv)
    from bnf_align.construct.score import read_candidates, score
    from bnf_align.construct.scorers.load import load_scorer

    arguments.judge_template = text_of(arguments.judge_template)
    key_variable(arguments)
    arguments.request = request_fields(arguments) or None
    check_out(arguments.out, arguments.candidates)
    rows = read_candidates(arguments.candidates)
    about = {"command": shlex.join(["bnf-align", "score", *argv])}
    load: Any = partial(load_scorer, arguments)
    if workers := cluster(arguments):
        from bnf_align.construct.cluster import ClusterScorer

        load = partial(ClusterScorer, workers, load)
    report = score(rows, load(), arguments.out, about=about)
    print("\n".join(report.lines()))
    return 1 if report.missing else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bnf-align score", description=__doc__, epilog=RESUME)
    parser.add_argument("candidates", help="the file that `bnf-align generate` wrote")
    add_flag(parser, "--scorer", required=True, choices=SCORERS)
    add_flag(parser, "--out", required=True, help="the file of scored rows")
    add_flag(parser, "--model", help="reward_model, armorm, pairrm, judge: a folder or hub name")
    add_flag(parser, "--revision", help="the commit of a hub name; needed with --trust-remote-code")
    add_flag(parser, "--trust-remote-code", action="store_true", help="run code that comes with the model")
    add_flag(parser, "--max-length", type=count, help="tokens of prompt and candidate (default 4096; pairrm 2048)")
    add_flag(
        parser,
        "--rule",
        help="verifier: final_answer (the default), math_verify, exact, or a function, module:name; ifeval: strict "
        "(the default) or loose",
    )
    add_flag(parser, "--answer-column", help="verifier: the right answer (default answer)")
    add_flag(parser, "--rank-by", choices=("logits", "wins"), help="pairrm: scores are mean logits (default) or wins")
    add_flag(parser, "--judge-template", help="judge: a file with the wording, instead of ours")
    add_flag(parser, "--pairs", action="store_true", help="judge: compare in pairs, in both orders")
    add_flag(parser, "--cache", help="judge: folder of judgments already paid for")
    add_flag(parser, "--prices", type=float, nargs=2, metavar=("IN", "OUT"), help="judge: per million tokens")
    add_flag(parser, "--budget", type=float, help="judge: stop before it costs more; needs --prices")
    add_url_flags(parser)
    add_batch_flags(parser)
    add_cluster_flags(parser)
    return parser
