"""`bnf-align analyze`: how far methods moved a model: Figures 1 to 4 of the paper for your own."""

from __future__ import annotations

import argparse
import gc
import json
import re
import shlex
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnf_align.cli.flags import add_flag, add_row_flags, count, row_options
from bnf_align.records import BadInput

if TYPE_CHECKING:
    from bnf_align.analysis import Method

DESCRIPTION = """\
Log-likelihood and logit shifts of models against the one that they were trained from, token by token: rows as
Parquet, Figures 2 to 4 and BNF weights as PNG and SVG, and summary.json. Figure 1 needs no model: without --model it
is drawn alone."""

EPILOG = "Resumable: run the same command again. See docs/analysis.md."


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    arguments = _parser().parse_args(argv)
    command = shlex.join(["bnf-align", "analyze", *argv])
    given = [bool(arguments.model), bool(arguments.reference), bool(arguments.data)]
    if any(given) and not all(given):
        raise BadInput("A shift needs all of --model, --reference and --data; without them only Figure 1 is drawn.")
    if all(given):
        result = _analyze(arguments, command)
    else:
        from bnf_align.analysis import figure_1, save

        result = {"command": command, "figures": [str(path) for path in save(figure_1(), arguments.out, "figure1")]}
    print(json.dumps(result, default=str) if arguments.json else "\n".join(_lines(result)))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bnf-align analyze", description=DESCRIPTION, epilog=EPILOG)
    add_flag(parser, "--model", nargs="+", metavar="NAME=PATH", help="the methods: folders or hub names; adapters too")
    add_flag(parser, "--reference", metavar="PATH", help="the model that all of them were trained from")
    add_flag(
        parser,
        "--data",
        nargs="+",
        metavar="[NAME=]FILE",
        help="responses: preference rows, rows of prompt and completion, or what `bnf-align eval run --task "
        "wild_bench` wrote; one file for all methods, or NAME=FILE for each, as in the paper",
    )
    add_flag(parser, "--out", required=True, metavar="DIR", help="the folder of rows, figures and summary.json")
    add_flag(parser, "--limit", type=count, help="the first so many rows of a file")
    add_flag(parser, "--bins-of", metavar="NAME", help="whose tenths are Figure 4's bins (default: DPO, or first)")
    add_flag(parser, "--trust-remote-code", action="store_true", help="run code that comes with the models")
    add_flag(parser, "--dtype", default="auto", help="of the weights: auto (default), float32, bfloat16")
    add_flag(parser, "--head", default="fused", choices=("fused", "logits"), help="as in training")
    add_flag(parser, "--batch-tokens", type=count, default=8192, help="padded tokens at a time (default %(default)s)")
    add_row_flags(parser)
    add_flag(parser, "--json", action="store_true", help="print summary.json")
    return parser


def _analyze(arguments: argparse.Namespace, command: str) -> dict[str, Any]:
    from bnf_align.analysis import analyze
    from bnf_align.analysis.summary import bins_method

    models = _named_models(arguments.model)
    bins_method(list(models), arguments.bins_of)  # what is wrong shows before a model is loaded
    data = _data(arguments.data, list(models))
    switch = _Switch(arguments)
    return analyze(
        _methods(arguments, models, data, switch),
        partial(switch, arguments.reference),
        arguments.out,
        bins_of=arguments.bins_of,
        head=arguments.head,
        max_tokens=arguments.batch_tokens,
        about={"reference": arguments.reference, "models": models, "data": data, "command": command},
    )


def _named_models(words: Sequence[str]) -> dict[str, str]:
    """Name of a method -> its model; without NAME= the last part of the path is the name."""
    models: dict[str, str] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or Path(word).exists():
            name, path = Path(word).name, word
        if not path or not re.fullmatch(r"\w[\w.+ -]*", name):
            raise BadInput(f"--model {word}: write NAME=PATH, with a NAME that can be the name of a file.")
        if name in models:
            raise BadInput(f"--model has two methods called {name!r}: give each its own name, NAME=PATH.")
        models[name] = path
    return models


def _data(words: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """Name of a method -> the file of its responses."""
    own = {name: file for name, equals, file in (word.partition("=") for word in words) if equals and name in names}
    if len(words) == 1 and not own:
        return dict.fromkeys(names, words[0])
    missing = [name for name in names if not own.get(name)]
    if missing or len(own) != len(words):
        raise BadInput(
            f"--data takes one file for all methods, or NAME=FILE for each of {', '.join(names)}; "
            + (f"missing: {', '.join(missing)}." if missing else "here are more files than methods.")
        )
    return {name: own[name] for name in names}


def _methods(
    arguments: argparse.Namespace, models: dict[str, str], data: dict[str, str], switch: _Switch
) -> list[Method]:
    """The methods with their responses; what would fail fails here, before a model is loaded."""
    from bnf_align.analysis import Method, read_answers
    from bnf_align.analysis.answers import check_tokens
    from bnf_align.data.read import iter_rows
    from bnf_align.models import configured_tokenizer

    told, trust = (arguments.chat_template_path, arguments.eos_token), arguments.trust_remote_code
    reference = configured_tokenizer(arguments.reference, *told, trust_remote_code=trust)
    methods = []
    for name, path in models.items():
        tokenizer = configured_tokenizer(path, *told, trust_remote_code=trust)
        rows = islice(iter_rows(data[name], arguments.dataset_train_split), arguments.limit)
        answers = read_answers(rows, tokenizer, source=data[name], **row_options(arguments))
        check_tokens(answers, tokenizer, reference, name)
        methods.append(Method(name, partial(switch, path), answers))
    return methods


class _Switch:
    """Loads a model, one at a time; adapters on the model that is loaded are switched, and it is not loaded again."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.name: tuple[str, str | None] = ("", None)
        """Base and revision of what is loaded."""
        self.model: Any = None

    def __call__(self, path: str) -> Any:
        from peft import PeftModel

        from bnf_align.models import find, for_inference, load

        source = find(path)
        name = (source.base, source.revision)
        if name != self.name:
            self.model = None  # before the next one comes
            gc.collect()  # an attached head ties a model to itself
        base = self.model.unload() if isinstance(self.model, PeftModel) else self.model
        options = {"trust_remote_code": self.arguments.trust_remote_code, **for_inference(self.arguments.dtype)}
        self.name, self.model = name, load(path, base=base, **options).model
        return self.model


def _lines(result: dict[str, Any]) -> list[str]:
    lines = []
    if "methods" in result:
        from bnf_align.analysis import MEASURES

        width = max(map(len, MEASURES.values()))
        names = list(result["methods"])
        lines.append(f"{'median over responses':<{width}}" + "".join(f"  {name:>12}" for name in names))
        for measure, title in MEASURES.items():
            found = [result["methods"][name][measure].get("p50") for name in names]
            cells = "".join(f"  {'-' if value is None else format(value, '.4g'):>12}" for value in found)
            lines.append(f"{title:<{width}}{cells}")
        lines.append(f"{'responses':<{width}}" + "".join(f"  {result['methods'][n]['responses']:>12,}" for n in names))
    return [*lines, *(str(path) for path in result["figures"])]
