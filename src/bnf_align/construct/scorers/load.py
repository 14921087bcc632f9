"""The scorer that a command line asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnf_align.records import BadInput

if TYPE_CHECKING:
    from bnf_align.construct.scorers.scorer import Scorer

JUDGE_CACHE = "~/.cache/bnf-align/judge"

MODELS = ("reward_model", "armorm", "pairrm")
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
    return SCORERS[arguments.scorer](arguments)


def _verifier(arguments: Any) -> Scorer:
    from bnf_align.construct.scorers.verifier import Verifier

    return Verifier(**_given(rule=arguments.rule, column=arguments.answer_column))


def _ifeval(arguments: Any) -> Scorer:
    from bnf_align.construct.scorers.ifeval import IFEvalScorer

    return IFEvalScorer(**_given(rule=arguments.rule))


def _reward_model(arguments: Any) -> Scorer:
    from bnf_align.construct.scorers.reward_model import RewardModel

    return RewardModel.load(arguments.model, trust_remote_code=arguments.trust_remote_code, **_how_to_load(arguments))


def _armorm(arguments: Any) -> Scorer:
    from bnf_align.construct.scorers.armorm import ArmoRM

    return ArmoRM.load(arguments.model, **_how_to_load(arguments))


def _pairrm(arguments: Any) -> Scorer:
    from bnf_align.construct.scorers.pairrm import PairRM

    return PairRM.load(arguments.model, **_how_to_load(arguments), **_given(rank_by=arguments.rank_by))


def _judge(arguments: Any) -> Scorer:
    from bnf_align.construct.scorers.judge import JudgeScorer
    from bnf_align.endpoint import Endpoint
    from bnf_align.judge import Judge

    if not arguments.url:
        raise BadInput("--scorer judge asks a served model: say where it is with --url.")
    endpoint = Endpoint(
        arguments.url, arguments.model, api_key_env=arguments.api_key_env, concurrency=arguments.concurrency
    )
    cache = Path(arguments.cache or JUDGE_CACHE).expanduser()
    prices = tuple(arguments.prices) if arguments.prices else None
    judge = Judge(endpoint, cache, prices, arguments.budget, arguments.request)
    return JudgeScorer(judge, arguments.judge_template, pairs=arguments.pairs)


def _how_to_load(arguments: Any) -> dict[str, Any]:
    from bnf_align.construct.scorers.batches import Limits

    limits = Limits(arguments.batch_rows, arguments.batch_tokens)
    given = _given(revision=arguments.revision, max_length=arguments.max_length)
    return {"dtype": arguments.dtype, "limits": limits, **given}


def _given(**flags: Any) -> dict[str, Any]:
    """Those that stand on the command line; the others have their defaults where they are used."""
    return {name: value for name, value in flags.items() if value is not None}


SCORERS: dict[str, Callable[[Any], Scorer]] = {
    "verifier": _verifier,
    "ifeval": _ifeval,
    "reward_model": _reward_model,
    "armorm": _armorm,
    "pairrm": _pairrm,
    "judge": _judge,
}
