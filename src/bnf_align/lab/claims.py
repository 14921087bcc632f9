"""The paper's claims as experiments: one table, of what each says and which runs put it to the test."""

from __future__ import annotations

import json
from itertools import product
from typing import Any, NamedTuple

RATES = (3e-5, 1e-4, 3e-4, 1e-3)
METHODS = ("bnf", "bnf_asymmetric", "topr", "nll_pll", "sft", "dpo", "kto", "orpo", "simpo")
THUMBS = (
    *("pairing 0 %", "wrong 30 %", "ups 5 %", "ups 95 %", "ups 100 %", "ups 0 %", "pairing 50 %", "ups 50 %"),
    *("wrong 15 %", "pairing 25 %", "ups 25 %", "ups 75 %", "wrong 5 %"),
)


class Run(NamedTuple):
    """What one training run is, but for its seed."""

    method: str
    learning_rate: float
    loss_kwargs: str = "{}"
    """JSON, as `--loss_kwargs` takes it."""
    responses: int = 48
    """In one step."""
    data: str = "pairs"
    """A name of `experiment.DATA`."""
    optimizer: str = "adamw"
    """A name of `experiment.OPTIMIZERS`."""


BASE = Run("base", 0.0)
"""No training: what every other run starts from."""


class Claim(NamedTuple):
    """What is claimed, in short, and the runs in the order in which they matter."""

    says: str
    runs: list[Run]
    against: str = "bnf"
    """Which setting the others are compared with."""


def grid(*methods: str, rates: tuple[float, ...] = RATES, beta: float | None = None, **others: Any) -> list[Run]:
    """Every method at every learning rate."""
    kwargs = "{}" if beta is None else json.dumps({"beta": beta})
    return [Run(method, rate, kwargs, **others) for method, rate in product(methods, rates)]


CLAIMS: dict[str, Claim] = {
    "dead-zone": Claim(
        "Eq. 6 also silences preferred tokens that fell below the reference (not in the paper)",
        grid("bnf", "bnf_asymmetric", "topr"),
    ),
    "collapse": Claim("NLL+PLL makes a model collapse quickly, BNF does not (sections 2.1 and 3)", grid(*METHODS[:7])),
    "rejection": Claim(
        "Plain sft on the ups, rejection sampling, against everything (not in the paper)", grid(*METHODS), "sft"
    ),
    "sensitivity": Claim(
        "BNF has fewer hyper-parameters to tune; DPO and its variants are sensitive to theirs (section 1)",
        [
            *grid("bnf", "dpo", "simpo"),
            *(run for beta in (1.0, 0.03) for run in grid("dpo", beta=beta)),
            *grid("bnf", responses=16),
            *(run for beta in (1.0, 10.0) for run in grid("simpo", beta=beta)),
            *grid("bnf", responses=96),
        ],
    ),
    "near-identical": Claim(
        "On near-identical pairs DPO lets chosen answers fall, whatever its beta (section 2.3)",
        [
            *grid("bnf", rates=RATES[1:3], data="near pairs"),
            *(run for beta in (0.1, 1.0, 0.03) for run in grid("dpo", rates=RATES[1:3], beta=beta, data="near pairs")),
            *grid("rpo", rates=RATES[1:3], data="near pairs"),  # the two remedies of section 2.3
            *grid("dpo", rates=RATES[1:3], data="far pairs"),
        ],
        "bnf, near pairs",
    ),
    "tax": Claim("BNF pays the least alignment tax for what it gains (section 5.1)", grid(*METHODS)),
    "feedback": Claim(
        "BNF needs no pairs, and gains from more of them (section 5.2); what real thumbs look like",
        [run for data in ("pairs", *THUMBS) for run in grid("bnf", rates=(1e-4,), data=data)],
    ),
    "contrastive": Claim(
        "BNF with a pairwise contrastive factor, against both parents (section 7's future work)",
        grid("bnf", "bnf_contrastive", "dpo"),
    ),
    "optimizer": Claim(
        "AdamW makes a step of a small gradient as large as any: SGD, and a larger epsilon (not in the paper)",
        [
            *grid("bnf"),
            *grid("bnf", optimizer="adamw eps 1e-4"),
            *grid("bnf", rates=(0.03, 0.1, 0.3), optimizer="sgd momentum 0.9"),
        ],
    ),
}
