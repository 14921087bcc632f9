"""Scores by ArmoRM (RLHFlow/ArmoRM-Llama3-8B-v0.1, https://arxiv.org/abs/2406.12845), without its remote code.

A Llama gives, at the last token, 19 rewards (`regression_layer`) that a matrix makes less verbose
(`reward_transform_matrix`). At the prompt's last token it gives what a small network turns into their weights
(`gating`): the score is the weighted sum. Names and shapes are those of the published weights.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel, LlamaPreTrainedModel

from bnf_align.construct.scorers.encoding import Text, padded
from bnf_align.construct.scorers.reward_model import RewardModel


class Gating(nn.Module):
    """The weights of the objectives, from the hidden state of the prompt."""

    def __init__(self, config: LlamaConfig, objectives: int) -> None:
        super().__init__()
        hidden = [getattr(config, "gating_hidden_dim", 1024)] * getattr(config, "gating_n_hidden", 3)
        self.temperature = getattr(config, "gating_temperature", 10)
        self.logit_scale = nn.Parameter(torch.ones(1))
        sizes = [config.hidden_size, *hidden, objectives]
        self.layers = nn.ModuleList(nn.Linear(size, following) for size, following in pairwise(sizes))

    def forward(self, prompt: Tensor) -> Tensor:
        """(rows, hidden) -> (rows, objectives), positive and of equal sum."""
        *hidden, last = self.layers
        for layer in hidden:
            prompt = layer(prompt).relu()
        return (last(prompt) / self.temperature).softmax(-1) * self.logit_scale


class ArmoRMModel(LlamaPreTrainedModel):
    """The model; the head stays in float32, where the published code rounds it with the rest to bfloat16."""

    _keep_in_fp32_modules_strict = ["regression_layer", "gating", "reward_transform_matrix"]  # noqa: RUF012 (as the library declares it)

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        objectives = getattr(config, "num_objectives", 19)
        self.model = LlamaModel(config)
        self.regression_layer = nn.Linear(config.hidden_size, objectives, bias=False)
        self.reward_transform_matrix = nn.Parameter(torch.eye(objectives), requires_grad=False)
        self.gating = Gating(config, objectives)
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, prompt_ends: Tensor) -> Tensor:
        """(rows,) scores of rows that are padded on the right; `prompt_ends` is where each prompt's last token is."""
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        rows, ends = torch.arange(len(hidden), device=hidden.device), attention_mask.sum(-1) - 1
        rewards = self.regression_layer(hidden[rows, ends].float()) @ self.reward_transform_matrix
        return (self.gating(hidden[rows, prompt_ends].float()) * rewards).sum(-1)


class ArmoRM(RewardModel):
    """ArmoRM in this process; for the arguments see `RewardModel`.

    The published code looks for the last `<|eot_id|>` that the header of an assistant's turn follows. That is where
    the prompt ends, unless a candidate writes such a header itself.
    """

    kind = "armorm"
    model_class: ClassVar[Any] = ArmoRMModel

    @classmethod
    def _loading(cls, *_: Any) -> dict[str, Any]:
        return {}

    @torch.inference_mode()
    def _forward(self, texts: list[Text]) -> list[float]:
        ids, mask = padded([text.ids for text in texts], self._pad, self.model.device)
        ends = torch.tensor([text.prompt_tokens - 1 for text in texts], device=ids.device)
        return self.model(ids, mask, ends).tolist()
