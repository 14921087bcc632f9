"""Scores by a reward model: any sequence classifier with a single label."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from bnf_align.construct.scorers.batches import Limits, planned, values_in_batches
from bnf_align.construct.scorers.encoding import Encoder, Text, padded
from bnf_align.construct.scorers.pretrained import load_scorer_model
from bnf_align.construct.scorers.scorer import Row, Scored, finite
from bnf_align.fingerprint import weights_hash
from bnf_align.records import BadInput


class RewardModel:
    """A reward model in this process; its scores compare within a prompt, and between prompts as its makers say.

    Args:
        model: A sequence classifier.
        tokenizer: Its tokenizer.
        name: The model's name in the files made with it.
        max_length: Tokens of prompt and candidate; fewer where the model reads fewer.
        limits: Of a batch.
    """

    kind = "reward_model"
    model_class: Any = AutoModelForSequenceClassification
    loading: ClassVar[dict[str, Any]] = {"num_labels": 1}

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        *,
        max_length: int = 4096,
        limits: Limits | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.name = f"{self.kind}:{name}"
        self.limits = limits or Limits()
        context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self._encode = Encoder(tokenizer, min(max_length, context or max_length))
        self._pad, self._left = _padding(model, tokenizer)
        self._takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    @classmethod
    def load(
        cls,
        name_or_path: str,
        *,
        dtype: str = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
        max_length: int = 4096,
        limits: Limits | None = None,
    ) -> Self:
        """The model in a folder or on the hub; see `load_scorer_model`."""
        model, tokenizer = load_scorer_model(
            cls.model_class,
            name_or_path,
            dtype=dtype,
            revision=revision,
            trust_remote_code=trust_remote_code,
            **cls.loading,
        )
        return cls(model, tokenizer, name_or_path, max_length=max_length, limits=limits)

    @cached_property
    def weights(self) -> str:
        """Hash of the weights."""
        return weights_hash(self.model)

    @property
    def card(self) -> Row:
        """The model, its weights and how much it reads."""
        return {"scorer": self.name, "weights": self.weights, "max_length": self._encode.max_length}

    def score(self, rows: Sequence[Row], done: Collection[str] = ()) -> Iterator[list[Scored]]:
        """See `Scorer`. A row whose prompt had to be cut says of how many candidates in `candidates_cut`.

        Raises:
            BadInput: If a conversation cannot be written, or the model has more than one label.
        """
        texts = self._texts(rows)
        for batch in values_in_batches(_work(texts), done, self.limits, self._forward):
            yield [_scored(name, texts[name], values) for name, values in batch]

    def plan(self, rows: Sequence[Row]) -> list[list[str]]:
        """See `SharedScorer`."""
        return planned(_work(self._texts(rows)), self.limits)

    def _texts(self, rows: Sequence[Row]) -> dict[str, list[Text | None]]:
        return {
            row["id"]: [self._encode(row["id"], row["prompt"], one["text"]) for one in row["candidates"]]
            for row in rows
        }

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
        return [float(value) for value in rewards[:, 0].tolist()]


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


def _work(texts: Mapping[str, Sequence[Text | None]]) -> list[tuple[str, list[Text]]]:
    return [(name, [text for text in own if text is not None]) for name, own in texts.items()]


def _scored(name: str, texts: Sequence[Text | None], values: Sequence[float]) -> Scored:
    found = iter(values)
    scores = [None if text is None else finite(next(found)) for text in texts]
    cut = sum(text is not None and text.cut for text in texts)
    return Scored(name, scores, {"candidates_cut": cut} if cut else {})
