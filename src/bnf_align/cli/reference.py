"""`bnf-align reference`: the cache of reference log-probabilities."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence

from bnf_align.cli.flags import add_flag
from bnf_align.records import BadInput, counted
from bnf_align.reference.cache import collect_garbage, default_root, namespaces

EPILOG = """\
build takes the flags of `bnf-align train` and stops before step 1, for example to fill the cache on one machine for
many; with --sharded, for runs that FSDP2 will shard; with --device_map auto, a model spread over all devices of this
machine. Under torchrun or accelerate launch the processes share the work instead.
A namespace stands for one reference: its weights, config, dtype, attention, kind of device and versions."""


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

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_flag(parser, "--sharded", action="store_true")
    add_flag(parser, "--device-map", choices=("auto", "balanced", "cpu"))
    options, flags = parser.parse_known_args(argv)
    if options.sharded:
        os.environ |= SHARDED
    placed = {"device_map": options.device_map} if options.device_map else {}
    loaded, config, rows, eval_rows = train.load(arguments.parse(flags), **placed)
    _, _, prepared = starting_point(loaded.model, loaded.tokenizer, named_sources(rows, eval_rows), config)
    report = prepared.reference
    if report and report.unkept_rows:
        raise BadInput(f"{counted(report.unkept_rows, 'row')} not in the cache, which is all that build is for.")
    if config.process_index == 0:
        print(f"namespace {report.namespace}" if report else f"{config.loss_type} needs no reference.")
    return 0


def _ls(arguments: argparse.Namespace) -> int:
    found = namespaces(arguments.ref_cache_dir)
    if arguments.json:
        listed = [
            {"namespace": info.folder.name, "rows": info.rows, "tokens": info.tokens, "bytes": info.size}
            | {"used": info.used, "damaged": [str(path) for path in info.damaged], **info.manifest}
            for info in found
        ]
        print(json.dumps({"root": arguments.ref_cache_dir, "namespaces": listed}))
        return 0
    print(f"{arguments.ref_cache_dir}: {counted(len(found), 'namespace')}")
    for info in found:
        about = info.manifest.get("about") or {}
        model = about.get("model") or ("a model given in Python" if info.manifest else "its manifest.json is missing")
        used = time.strftime("%Y-%m-%d", time.localtime(info.used))
        counts = f"{counted(info.rows, 'row')}, {counted(info.tokens, 'token')}, {_mib(info.size)}"
        print(f"  {info.folder.name}  {counts}, used {used}: {model}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    found = namespaces(arguments.ref_cache_dir)
    damaged = [str(path) for info in found for path in info.damaged]
    if arguments.json:
        print(json.dumps({"namespaces": len(found), "damaged": damaged}))
    else:
        print(f"whole: {counted(sum(info.rows for info in found), 'row')} in {counted(len(found), 'namespace')}")
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
        print(f"{'Would delete' if arguments.dry_run else 'Deleted'} {counted(len(doomed), 'file')}, {_mib(size)}.")
    return 0


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
