"""How much there is to do: responses, their tokens, and the largest micro-batch that a step will be cut into."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from bnf_align.config import PreferenceConfig
from bnf_align.data.batching import StepDataset, StepSampler
from bnf_align.data.micro_batches import Item, items_of, plan_step
from bnf_align.data.pairing import kl_rows, units
from bnf_align.data.prepare import Rows, checked_rows, held_out, tokenized
from bnf_align.data.responses import Responses
from bnf_align.records import PreferenceRow

CHARACTERS_PER_TOKEN = 4
"""Of English text under the tokenizers of current models: a rule of thumb."""

SCORED_SHARE = 0.65
"""Share of a response's tokens that belong to the answer, where nothing is known: 0.62 to 0.68 in UltraFeedback-like
data."""

STEPS_LOOKED_AT = 50
"""Steps of the first epoch that are cut in advance to find the largest micro-batch; not beyond `max_steps`."""


@dataclass(frozen=True)
class Workload:
    """What a run has to do in one epoch."""

    source: str
    """Where the lengths come from, in words."""
    responses: int
    tokens: int
    """Of prompt and answer, after cutting to `max_length`, without padding."""
    scored_tokens: int
    squares: int
    """Sum of the squared lengths: what attention computes."""
    steps: int
    """Optimizer steps."""
    micro_batches: int
    """The most of them that one device runs in one step."""
    longest: int
    """Tokens of the longest response."""
    rows: int
    """Rows of the largest micro-batch: its responses, or one where they are packed."""
    length: int
    """Tokens of each of these rows, with padding."""
    later_tokens: int
    """Tokens, with padding, of the largest micro-batch that is not the first of its step; 0 if there is none."""
    reference_tokens: int
    """Scored tokens that the reference pass has values for: training, evaluation and KL rows."""
    reference_inputs: int
    """Tokens that it runs through the model."""
    reference_rows: int
    """Rows of its largest micro-batch: it cuts all responses at once, not step by step."""
    reference_length: int
    """Tokens of each of them."""

    @property
    def scored_share(self) -> float:
        """Share of the tokens that are scored."""
        return self.scored_tokens / max(1, self.tokens)


def assumed(rows: int, mean_length: int, config: PreferenceConfig, devices: int = 1) -> Workload:
    """`rows` pairs of responses of `mean_length` tokens each; the largest micro-batch is the full budget."""
    batch, budget = config.step_size(devices), config.max_tokens_per_micro_batch
    longest = min(config.max_length or mean_length, max(budget, mean_length))
    length = max(budget, longest) if config.packing else longest
    tokens = 2 * rows * mean_length
    scored = round(SCORED_SHARE * tokens)
    micro_batches = -(-2 * min(batch, rows) * mean_length // (budget * devices))
    fitting = max(1, budget // length)
    return Workload(
        source=f"assumed: {rows:,} pairs, {mean_length:,} tokens a response, {SCORED_SHARE:.0%} of them scored",
        responses=2 * rows,
        tokens=tokens,
        scored_tokens=scored,
        squares=tokens * mean_length,
        steps=-(-rows // batch),
        micro_batches=micro_batches,
        longest=longest,
        rows=fitting,
        length=length,
        later_tokens=fitting * length if micro_batches > 1 else 0,
        reference_tokens=scored if config.loss.reference else 0,
        reference_inputs=tokens if config.loss.reference else 0,
        reference_rows=1 if config.packing else min(fitting, 2 * rows),
        reference_length=length,
    )


def measured(
    source: str,
    parts: Sequence[tuple[np.ndarray, np.ndarray]],
    units: Sequence[Sequence[int]],
    config: PreferenceConfig,
    devices: int = 1,
) -> Workload:
    """The workload of responses whose lengths are known, from where `source` says in words.

    Args:
        source: Where the lengths come from.
        parts: (n,) tokens and (n,) scored tokens of each response: those to train on, then those that the reference
            pass sees besides.
        units: Numbers of the training responses of each unit (a pair or a single response).
        config: The run's settings.
        devices: Number of ranks.
    """
    lengths, scored = parts[0]
    sampler = StepSampler(len(units), config.step_size(devices), config.order_seed)
    most, later, largest = 1, 0, (0, 1, 1)
    looked_at = min(STEPS_LOOKED_AT, config.max_steps) if config.max_steps > 0 else STEPS_LOOKED_AT
    for step in islice(sampler, looked_at):
        groups = [tuple(units[unit]) for unit in step]
        if not config.loss.pairwise:
            groups = [(row,) for group in groups for row in group]
        items = items_of(groups, lengths, config.packing)
        for share in plan_step(items, config.max_tokens_per_micro_batch, devices, config.packing):
            shapes = [_shape(cut, config.packing) for cut in share if cut]
            sizes = [length * rows for length, rows in shapes]
            most, later = max(most, len(sizes)), max(later, *sizes[1:], 0)
            largest = max([largest, *((size, *shape) for size, shape in zip(sizes, shapes, strict=True))])
    seen = parts if config.loss.reference else []
    most_rows, most_tokens = _largest(np.concatenate([part for part, _ in seen] or [lengths]), config)
    return Workload(
        source=source,
        responses=len(lengths),
        tokens=int(lengths.sum()),
        scored_tokens=int(scored.sum()),
        squares=int((lengths.astype(np.int64) ** 2).sum()),
        steps=len(sampler),
        micro_batches=most,
        longest=int(lengths.max()),
        rows=largest[2],
        length=largest[1],
        later_tokens=later,
        reference_tokens=sum(int(scored.sum()) for _, scored in seen),
        reference_inputs=sum(int(lengths.sum()) for lengths, _ in seen),
        reference_rows=most_rows,
        reference_length=most_tokens,
    )


def _largest(lengths: np.ndarray, config: PreferenceConfig) -> tuple[int, int]:
    """(rows, length) of the micro-batch that holds the longest rows: the largest that the budget allows."""
    budget, longest = config.max_tokens_per_micro_batch, int(lengths.max())
    if config.packing:
        return 1, max(longest, min(budget, int(lengths.sum())))
    return min(len(lengths), max(1, budget // longest)), longest


def _shape(cut: Sequence[Item], packing: bool) -> tuple[int, int]:
    """(length, rows) of a micro-batch as the model sees it."""
    return (sum(item.length for item in cut), 1) if packing else (cut[0].length, sum(len(item.rows) for item in cut))


def of_steps(steps: StepDataset, config: PreferenceConfig, others: Sequence[StepDataset] = ()) -> Workload:
    """The workload of a run whose steps are prepared, `others` being its evaluation steps."""
    seen = [part for each in (steps, *others) for part in (each.responses, each.kl_rows) if part is not None]
    lengths = [(part.lengths, part.scored) for part in seen]
    return measured("counted by the tokenizer", lengths, steps.units, config, steps.world)


def of_rows(
    rows: Rows,
    eval_rows: Rows | None,
    tokenizer: PreTrainedTokenizerBase | None,
    config: PreferenceConfig,
    devices: int,
) -> Workload:
    """The workload of raw rows: counted by the tokenizer as in training, or without one estimated from characters."""
    checked = {"train": checked_rows("train", rows, config)}
    if tokenizer is None:
        return _from_characters(checked["train"][0], config, devices)
    if config.eval_fraction:
        checked |= held_out(checked, config.eval_fraction)
    elif eval_rows is not None:
        checked["eval"] = checked_rows("eval", eval_rows, config)
    parts = [tokenized(*each, tokenizer, config) for each in checked.values()]
    seen = [*parts, *(kl_rows(part, config.max_length) for part in parts if config.loss.mismatched)]
    lengths = [(one.lengths, one.scored) for one in map(Responses, seen)]
    return measured("counted by the tokenizer", lengths, units(parts[0]), config, devices)


def _from_characters(rows: list[PreferenceRow], config: PreferenceConfig, devices: int) -> Workload:
    """Lengths of checked rows at CHARACTERS_PER_TOKEN, before evaluation rows are held out."""
    lengths: list[tuple[int, int]] = []
    groups: list[range] = []
    for row in rows:
        prompt = _tokens(row["prompt"])
        answers = [_tokens(row[name]) for name in ("chosen", "rejected", "completion") if name in row]
        groups.append(range(len(lengths), len(lengths) + len(answers)))
        for answer in answers:
            cut = min(prompt + answer, config.max_length or prompt + answer)
            lengths.append((cut, max(1, cut - prompt)))
    source = f"estimated: {CHARACTERS_PER_TOKEN} characters a token, since there is no tokenizer"
    tokens, scored = np.array(lengths).T
    return measured(source, [(tokens, scored)], groups, config, devices)


def _tokens(text: Any) -> int:
    texts = [text] if isinstance(text, str) else [str(message.get("content") or "") for message in text]
    return max(1, sum(map(len, texts)) // CHARACTERS_PER_TOKEN)
