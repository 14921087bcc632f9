"""bnf-align: align a language model from thumbs up and thumbs down, at the cost of fine-tuning."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bnf_align.config import BNFConfig, PreferenceConfig
    from bnf_align.data.tokenize import scored_text
    from bnf_align.losses import (
        LOSSES,
        CompletionLogps,
        LossSpec,
        apo_zero,
        bco,
        bnf_asymmetric,
        bnf_contrastive,
        bnf_loss,
        bnf_weights,
        dpo,
        dpo_norm,
        eq4_value,
        ipo,
        kto,
        nll_pll,
        npo,
        orpo,
        rdpo,
        rpo,
        sft,
        simpo,
        slic_hf,
        topr,
        w_reinforce,
    )
    from bnf_align.records import BadInput
    from bnf_align.training.trainer import BNFTrainer, PreferenceTrainer

_HOMES = {
    "BadInput": "records",
    "BNFConfig": "config",
    "BNFTrainer": "training.trainer",
    "PreferenceConfig": "config",
    "PreferenceTrainer": "training.trainer",
    "scored_text": "data.tokenize",
}

__all__ = [
    "LOSSES",
    "BNFConfig",
    "BNFTrainer",
    "BadInput",
    "CompletionLogps",
    "LossSpec",
    "PreferenceConfig",
    "PreferenceTrainer",
    "apo_zero",
    "bco",
    "bnf_asymmetric",
    "bnf_contrastive",
    "bnf_loss",
    "bnf_weights",
    "dpo",
    "dpo_norm",
    "eq4_value",
    "ipo",
    "kto",
    "nll_pll",
    "npo",
    "orpo",
    "rdpo",
    "rpo",
    "scored_text",
    "sft",
    "simpo",
    "slic_hf",
    "topr",
    "w_reinforce",
]


def __getattr__(name: str) -> Any:
    # Importing the package must stay instant, because every `bnf-align --help` does it; torch comes with first use.
    if name not in __all__:
        raise AttributeError(f"module 'bnf_align' has no attribute {name!r}")
    return getattr(import_module(f"bnf_align.{_HOMES.get(name, 'losses')}"), name)
