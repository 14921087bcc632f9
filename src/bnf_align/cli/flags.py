"""What the flags of several verbs have in common."""

from __future__ import annotations

import argparse
import json
import re
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnf_align.records import BadInput

if TYPE_CHECKING:
    from bnf_align.cluster import Cluster
    from bnf_align.engines import Engine

RESUME = "Every file is resumable: run the same command again. Keys come from the environment only (--api-key-env)."
KEYS = ("sk_", "hf_", "gsk_")
"""How keys begin that would pass for the name of a variable."""


TWINS = {
    "--model": "--model_name_or_path",
    "--data": "--dataset_name",
    "--split": "--dataset_train_split",
    "--out": "--output_dir",
}
"""One thing, two names: the short ones, and those of TRL, which recipes have. Every verb takes both."""


def add_flag(parser: Any, name: str, **kwargs: Any) -> None:
    """A flag under both of its names, where it has a twin, with dashes and with underscores."""
    plain = "--" + name[2:].replace("-", "_")
    twins = [twin for pair in TWINS.items() if plain in pair for twin in pair]
    spellings = [spelt for one in (plain, *twins) for spelt in (one.replace("_", "-"), one)]
    parser.add_argument(*dict.fromkeys([name, *spellings]), **kwargs)


def count(text: str) -> int:
    """A whole number from 1 on: none of something would write an empty file that passes for a finished one.

    Raises:
        ArgumentTypeError: If it is another number, or none.
    """
    number = int(text) if text.isdecimal() else 0
    if not 1 <= number <= sys.maxsize:
        raise argparse.ArgumentTypeError(f"{text:.40}: a whole number from 1 on is needed, up to {sys.maxsize:,}")
    return number


def true_or_false(text: str) -> bool:
    """The value of a switch that is on by default, spelled as `train` has it.

    Raises:
        ArgumentTypeError: If it is neither.
    """
    if text.lower() not in ("true", "false"):
        raise argparse.ArgumentTypeError(f"{text}: true or false is needed")
    return text.lower() == "true"


def add_url_flags(parser: Any) -> None:
    """Where a served model is."""
    add_flag(parser, "--url", nargs="+", help="OpenAI-compatible URLs that share the load: http://localhost:8000/v1")
    add_flag(parser, "--api-key-env", default="OPENAI_API_KEY", help="the environment variable that holds the key")
    add_flag(parser, "--concurrency", type=count, default=16, help="calls at a time (default %(default)s)")
    add_flag(
        parser,
        "--request",
        nargs="+",
        metavar="FIELD=JSON",
        help="fields of every call, null leaves one out: max_tokens=null max_completion_tokens=4096 temperature=null "
        "response_format=null",
    )


def add_batch_flags(parser: Any) -> None:
    """How a model in process is loaded and run."""
    types = ("auto", "float32", "bfloat16", "float16")
    add_flag(parser, "--dtype", default="auto", choices=types, help="of the weights in process")
    add_flag(parser, "--batch-rows", type=count, default=64, help="in process: texts at a time (default %(default)s)")
    add_flag(parser, "--batch-tokens", type=count, default=2**18, help="in process: tokens at a time, for memory")


def add_model_flags(parser: Any) -> None:
    """Which version of a model on the hub, and whether code that comes with it may run."""
    add_flag(parser, "--model-revision", help="branch, tag or commit of the hub name")
    add_flag(parser, "--trust-remote-code", action="store_true", help="run code that comes with the model")


def where(arguments: argparse.Namespace) -> dict[str, Any]:
    """What those flags say, as `models.load` and `models.load_tokenizer` take it."""
    return {"revision": arguments.model_revision, "trust_remote_code": arguments.trust_remote_code}


def add_row_flags(parser: Any) -> None:
    """How preference rows are read and tokenised, as in training."""
    add_flag(parser, "--dataset-train-split", default="train", help="which split, where a source has several")
    add_flag(
        parser,
        "--map",
        nargs="+",
        action="extend",
        help="columns under other names: prompt=question chosen=good rejected=bad",
    )
    add_flag(parser, "--label-map", nargs="+", action="extend", help="what labels mean: good=up bad=down unsure=drop")
    add_flag(
        parser, "--role-map", nargs="+", action="extend", help="roles under other names: bot=assistant human=user"
    )
    rules = ("drop", "keep", "majority")
    add_flag(parser, "--conflicting_labels", default="drop", choices=rules, help="as in training")
    add_flag(parser, "--max-length", type=int, default=4096, help="as in training (default %(default)s)")
    add_flag(parser, "--merge-system-prompt", action="store_true", help="as in training")
    add_flag(parser, "--score-thoughts", type=true_or_false, default=True, help="as in training (default true)")
    add_flag(parser, "--chat-template-path", help="as in training")
    add_flag(parser, "--eos-token", help="as in training")


