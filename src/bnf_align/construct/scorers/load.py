"""The scorer that a command line asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnf_align.records import BadInput

if TYPE_CHECKING:
    from bnf_align.construct.scorers.scorer import Scorer

JUDGE_CACHE = "~/.cache/bnf-align/judge"


def load_scorer(arguments: Any) -> Scorer:
    """The scorer named in `arguments.scorer`.

    Args:
        arguments: The parsed flags of `bnf-align score`.

    Raises:
        BadInput: If a flag that the scorer needs is missing, or it cannot be loaded.
    """
    if arguments.scorer != "verifier" and not arguments.model:
        raise BadInput(f"--scorer {arguments.scorer} needs --model: a folder, a hub name or a served model's name.")
    return SCORERS[arguments.scorer](arguments)


def _verifier(arguments: Any) -> Scorer:
    from bnf_align.construct.scorers.verifier import Verifier

    return Verifier(arguments.rule, arguments.answer_column)


def _reward_model(arguments: Any) -> Scorer:
    from bnf_align.construct.scorers.reward_model import RewardModel

    return RewardModel.load(arguments.model, trust_remote_code=arguments.trust_remote_code, **_how_to_load(arguments))


def _armorm(arguments: Any) -> Scorer:
    from bnf_align.construct.scorers.armorm import ArmoRM

    return ArmoRM.load(arguments.model, **_how_to_load(arguments))


def _pairrm(arguments: Any) -> Scorer:
    from bnf_align.construct.scorers.pairrm import PairRM

    return PairRM.load(arguments.model, **_how_to_load(arguments))


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
    judge = Judge(endpoint, cache, tuple(arguments.prices) if arguments.prices else None, arguments.budget)
    template = Path(arguments.judge_template).read_text(encoding="utf-8") if arguments.judge_template else None
    return JudgeScorer(judge, template, pairs=arguments.pairs)


def _how_to_load(arguments: Any) -> dict[str, Any]:
    from bnf_align.construct.scorers.batches import Limits

    given = {"max_length": arguments.max_length} if arguments.max_length else {}
    limits = Limits(arguments.batch_rows, arguments.batch_tokens)
    return {"dtype": arguments.dtype, "revision": arguments.revision, "limits": limits, **given}


SCORERS: dict[str, Callable[[Any], Scorer]] = {
    "verifier": _verifier,
    "reward_model": _reward_model,
    "armorm": _armorm,
    "pairrm": _pairrm,
    "judge": _judge,
}
