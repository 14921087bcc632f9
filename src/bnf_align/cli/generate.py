"""`bnf-align generate`: several answers to every prompt, by a model in process or behind URLs."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from bnf_align.cli.flags import (
    RESUME,
    add_batch_flags,
    add_cluster_flags,
    add_flag,
    add_model_flags,
    add_url_flags,
    check_out,
    count,
    engine,
)
from bnf_align.records import BadInput


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status: 0 done, 1 where prompts have no candidates yet."""
    arguments = _parser().parse_args(argv)
    from bnf_align.construct.generate import Job, generate
    from bnf_align.construct.prompts import as_messages, read_prompts
    from bnf_align.data.assignments import assignments
    from bnf_align.engines import Sampling

    check_out(arguments.out, arguments.prompts)
    columns = assignments("map", arguments.map)
    if others := columns.keys() - {"prompt"}:
        raise BadInput(f"--map {sorted(others)[0]}: only prompt=COLUMN is read; other columns keep their names.")
    # Before models are loaded, which may take longer than to mend a number.
    drawn = [
        Sampling(
            temperature=temperature,
            top_p=arguments.top_p,
            max_new_tokens=arguments.max_new_tokens,
            n=arguments.n,
            stop=tuple(arguments.stop),
        )
        for temperature in arguments.temperature
    ]
    prompts = read_prompts(arguments.prompts, arguments.split, columns.get("prompt"), arguments.limit)
    if arguments.chat:
        prompts = as_messages(prompts)
    if len(arguments.model) > 1 and arguments.model_revision:
        raise BadInput("--model_revision is for one --model: several would be looked for under the same name.")
    several = len(arguments.model) > 1  # they may not fit into memory side by side
    models = [engine(arguments, name, lazy=several) for name in arguments.model]
    # One seed for all would draw the same numbers at every temperature, and like answers from them.
    jobs = [
        Job(model, replace(sampling, seed=arguments.seed + number))
        for number, (model, sampling) in enumerate(product(models, drawn))
    ]
    about = {"command": shlex.join(["bnf-align", "generate", *argv])}
    done = generate(prompts, jobs, arguments.out, about=about)
    print("\n".join(done.lines()))
    return 1 if done.missing else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bnf-align generate", description=__doc__, epilog=RESUME)
    names = ("--prompts", "--data", "--dataset-name", "--dataset_name")
    parser.add_argument(*names, required=True, help="a file, a folder or a hub name; other columns travel along")
    add_flag(parser, "--split", default="train", help="which split, where there are several (default %(default)s)")
    add_flag(parser, "--map", nargs="+", help="the prompt's column: prompt=COLUMN")
    add_flag(parser, "--limit", type=count, help="the first so many prompts")
    add_flag(parser, "--chat", action="store_true", help="ask prompts that are text as a user's turn")
    add_flag(parser, "--model", nargs="+", required=True, help="folders or hub names; with --url the servers' name")
    add_flag(parser, "--out", required=True, help="the file of candidates")
    parser.add_argument("-n", type=count, default=5, help="candidates per prompt, model and temperature (default 5)")
    add_flag(parser, "--temperature", type=float, nargs="+", default=[0.8], help="one or several (default 0.8)")
    add_flag(parser, "--top-p", type=float, default=1.0)
    add_flag(parser, "--max-new-tokens", type=count, default=2048, help="the longest answer (default %(default)s)")
    add_flag(parser, "--stop", nargs="+", default=[], help="texts that end an answer and are not part of it")
    add_flag(parser, "--seed", type=int, default=0)
    add_url_flags(parser)
    add_batch_flags(parser)
    add_model_flags(parser)
    add_cluster_flags(parser)
    return parser
