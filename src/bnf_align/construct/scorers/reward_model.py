"""Scores by a reward model: any sequence classifier with a single label."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from bnf_align.construct.scorers.encoding import Encoder, Text, padded
from bnf_align.construct.scorers.pretrained import PretrainedScorer
from bnf_align.construct.scorers.scorer import Row, Scored, finite
from bnf_align.engines.local import Limits
from bnf_align.records import BadInput


class RewardModel(PretrainedScorer):
    """A sequence classifier with one label; its scores compare within a prompt, and between prompts as its makers say.

    For the arguments see `PretrainedScorer`. Where the model reads fewer tokens than `max_length`, its number counts.
    """

    kind = "reward_model"
    model_class: ClassVar[Any] = AutoModelForSequenceClassification

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        *,
        max_length: int = 4096,
        limits: Limits | None = None,
    ) -> None:
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._encode = Encoder(tokenizer, min(max_length, context or max_length))
        super().__init__(model, tokenizer, name, self._encode.max_length, limits)
        self._pad, self._left = _padding(model, tokenizer)
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    @classmethod
    def _loading(cls, name_or_path: str, revision: str | None, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        return {"num_labels": 1}

    def _read(self, row: Row) -> tuple[list[Text], list[Text | None]]:
        texts = [self._encode(row["id"], row["prompt"], one["text"]) for one in row["candidates"]]
        return [text for text in texts if text is not None], texts

    @torch.inference_mode()
    def _forward(self, texts: list[Text]) -> list[float]:
        ids, mask = padded([text.ids for text in texts], self._pad, self.model.device, self._left)
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self._left and self._takes_positions:
            inputs["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
        rewards = self.model(**inputs).logits.float().reshape(len(texts), -1)
        if rewards.shape[1] != 1:
            raise BadInput(
                f"{self.name} gives {rewards.shape[1]} numbers for a text, and a reward is one. A classifier of "
                "several kinds is no reward model."
            )
        return rewards[:, 0].tolist()

    def _scored(self, name: str, values: Sequence[float], about: list[Text | None]) -> Scored:
        found = iter(values)
        scores = [None if text is None else finite(next(found)) for text in about]
        cut = sum(text is not None and text.cut for text in about)
        return Scored(name, scores, {"candidates_cut": cut} if cut else {})


def _padding(model: Any, tokenizer: PreTrainedTokenizerBase) -> tuple[int, bool]:
    """The token to pad with, and whether it goes to the left.

    A decoder of the library reads its score at the last token that is not the padding token of its configuration.
    Where that names one, padding goes to the right, and the token is the one it would find alone. Where it names
    none, the score is at the last token whatever that is, and more than one row is refused: a number that is no token
    and padding on the left give just that.
    """
    config = model.config.get_text_config()
    if config.pad_token_id is not None and config.pad_token_id >= 0:
        return int(config.pad_token_id), False
    if hasattr(model, "score"):
        config.pad_token_id = -1
        return 0, True
    return int(tokenizer.pad_token_id or 0), False
