"""A model, its tokenizer and its adapter: loaded in one place, and made ready for training."""

from bnf_align.models.model import (
    add_adapter,
    disable_dropout,
    evaluation_mode,
    prepare_quantised,
    refuse_unsupported,
    teach_end_of_turn,
)
from bnf_align.models.pretrained import (
    Loaded,
    Source,
    configured_tokenizer,
    find,
    for_inference,
    load,
    load_config,
    load_tokenizer,
)

__all__ = [
    "Loaded",
    "Source",
    "add_adapter",
    "configured_tokenizer",
    "disable_dropout",
    "evaluation_mode",
    "find",
    "for_inference",
    "load",
    "load_config",
    "load_tokenizer",
    "prepare_quantised",
    "refuse_unsupported",
    "teach_end_of_turn",
]
