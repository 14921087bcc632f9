"""From hidden states and the LM head to log-probabilities or to a loss with its gradient, without the logits."""

from bnf_align.head.attach import attach, can_be_tried, without_flash_kernels
from bnf_align.head.call import HeadCall, ask, inputs_of
from bnf_align.head.chunked_lm_head import Head, Scores, fused_logps, fused_loss

__all__ = [
    "Head",
    "HeadCall",
    "Scores",
    "ask",
    "attach",
    "can_be_tried",
    "fused_logps",
    "fused_loss",
    "inputs_of",
    "without_flash_kernels",
]
