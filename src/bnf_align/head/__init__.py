"""From hidden states and the LM head to log-probabilities or to a loss with its gradient, without the logits."""

from bnf_align.head.attach import attach
from bnf_align.head.call import HeadCall, ask
from bnf_align.head.fused import Scores, fused_logps, fused_loss

__all__ = ["HeadCall", "Scores", "ask", "attach", "fused_logps", "fused_loss"]
