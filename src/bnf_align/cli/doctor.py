"""`bnf-align doctor DATA`: what is this file, what is wrong with it, what would training do with it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bnf_align.cli.flags import add_flag, add_model_flags, add_row_flags, row_options, where
from bnf_align.records import BadInput

if TYPE_CHECKING:
    from bnf_align.data.doctor import DoctorResult

EPILOG = (
    "Exit status: 0 clean, 1 warnings, or rows left out or cut, 2 unusable. Nothing is changed in place: --fix writes "
    "a new file."
)
UNUSABLE = 2
TEST_NAMES = ("--test-dataset-name", "--test_dataset_name", "--eval-dataset-name", "--eval_dataset_name")
"""The second pair as in training."""
STYLES = {
    "error": "red",
    "head": "bold",
    "left out": "yellow",
    "warning": "yellow",
    "example": "dim",
    "clean": "bold green",
    "usable": "bold yellow",
    "unusable": "bold red",
}


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    arguments = _parser().parse_args(argv)
    try:
        result = _examined(arguments)
    except BadInput as error:  # of flags; what is wrong with the data is in the result
        if not arguments.json:
            raise
        print(json.dumps({"status": UNUSABLE, "error": str(error)}))
        return UNUSABLE
    _print(result, as_json=arguments.json)
    return result.status


def _examined(arguments: argparse.Namespace) -> DoctorResult:
    if arguments.redact and not arguments.fix:
        raise BadInput("--redact masks what --fix writes: name a file with --fix OUT.")
    if arguments.ches and not arguments.model_name_or_path:
        raise BadInput("--ches compares hidden states: name the model with --model_name_or_path.")
    from bnf_align.data.doctor import examine

    page, name, tokenizer, model = _page_path(arguments), arguments.model_name_or_path, None, None
    if name:
        from bnf_align.models import configured_tokenizer, for_inference, load

        template, end = arguments.chat_template_path, arguments.eos_token
        tokenizer = configured_tokenizer(name, template, end, **where(arguments))
        model = load(name, **for_inference(), **where(arguments)).model if arguments.ches else None
    result = examine(
        arguments.data,
        split=arguments.dataset_train_split,
        tokenizer=tokenizer,
        **row_options(arguments),
        test=arguments.test_dataset_name,
        test_split=arguments.dataset_test_split,
        fix=arguments.fix,
        redact=arguments.redact,
        vocab_size=_vocab_size(arguments),
        near_duplicates=arguments.near_duplicates,
        model=model,
    )
    if page is not None:
        from bnf_align.data.doctor.result import page as page_of
        from bnf_align.outputs import write_text

        write_text(page, page_of(result))
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bnf-align doctor", description=__doc__, epilog=EPILOG)
    parser.add_argument("data", help="a .json, .jsonl, .csv or .parquet file, a folder, an export, or a hub name")
    add_flag(parser, "--model-name-or-path", help="the model to train: its tokenizer gives templates and lengths")
    add_model_flags(parser)
    add_row_flags(parser)
    parser.add_argument(*TEST_NAMES, metavar="DATA", help="rows whose prompts must not be among these")
    add_flag(parser, "--dataset-test-split", help="which split of them, or of DATA itself")
    add_flag(
        parser,
        "--near-duplicates",
        action="store_true",
        help="look for near-duplicate prompts in more than 100,000 rows too (as long again as all the rest)",
    )
    add_flag(
        parser,
        "--ches",
        action="store_true",
        help="load the model and rank pairs by how alike it finds their answers: the highest push the chosen one down",
    )
    add_flag(parser, "--fix", metavar="OUT.jsonl", help="write clean rows to OUT.jsonl, others to OUT.left_out.jsonl")
    add_flag(parser, "--redact", action="store_true", help="with --fix: mask likely personal data, keys and tokens")
    add_flag(parser, "--html", metavar="FILE", help="write the findings as one page")
    add_flag(parser, "--json", action="store_true", help="one JSON object instead of text")
    return parser


def _vocab_size(arguments: argparse.Namespace) -> int | None:
    """Rows of the model's input embedding; None where there is no model's config beside its tokenizer."""
    if not arguments.model_name_or_path:
        return None
    from bnf_align.models import find, load_config

    source = find(arguments.model_name_or_path, revision=arguments.model_revision)
    try:
        config = load_config(source.base, source.revision, arguments.trust_remote_code)
        return int(config.get_text_config().vocab_size)
    except (BadInput, AttributeError):
        return None


def _page_path(arguments: argparse.Namespace) -> Path | None:
    if not arguments.html:
        return None
    from bnf_align.outputs import check_targets

    page = Path(arguments.html).expanduser()
    if page.suffix.lower() not in (".html", ".htm"):
        raise BadInput(f"--html {page}: its name must end in .html or .htm.")
    targets = {"--html": page} | ({"--fix": arguments.fix} if arguments.fix else {})
    check_targets(targets, filter(None, (arguments.data, arguments.test_dataset_name)))
    return page


def _print(result: DoctorResult, *, as_json: bool) -> None:
    with suppress(AttributeError):  # what a terminal cannot show must not end in a traceback
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if as_json:
        print(json.dumps(result.as_dict()))
        return
    from rich.console import Console
    from rich.text import Text

    # Colours on a terminal alone, and none under NO_COLOR: rich looks at both.
    console = Console(highlight=False, soft_wrap=True)
    for kind, line in result.styled_lines():
        console.print(Text(line, STYLES.get(kind, "")))
