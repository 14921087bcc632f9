"""`bnf-align collect`: a web page that gathers thumbs, in a file that `bnf-align train` reads."""

from __future__ import annotations

import argparse
import getpass
import logging
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bnf_align.cli.flags import add_flag, add_model_flags, count, key_variable, where
from bnf_align.records import BadInput, counted

if TYPE_CHECKING:
    import gradio as gr

    from bnf_align.feedback.answerer import Answerer
    from bnf_align.feedback.store import Store

PASSWORD = "BNF_ALIGN_PASSWORD"
CACHE_STAYS = """\
The reference cache was not touched. It holds log-probabilities under hashes, no texts and no names, and can be
computed again. To clear it: bnf-align reference gc --older_than_days 0"""
STAYS = "Models trained on these rows keep what they learnt; copies of the file elsewhere are yours to delete."
LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
EPILOG = f"""\
Chat with a model in process, with one behind a URL, compare two, or review prepared answers:
  bnf-align collect --model_name_or_path M
  bnf-align collect --url http://localhost:8000/v1 --model_name_or_path NAME
  bnf-align collect --model A B                     two models answer side by side, without their names
  bnf-align collect --review answers.jsonl [--pairs] [--raters 2]
  bnf-align collect --status [--review answers.jsonl [--pairs]]
The password comes from the variable {PASSWORD}, or is asked for; never from the command line."""


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    if arguments.delete_user is not None:
        return _delete(arguments)
    if arguments.status:
        print("\n".join(_status(arguments)))
        return 0
    if not arguments.model_name_or_path and not arguments.review:
        raise BadInput("Whose answers? Give --model_name_or_path (with --url for a served model), or --review FILE.")
    if arguments.model_name_or_path and arguments.review:
        raise BadInput("--review asks about the answers in its file, so no model answers: leave --model or it out.")
    try:
        from bnf_align.feedback.serve import serve
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise BadInput("The page needs Gradio: pip install 'gradio>=6.31,<7'") from error
    password = _password(arguments.password)
    page = _page(arguments)
    url = serve(page, arguments.host, arguments.port, password)
    print(f"The page is at {url}, the thumbs are in {arguments.store}. Stop with Ctrl-C.", flush=True)
    if not password and arguments.host not in LOOPBACK:
        print(f"--host {arguments.host}: anybody who reaches this machine can use the page (--password).", flush=True)
    page.block_thread()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bnf-align collect",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flag(parser, "--store", default="feedback.jsonl", help="the file of thumbs (default %(default)s)")
    add_flag(
        parser,
        "--model_name_or_path",
        nargs="+",
        action="extend",
        help="a folder or hub name, an adapter too; with --url the server's name; two are compared, unnamed",
    )
    add_model_flags(parser)
    add_flag(
        parser,
        "--url",
        nargs="+",
        help="OpenAI-compatible endpoints: http://localhost:8000/v1; of two models one each, or one for both",
    )
    add_flag(parser, "--api_key_env", default="OPENAI_API_KEY", help="the environment variable that holds its key")
    add_flag(parser, "--dtype", default="auto", help="of the weights in process: auto, float32, bfloat16")
    add_flag(parser, "--system_prompt", default="", help="what every conversation begins with")
    add_flag(parser, "--temperature", type=float, default=0.8, help="0 is greedy (default %(default)s)")
    add_flag(parser, "--max_new_tokens", type=count, default=1024, help="the longest answer (default %(default)s)")
    add_flag(parser, "--review", metavar="FILE", help="judge the answers in FILE, blind, instead of chatting")
    add_flag(parser, "--pairs", action="store_true", help="with --review: ask for the better of two answers")
    add_flag(parser, "--raters", type=count, help="with --review: how many people judge a task (default: everybody)")
    add_flag(
        parser,
        "--status",
        action="store_true",
        help="say who judged what, whether they agree and which model won how often, and stop",
    )
    add_flag(parser, "--seed", type=int, default=0, help="with two models: of the order of their answers (default 0)")
    add_flag(parser, "--host", default="127.0.0.1", help="where to listen (default %(default)s: this machine alone)")
    add_flag(parser, "--port", type=int, help="default: the first free one from 7860")
    add_flag(
        parser, "--password", action="store_true", help=f"ask visitors for one; from {PASSWORD} where that is set"
    )
    add_flag(parser, "--delete_user", metavar="NAME", help="delete a person's rows and stop")
    add_flag(parser, "--ref_cache_dir", help="with --delete_user: clear this reference cache too")
    return parser


def _password(asked: bool) -> str | None:
    """The password that visitors have to give, if any: a variable that is set means it."""
    password = os.environ.get(PASSWORD)
    if password or not asked:
        return password or None
    if not sys.stdin.isatty():
        raise BadInput(f"--password: there is no terminal to ask at. Put the password into the variable {PASSWORD}.")
    password = getpass.getpass("Password for visitors: ")
    if not password:
        raise BadInput("--password: an empty password lets everybody in.")
    return password


