"""A model, its tokenizer and its adapter: loaded in one place, and made ready for training."""

from bnf_align.models.model import (
    add_adapter,
    beyond_text,
    disable_dropout,
    evaluation_mode,
    of_text,
    prepare_quantised,
    refuse_unsupported,
    teach_end_of_turn,
    train_text_alone,
)
from bnf_align.models.pretrained import (
    Loaded,
    Source,
    auto_class,
    configured_tokenizer,
    find,
    for_inference,
    load,
    load_config,
    load_tokenizer,
    save_processor,
)

__all__ = [
    "Loaded",
    "Source",
    "add_adapter",
    "auto_class",
    "beyond_text",
    "configured_tokenizer",
    "disable_dropout",
    "evaluation_mode",
    "find",
    "for_inference",
    "load",
    "load_config",
    "load_tokenizer",
    "of_text",
    "prepare_quantised",
    "refuse_unsupported",
    "save_processor",
    "teach_end_of_turn",
    "train_text_alone",
]
