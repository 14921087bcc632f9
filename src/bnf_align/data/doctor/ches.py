"""Pairs whose answers look alike to the model: they push the likelihood of the chosen one down.

CHES, the centred hidden embedding similarity of a pair (Razin et al., 2024, arXiv 2410.08847): with h+ the sum of the
last hidden states that predict the chosen answer's tokens and h- that of the rejected one's,

    CHES = <h+, h-> - ||h+||^2

and the same of their means where lengths are not to count (the length-normalised score). The higher it is, the more
DPO and its kin lower the likelihood of the chosen answer. No value is known from which a pair is harmful: the paper
ranks the pairs of a data set and leaves out the highest.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bnf_align.data.tokenize import Encoded
from bnf_align.records import NOTE, BadInput, Finding, rows_text

HIGHEST = 0.05
"""Share of the pairs that are listed."""
BINS = 20


class Ches:
    """Scores pairs as they come, a forward pass at a time: 24 bytes of each are remembered.

    Args:
        model: A causal language model, or an adapter around one, in evaluation mode.
        max_length: Tokens of prompt and answer that are kept, as in training.
        max_tokens: Padded tokens of one forward pass.
    """

    def __init__(self, model: Any, max_length: int | None = None, max_tokens: int = 8192) -> None:
        self._lm = model.get_base_model() if hasattr(model, "peft_config") else model
        self._max_length, self._max_tokens = max_length, max_tokens
        self._waiting: list[tuple[int, tuple[Encoded, Encoded]]] = []
        self._rows, self._scores, self._normalised = array("q"), array("d"), array("d")

    def add(self, row: int, chosen: Encoded, rejected: Encoded) -> None:
        """Score a pair, with those that come after it."""
        self._waiting.append((row, (chosen, rejected)))
        longest = max(len(answer.ids[: self._max_length]) for _, pair in self._waiting for answer in pair)
        if 2 * longest * (len(self._waiting) + 1) > self._max_tokens:
            self._score()

    def _score(self) -> None:
        answers = [answer for _, pair in self._waiting for answer in pair]
        means, tokens = self._means(answers)
        chosen, rejected = means[::2], means[1::2]
        of_chosen, of_rejected = tokens[::2], tokens[1::2]
        own, other = (chosen * chosen).sum(1), (chosen * rejected).sum(1)
        self._scores.extend((of_chosen * of_rejected * other - of_chosen**2 * own).tolist())
        self._normalised.extend((other - own).tolist())
        self._rows.extend(row for row, _ in self._waiting)
        self._waiting.clear()

    @torch.no_grad()
    def _means(self, answers: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
        """(answers, width) float64 means of the hidden states that predict scored tokens, and (answers,) how many."""
        ids = [torch.tensor(answer.ids[: self._max_length], dtype=torch.long) for answer in answers]
        scored = [torch.tensor(answer.mask[: self._max_length]) for answer in answers]
        device = self._lm.get_input_embeddings().weight.device
        there = [torch.ones_like(one) for one in ids]
        padded, attention, mask = (
            torch.nn.utils.rnn.pad_sequence(part, batch_first=True).to(device) for part in (ids, there, scored)
        )
        body = self._lm.base_model(input_ids=padded, attention_mask=attention, use_cache=False)
        if (hidden := getattr(body, "last_hidden_state", None)) is None:
            raise BadInput(f"--ches finds no body in {type(self._lm).__name__} that gives hidden states.")
        predicting = mask[:, 1:].to(hidden.dtype)  # the state before a token predicts it
        count = mask.sum(1).double().cpu()
        sums = torch.einsum("bth,bt->bh", hidden[:, :-1].float(), predicting.float()).double().cpu()
        return sums / count[:, None], count

    def findings(self) -> list[Finding]:
        """The pairs with the highest length-normalised scores, the highest first; nothing where there is no pair."""
        if self._waiting:
            self._score()
        if not self._rows:
            return []
        rows, scores, normalised = (np.array(part) for part in (self._rows, self._scores, self._normalised))
        order = np.argsort(-normalised, kind="stable")[: max(round(HIGHEST * len(rows)), 1)]
        counts, edges = np.histogram(normalised, BINS)
        highest = [
            {"row": int(rows[at]), "normalised": float(normalised[at]), "score": float(scores[at])} for at in order
        ]
        figures = {
            "pairs": len(rows),
            "p50": float(np.median(normalised)),
            "max": float(normalised.max()),
            "above_zero": int((normalised > 0).sum()),
            "highest": highest,
            "histogram": {"counts": counts.tolist(), "edges": edges.tolist()},
        }
        first = ", ".join(f"row {one['row']} {one['normalised']:.3g}" for one in highest[:3])
        text = (
            f"CHES, how alike the answers of a pair are to this model, over {len(rows):,} pairs: median "
            f"{figures['p50']:.3g} (length-normalised), the highest {first}. The higher, the more DPO and its kin "
            f"push the chosen answer down: {rows_text(rows[order].tolist())} are the highest {HIGHEST:.0%}"
        )
        return [Finding("ches", text, rows[order].tolist(), NOTE, figures)]
