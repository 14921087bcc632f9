"""Scores by PairRM (llm-blender/PairRM-hf or llm-blender/PairRM), without the library llm-blender.

A DeBERTa-v3-large reads a prompt and two candidates at once and says which is better
(https://arxiv.org/abs/2306.02561). Names and shapes are those of the published weights; how the three texts are
written and cut is that of the model's card.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DebertaV2Config, DebertaV2Model, PreTrainedTokenizerBase
from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2PreTrainedModel

from bnf_align.construct.scorers.encoding import Ids, padded
from bnf_align.construct.scorers.pretrained import PretrainedScorer
from bnf_align.construct.scorers.scorer import Row, Scored, finite, prompt_text
from bnf_align.engines.local import Limits
from bnf_align.records import BadInput

RANKINGS = ("logits", "wins")
SOURCE, FIRST, SECOND = PREFIXES = ("<|source|>", "<|candidate1|>", "<|candidate2|>")
MAX_LENGTH = 2048
SOURCE_SHARE = 1224 / 2048
"""Of the length, the most that a prompt takes; the candidates share the rest."""

# microsoft/deberta-v3-large: llm-blender/PairRM, unlike PairRM-hf, has only a configuration of llm-blender's own.
DEBERTA_V3_LARGE = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "type_vocab_size": 0,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
}


class PairRMModel(DebertaV2PreTrainedModel):
    """The cross-encoder: one number for how far the first candidate is ahead of the second."""

    base_model_prefix = "pretrained_model"

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__(config)
        size, drop = config.hidden_size, getattr(config, "drop_out", 0.0)
        self.pretrained_model = DebertaV2Model(config)
        self.head_layer = nn.Sequential(
            nn.Dropout(drop),
            nn.Linear(2 * size, size),
            nn.Tanh(),
            nn.Dropout(drop),
            nn.Linear(size, getattr(config, "n_tasks", 1)),
        )
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, places: Tensor) -> Tensor:
        """(rows,) logits; `places` (rows, 3) is where the prefixes of source, first and second candidate stand."""
        hidden = self.pretrained_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        rows = torch.arange(len(hidden), device=hidden.device)
        source, first, second = (hidden[rows, place] for place in places.T)
        ahead = self.head_layer(torch.cat([source, first], -1)) - self.head_layer(torch.cat([source, second], -1))
        return ahead.mean(-1)


class Comparison(NamedTuple):
    """Two candidates, in this order; put together only when they are compared: there are n(n - 1) of a row."""

    source: Ids
    first: Ids
    second: Ids

    @property
    def length(self) -> int:
        """In tokens."""
        return sum(map(len, self))


class PairRM(PretrainedScorer):
    """PairRM in this process: every two candidates are compared in both orders.

    A candidate's score is the mean of its logits over both orders, so scores compare within a prompt only; `wins` is
    its share of won comparisons, a tie being half a win. They are what `Blender.rank` of llm-blender calls
    `max_logits`, its default, and `max_wins`. A row with a single candidate has nothing to compare.

    Args (see `PretrainedScorer` for the others):
        max_length: Of a prompt and two candidates; longer ones lose their ends.
        rank_by: What the scores are: mean "logits", or "wins", of which n candidates have few values and many ties.

    Raises:
        BadInput: If the tokenizer does not know the three prefixes, or there is no such ranking.
    """

    kind = "pairrm"
    model_class: ClassVar[Any] = PairRMModel

    def __init__(
        self,
        model: PairRMModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        *,
        max_length: int = MAX_LENGTH,
        limits: Limits | None = None,
        rank_by: str = "logits",
    ) -> None:
        if rank_by not in RANKINGS:
            raise BadInput(f"--rank-by {rank_by}: choose {' or '.join(RANKINGS)}.")
        super().__init__(model, tokenizer, name, max_length, limits)
        self.rank_by = rank_by
        known = {prefix: tokenizer.convert_tokens_to_ids(prefix) for prefix in PREFIXES}
        if unknown := [prefix for prefix in PREFIXES if self._encoded(prefix, "x", 8)[0][1] != known[prefix]]:
            raise BadInput(f"The tokenizer of {name} does not know {', '.join(unknown)}: it is not PairRM's.")

    @classmethod
    def _loading(cls, name_or_path: str, revision: str | None, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
        """The published configuration, or that of DeBERTa-v3-large where it is llm-blender's own."""
        found, _ = DebertaV2Config.get_config_dict(name_or_path, revision=revision)
        if "hidden_size" in found:
            return {"config": DebertaV2Config.from_dict(found)}
        return {"config": DebertaV2Config(**DEBERTA_V3_LARGE, vocab_size=len(tokenizer))}  # type: ignore[arg-type]

    @property
    def card(self) -> Row:
        """The model, its weights, how much it reads and what its scores are."""
        return super().card | {"rank_by": self.rank_by}

    def _read(self, row: Row) -> tuple[list[Comparison], int]:
        prompt, most = prompt_text(row["prompt"]), int(self.max_length * SOURCE_SHARE)
        source, long = self._encoded(SOURCE, prompt, most)
        room = (self.max_length - len(source)) // 2
        answers = [one["text"] for one in row["candidates"]]
        firsts, seconds = ([self._encoded(prefix, text, room) for text in answers] for prefix in (FIRST, SECOND))
        pairs = permutations(range(len(answers)), 2)
        cut = sum(long or shortened for _, shortened in firsts)
        return [Comparison(source, firsts[i][0], seconds[j][0]) for i, j in pairs], cut

    def _encoded(self, prefix: str, text: str, most: int) -> tuple[Ids, bool]:
        """Token ids, and whether they had to be cut."""
        ids = list(self.tokenizer(prefix + text)["input_ids"])
        cut = len(ids) > most
        # The last one is the separator: it stays, as with the tokenizer's own truncation.
        return np.asarray(ids[: most - 1] + ids[-1:] if cut else ids, np.int32), cut

    @torch.inference_mode()
    def _forward(self, pairs: list[Comparison]) -> list[float]:
        pad = int(self.model.config.pad_token_id or 0)
        ids, mask = padded([np.concatenate(pair) for pair in pairs], pad, self.model.device)
        # Each part begins with the tokenizer's own first token. Places follow from lengths: a candidate may quote one.
        places = [(1, len(source) + 1, len(source) + len(first) + 1) for source, first, _ in pairs]
        return self.model(ids, mask, torch.tensor(places, device=ids.device)).tolist()

    def _scored(self, name: str, values: Sequence[float], about: int) -> Scored:
        """Mean logit and share of wins of each candidate over the comparisons in both orders; `wins` as well."""
        # n (n - 1) comparisons; none at all are those of a single candidate
        count = round((1 + (1 + 4 * len(values)) ** 0.5) / 2)
        if count == 1:
            return Scored(name, [None], {"wins": [None]})
        table = np.zeros((count, count))
        for (i, j), logit in zip(permutations(range(count), 2), values, strict=True):
            table[i, j] = logit
        ahead = (table - table.T).sum(1) / (2 * (count - 1))
        wins = (np.sign(table) - np.sign(table.T)).sum(1) / (4 * (count - 1)) + 0.5
        found = {"logits": list(map(finite, ahead)), "wins": list(map(finite, wins))}
        return Scored(
            name, found[self.rank_by], {"wins": found["wins"], **({"candidates_cut": about} if about else {})}
        )