def row_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What those flags say, as `preference_rows` and `tokenize_rows` take it."""
    from bnf_align.data.assignments import assignments

    return {
        "column_map": assignments("map", arguments.map),
        "label_map": assignments("label_map", arguments.label_map),
        "role_map": assignments("role_map", arguments.role_map),
        "conflicting_labels": arguments.conflicting_labels,
        "max_length": arguments.max_length,
        "merge_system_prompt": arguments.merge_system_prompt,
        "score_thoughts": arguments.score_thoughts,
    }


def add_cluster_flags(parser: Any) -> None:
    """Who computes."""
    add_flag(parser, "--engine", default="local", choices=("local", "ray"), help="this process or a cluster's workers")
    add_flag(parser, "--ray-address", help="a running cluster: auto, or HOST:PORT (default $RAY_ADDRESS, or none)")
    add_flag(parser, "--workers", type=count, help="copies of the model (default one a GPU, else one a machine)")


def cluster(arguments: argparse.Namespace) -> Cluster | None:
    """The cluster that the flags ask for.

    Raises:
        BadInput: If the model is behind `--url`, or the flags contradict each other.
    """
    if getattr(arguments, "engine", "local") == "local":
        if given := [name for name in ("ray_address", "workers") if getattr(arguments, name, None)]:
            raise BadInput(f"--{given[0]} is for --engine ray, which was not given.")
        return None
    if getattr(arguments, "url", None):
        raise BadInput("--engine ray is for models in process; several --url share the load without it.")
    from bnf_align.cluster import Cluster

    return Cluster(arguments.ray_address, arguments.workers)


def engine(arguments: argparse.Namespace, model: str, lazy: bool = False) -> Engine:
    """The model in process, on a cluster, or behind `--url`; in process in memory from now on, or only on demand."""
    workers = cluster(arguments)
    if arguments.url:
        if any(where(arguments).values()):
            raise BadInput("--model_revision and --trust_remote_code are for a model in process, not behind --url.")
        from bnf_align.endpoint import Endpoint
        from bnf_align.engines.url import UrlEngine

        key = key_variable(arguments)
        served = Endpoint(arguments.url, model, api_key_env=key, concurrency=arguments.concurrency)
        return UrlEngine(served, extra=request_fields(arguments))
    usual = {"api_key_env": "OPENAI_API_KEY", "concurrency": 16, "request": None}
    if given := [name for name, default in usual.items() if getattr(arguments, name) != default]:
        raise BadInput(f"--{given[0]} is for a served model, and no --url was given.")
    from bnf_align.engines.local import LazyEngine, Limits, LocalEngine

    limits = Limits(arguments.batch_rows, arguments.batch_tokens)
    load = partial(LocalEngine.load, model, dtype=arguments.dtype, limits=limits, **where(arguments))
    if workers is None:
        return LazyEngine(model, load) if lazy else load()
    from bnf_align.construct.cluster import ClusterEngine

    return ClusterEngine(workers, model, load)


def request_fields(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `--request` adds to every call, or takes out of it where the value is None.

    Raises:
        BadInput: If an entry is not FIELD=JSON.
    """
    fields = {}
    for entry in arguments.request or []:
        name, _, value = entry.partition("=")
        try:
            fields[name] = json.loads(value)
        except ValueError as error:
            raise BadInput(f"--request takes FIELD=JSON, such as temperature=null, not {entry!r}.") from error
    return fields


def key_variable(arguments: argparse.Namespace) -> str:
    """The environment variable that holds the servers' key.

    Raises:
        BadInput: If it is no name of a variable: a key given there would be written with the command.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*", arguments.api_key_env) or arguments.api_key_env.startswith(KEYS):
        raise BadInput("--api-key-env takes the name of an environment variable, such as OPENAI_API_KEY, not a key.")
    return str(arguments.api_key_env)


def check_out(out: str, *sources: str | None) -> None:
    """Stop where the files of a resumable job would be written over what they are made from.

    Raises:
        BadInput: If so.
    """
    from bnf_align.outputs import check_targets

    files = {"--out": out, "its unfinished rows": f"{out}.partial", "its card": f"{out}.card.json"}
    check_targets(files, filter(None, sources))


def text_of(path: str | None) -> str | None:
    """What a file given with a flag says, byte for byte: line ends stay as they are.

    Raises:
        BadInput: If it cannot be read, or is no UTF-8.
    """
    try:
        return Path(path).read_bytes().decode() if path else None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path} cannot be read as a UTF-8 text: {error}.") from error
