"""The scorer that a command line asks for."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bnf_align.records import BadInput

if TYPE_CHECKING:
    from bnf_align.construct.scorers.scorer import Scorer
    from bnf_align.judge import Judge

JUDGE_CACHE = "~/.cache/bnf-align/judge"

MODELS = ("reward_model", "armorm", "pairrm")
CLASSES = {
    "verifier": ("verifier", "Verifier"),
    "ifeval": ("verifier", "IFEvalScorer"),
    "reward_model": ("reward_model", "RewardModel"),
    "armorm": ("armorm", "ArmoRM"),
    "pairrm": ("pairrm", "PairRM"),
}
"""Scorer -> its module, which may be heavy, and its class."""
FLAGS = {
    "model": (*MODELS, "judge"),
    "revision": MODELS,
    "max_length": MODELS,
    "trust_remote_code": ("reward_model",),
    "rank_by": ("pairrm",),
    "rule": ("verifier", "ifeval"),
    "answer_column": ("verifier",),
    **dict.fromkeys(("url", "request", "judge_template", "pairs", "cache", "prices", "budget"), ("judge",)),
}
"""Whose each flag is; given to another scorer it would do nothing, unsaid."""


def load_scorer(arguments: Any) -> Scorer:
    """The scorer named in `arguments.scorer`.

    Args:
        arguments: The parsed flags of `bnf-align score`, `judge_template` as its text.

    Raises:
        BadInput: If a flag that the scorer needs is missing, one is of another scorer, or it cannot be loaded.
    """
    for flag, scorers in FLAGS.items():
        if getattr(arguments, flag) not in (None, False) and arguments.scorer not in scorers:
            name = flag.replace("_", "-")
            raise BadInput(f"--{name} is for --scorer {', '.join(scorers)}; {arguments.scorer} has no use for it.")
    if arguments.scorer in FLAGS["model"] and not arguments.model:
        raise BadInput(f"--scorer {arguments.scorer} needs --model: a folder, a hub name or a served model's name.")
    if arguments.scorer == "judge":
        from bnf_align.construct.scorers.judge import JudgeScorer

        if not arguments.url:
            raise BadInput("--scorer judge asks a served model: say where it is with --url.")
        judge = judge_of(arguments, arguments.model)
        return JudgeScorer(judge, arguments.judge_template, pairs=arguments.pairs)
    module, name = CLASSES[arguments.scorer]
    scorer = getattr(import_module(f"bnf_align.construct.scorers.{module}"), name)
    if arguments.scorer not in MODELS:
        return scorer(**_given(rule=arguments.rule, column=arguments.answer_column))
    from bnf_align.engines.local import Limits

    limits = Limits(arguments.batch_rows, arguments.batch_tokens)
    given = _given(revision=arguments.revision, max_length=arguments.max_length, rank_by=arguments.rank_by)
    trusted = bool(arguments.trust_remote_code)
    return scorer.load(arguments.model, dtype=arguments.dtype, limits=limits, trust_remote_code=trusted, **given)


def judge_of(arguments: Any, model: str) -> Judge:
    """The judge that the flags describe: where it is, what is cached, what it may cost."""
    from bnf_align.endpoint import Endpoint
    from bnf_align.judge import Judge

    endpoint = Endpoint(arguments.url, model, arguments.api_key_env, arguments.concurrency)
    prices = tuple(arguments.prices) if arguments.prices else None
    return Judge(endpoint, arguments.cache or JUDGE_CACHE, prices, arguments.budget, arguments.request)


def _given(**flags: Any) -> dict[str, Any]:
    """Those that stand on the command line; the others have their defaults where they are used."""
    return {name: value for name, value in flags.items() if value is not None}
