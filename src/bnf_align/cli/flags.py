"""What the flags of several verbs have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from argparse import Namespace

    from bnf_align.endpoint import Endpoint
    from bnf_align.engines import Engine

RESUME = "Every file is resumable: run the same command again. Keys come from the environment only (--api-key-env)."


def add_flag(parser: Any, name: str, **kwargs: Any) -> None:
    """A flag in both spellings, with dashes and with underscores."""
    parser.add_argument(*dict.fromkeys((name, "--" + name[2:].replace("-", "_"))), **kwargs)


def add_url_flags(parser: Any) -> None:
    """Where a served model is."""
    add_flag(
        parser, "--url", nargs="+", help="OpenAI-compatible endpoints that share the load: http://localhost:8000/v1"
    )
    add_flag(parser, "--api-key-env", default="OPENAI_API_KEY", help="the environment variable that holds the key")
    add_flag(parser, "--concurrency", type=int, default=16, help="calls at a time (default %(default)s)")


def add_batch_flags(parser: Any) -> None:
    """How a model in process is loaded and run."""
    add_flag(parser, "--dtype", default="auto", help="of the weights in process: auto, float32, bfloat16")
    add_flag(parser, "--batch-rows", type=int, default=64, help="in process: texts at a time (default %(default)s)")
    add_flag(parser, "--batch-tokens", type=int, default=2**18, help="in process: tokens at a time, for memory")


def engine(arguments: Namespace, model: str) -> Engine:
    """The model in process, or behind `--url`."""
    if arguments.url:
        from bnf_align.engines.url import UrlEngine

        return UrlEngine(endpoint(arguments, model))
    from bnf_align.engines.local import LocalEngine

    batches = {"batch_rows": arguments.batch_rows, "batch_tokens": arguments.batch_tokens}
    return LocalEngine.load(model, dtype=arguments.dtype, **batches)


def endpoint(arguments: Namespace, model: str) -> Endpoint:
    """The URLs under which `model` is served."""
    from bnf_align.endpoint import Endpoint

    return Endpoint(arguments.url, model, api_key_env=arguments.api_key_env, concurrency=arguments.concurrency)


def text_of(path: str | None) -> str | None:
    """What a file given with a flag says."""
    return Path(path).read_text(encoding="utf-8") if path else None
