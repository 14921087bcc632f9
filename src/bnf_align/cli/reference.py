"""`bnf-align reference`: the cache of reference log-probabilities."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from bnf_align.cli.flags import add_cluster_flags, add_flag, cluster
from bnf_align.records import BadInput
from bnf_align.reference.cache import NamespaceInfo, collect_garbage, default_root, namespaces

if TYPE_CHECKING:
    from bnf_align.reference.cluster import ReferenceWorkers

EPILOG = """\
build takes the flags of `bnf-align train` and stops before step 1, for example to fill the cache on one machine for
many; with --sharded, for runs that FSDP2 will shard; with --engine ray (and --ray-address, --workers) on a cluster. A
namespace stands for one reference: its weights, config, dtype and attention."""


# FSDP2 rounds other things than autocast does, so its reference is another one.
SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_CPU_RAM_EFFICIENT_LOADING": "false"}


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    if argv and argv[0] == "build" and not {"-h", "--help"} & set(argv):
        return _build(argv[1:])
    parser = argparse.ArgumentParser(prog="bnf-align reference", epilog=EPILOG)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("build", help="compute and store what a run would need")
    for verb, text in {
        "ls": "what is stored",
        "verify": "read everything and compare it with its checksum; exit status 2 if something is damaged",
        "gc": "delete damaged files, leftovers of killed runs, and what was not used for long",
    }.items():
        sub = verbs.add_parser(verb, help=text)
        sub.add_argument("--ref_cache_dir", default=str(default_root()), help="default: %(default)s")
        sub.add_argument("--json", action="store_true", help="one JSON object instead of text")
        if verb == "gc":
            sub.add_argument("--older_than_days", type=float, default=90.0, help="default: %(default)s")
            sub.add_argument("--dry_run", action="store_true", help="only say what would go")
    arguments = parser.parse_args(argv)
    return {"ls": _ls, "verify": _verify, "gc": _gc}[arguments.verb](arguments)


def _build(argv: Sequence[str]) -> int:
    from bnf_align.cli import arguments, train
    from bnf_align.training.prepare import named_sources, starting_point

    options, flags = _build_parser().parse_known_args(argv)
    if options.sharded:
        os.environ |= SHARDED
    parsed = arguments.parse(flags)
    workers = _workers(options, parsed)
    loaded, config, rows, eval_rows = train.load(parsed)
    _, _, prepared = starting_point(loaded.model, loaded.tokenizer, named_sources(rows, eval_rows), config, workers)
    if config.process_index == 0:
        report = prepared.reference
        print(f"namespace {report.namespace}" if report else f"{config.loss_type} needs no reference.")
    return 0


def _build_parser() -> argparse.ArgumentParser:
    """What `build` has besides the flags of `train`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_flag(parser, "--sharded", action="store_true")
    add_cluster_flags(parser)
    return parser


def _workers(options: argparse.Namespace, parsed: tuple) -> ReferenceWorkers | None:
    found = cluster(options)
    if found is None:
        return None
    _, config, _ = parsed
    if config.world_size > 1:
        raise BadInput("--engine ray starts its own workers: run `bnf-align reference build` once, with no launcher.")
    from bnf_align.reference.cluster import ReferenceWorkers

    return ReferenceWorkers(found, partial(_reference, parsed, SHARDED if options.sharded else {}))


def _reference(parsed: tuple, environment: Mapping[str, str]) -> Any:
    """The reference as a worker loads it: the model that the flags name, up to its first step."""
    from bnf_align.cli.arguments import model_kwargs
    from bnf_align.models import load
    from bnf_align.training.prepare import reference_model

    os.environ |= environment
    _, config, model = parsed
    loaded = load(model.model_name_or_path, trainable=True, **model_kwargs(model))
    return reference_model(loaded.model, config)


def _ls(arguments: argparse.Namespace) -> int:
    found = namespaces(arguments.ref_cache_dir)
    if arguments.json:
        print(json.dumps({"root": arguments.ref_cache_dir, "namespaces": [_as_dict(info) for info in found]}))
        return 0
    print(f"{arguments.ref_cache_dir}: {len(found)} namespaces")
    for info in found:
        model = info.manifest["about"].get("model") or "a model given in Python"
        used = time.strftime("%Y-%m-%d", time.localtime(info.used))
        counts = f"{info.rows:,} rows, {info.tokens:,} tokens, {_mib(info.size)}"
        print(f"  {info.folder.name}  {counts}, used {used}: {model}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    found = namespaces(arguments.ref_cache_dir)
    damaged = [str(path) for info in found for path in info.damaged]
    if arguments.json:
        print(json.dumps({"namespaces": len(found), "damaged": damaged}))
    else:
        print(f"{sum(info.rows for info in found):,} rows in {len(found)} namespaces are whole.")
        for path in damaged:
            print(f"  damaged: {path}")
        if damaged:
            print("Runs compute damaged rows again; `bnf-align reference gc` deletes the files.")
    return 2 if damaged else 0


def _gc(arguments: argparse.Namespace) -> int:
    doomed, size = collect_garbage(arguments.ref_cache_dir, arguments.older_than_days, arguments.dry_run)
    if arguments.json:
        print(json.dumps({"deleted": [str(path) for path in doomed], "bytes": size, "dry_run": arguments.dry_run}))
    else:
        print(f"{'Would delete' if arguments.dry_run else 'Deleted'} {len(doomed)} files, {_mib(size)}.")
    return 0


def _as_dict(info: NamespaceInfo) -> dict[str, Any]:
    counts = {"rows": info.rows, "tokens": info.tokens, "bytes": info.size, "used": info.used}
    return {"namespace": info.folder.name, **counts, "damaged": [str(p) for p in info.damaged], **info.manifest}


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