def _page(arguments: argparse.Namespace) -> gr.Blocks:
    from bnf_align.feedback.app import chat_page, review_page
    from bnf_align.feedback.review import read_tasks
    from bnf_align.feedback.store import Store

    if arguments.review:
        tasks = read_tasks(arguments.review, arguments.pairs)
        return review_page(tasks, Store(arguments.store), arguments.raters)
    return chat_page(_answerers(arguments), Store(arguments.store), arguments.system_prompt, arguments.seed)


def _answerers(arguments: argparse.Namespace) -> list[Answerer]:
    from bnf_align.engines import Sampling
    from bnf_align.feedback.answerer import LocalAnswerer, UrlAnswerer

    models, urls = arguments.model_name_or_path, arguments.url
    if len(models) > 2:
        raise BadInput(f"--model names {len(models)} models, and a page compares two: {', '.join(models)}.")
    if len(set(models)) < len(models):
        raise BadInput(f"--model {' '.join(models)}: two models of one name could not be told apart in the rows.")
    sampling = Sampling(temperature=arguments.temperature, max_new_tokens=arguments.max_new_tokens)
    if urls:
        from bnf_align.endpoint import Endpoint

        if len(models) == 2 and len(urls) > 2:
            raise BadInput(f"--url names {len(urls)} servers for two models: give one for each, or one for both.")
        key = key_variable(arguments)
        # One model has all of them, which share the load; two have one each, or one for both.
        own = [urls] if len(models) == 1 else [[urls[0]], [urls[-1]]]
        # A person waits: rather ask for patience soon than try for minutes.
        return [
            UrlAnswerer(Endpoint(some, model, api_key_env=key, timeout=120.0, retries=1), sampling)
            for some, model in zip(own, models, strict=True)
        ]
    from bnf_align.engines.local import LocalEngine

    engines = [LocalEngine.load(model, dtype=arguments.dtype, **where(arguments)) for model in models]
    return [LocalAnswerer(engine, sampling) for engine in engines]


def _status(arguments: argparse.Namespace) -> list[str]:
    """Progress for whoever runs the page: people, tasks, agreement."""
    from bnf_align.data.doctor import examine
    from bnf_align.feedback.review import read_tasks, times_judged
    from bnf_align.feedback.standings import standings

    rows = _store(arguments).rows()
    lines = [f"{arguments.store}: {counted(len(rows), 'row')}"]
    for name, number in Counter(row.get("user") for row in rows).most_common():
        ups, downs = (
            sum(row.get("label") is label and row.get("user") == name for row in rows) for label in (True, False)
        )
        pairs = number - ups - downs
        parts = [counted(some, one) for some, one in ((pairs, "pair"), (ups, "up"), (downs, "down")) if some]
        lines.append(f"  {name or 'without a name'}: {', '.join(parts)}")
    if arguments.review:
        judged, tasks = times_judged(rows), read_tasks(arguments.review, arguments.pairs)
        often = [min(judged[task.id], 2) for task in tasks]
        lines.append(
            f"{arguments.review}: {counted(len(tasks), 'task')}, {often.count(0):,} judged by nobody, "
            f"{often.count(1):,} by one person, {often.count(2):,} by two or more"
        )
    lines += map(str, standings(rows))
    if rows:
        found = [one.text for one in examine(arguments.store).findings if one.name == "agreement"]
        lines += found or ["One person judged everything, so nothing is known of agreement."]
    return lines


def _store(arguments: argparse.Namespace) -> Store:
    from bnf_align.feedback.store import Store

    if not Path(arguments.store).expanduser().is_file():
        raise BadInput(f"There is no file {arguments.store}. Name the file of thumbs with --store.")
    return Store(arguments.store)


def _delete(arguments: argparse.Namespace) -> int:
    store = _store(arguments)
    name, rows = arguments.delete_user, store.rows()
    theirs = sum(row.get("user") == name for row in rows)
    if not theirs:
        known = ", ".join(sorted({str(row["user"]) for row in rows if row.get("user")})) or "none"
        raise BadInput(f"{arguments.store} has no rows of {name!r}. Names in it: {known}.")
    deleted = store.delete_user(name)
    print(f"Deleted {counted(deleted, 'row')} of {name!r} from {arguments.store}; {len(rows) - deleted:,} stay.")
    if arguments.ref_cache_dir:
        from bnf_align.reference.cache import collect_garbage

        files, _ = collect_garbage(arguments.ref_cache_dir, older_than_days=0)
        print(f"Cleared the reference cache in {arguments.ref_cache_dir}: {counted(len(files), 'file')}.")
    else:
        print(CACHE_STAYS)
    print(STAYS)
    return 0
