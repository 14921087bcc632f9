"""What a tiny model says, how often that is right, and how likely it finds given completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bnf_align.data.responses import Responses
from bnf_align.data.tokenize import tokenize_rows
from bnf_align.lab.world import Skill
from bnf_align.logps import completion_logps
from bnf_align.records import DataReport, PreferenceRow

TEMPERATURE = 0.8
"""Of every sample the lab takes, for the preference data and for the evaluation alike."""
MAX_NEW_TOKENS = 24
"""The longest right answer has 21 tokens, its end token included."""


@torch.no_grad()
def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    temperature: float = TEMPERATURE,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 250,
) -> list[list[str]]:
    """Completions of each prompt.

    Args:
        model: A causal language model; it is put in evaluation mode.
        tokenizer: Its tokenizer; padding is on the left here, whatever the tokenizer's own side is.
        prompts: The texts to go on from.
        temperature: 0 decodes greedily; anything above samples from the whole distribution, uncut.
        samples: Completions per prompt.
        seed: The same seed and batch size give the same samples; the global random state is left as it was.
        batch_size: Prompts at a time.

    Returns:
        For each prompt its `samples` completions, without special tokens and with the space they begin with:
        prompt + completion is the text.
    """
    # Stated in full: a model may bring a top-k of 50 or another default along.
    how: dict[str, Any] = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    model.eval()
    generate: Any = model.generate  # typed as a tensor or a module
    texts: list[str] = []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(prompts), batch_size):
            batch = list(prompts[start : start + batch_size])
            inputs = tokenizer(batch, return_tensors="pt", padding=True, padding_side="left").to(model.device)
            tokens = generate(
                **inputs,
                **(how if temperature else {"do_sample": False}),
                num_return_sequences=samples,
                max_new_tokens=MAX_NEW_TOKENS,
            )
            completions = tokens[:, inputs["input_ids"].shape[1] :]
            texts += [" " + text for text in tokenizer.batch_decode(completions, skip_special_tokens=True)]
    return [texts[start : start + samples] for start in range(0, len(texts), samples)]


def outcomes(skill: Skill, prompts: Sequence[str], completions: Sequence[Sequence[str]]) -> list[float]:
    """The share of each prompt's completions that the skill's verifier finds right: 0 or 1 where it has one."""
    return [
        sum(skill.is_right(prompt, text) for text in texts) / len(texts)
        for prompt, texts in zip(prompts, completions, strict=True)
    ]


def answers_with_thumbs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    skill: Skill,
    prompts: Sequence[str],
    samples: int,
    seed: int,
) -> list[PreferenceRow]:
    """`prompt, completion, label` rows: what the model says to each prompt, with the verifier's thumb.

    Every sample is a row, so an answer that the model likes to give stands there as often as it gave it.
    """
    answers = complete(model, tokenizer, prompts, samples=samples, seed=seed)
    return [
        {"prompt": prompt, "completion": text, "label": skill.is_right(prompt, text)}
        for prompt, texts in zip(prompts, answers, strict=True)
        for text in texts
    ]


@torch.no_grad()
def mean_logps(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Sequence[PreferenceRow], batch_size: int = 250
) -> list[float]:
    """Mean log-probability per token of each row's completion, its end token included, in nats; as in training."""
    model.eval()
    numbered = [{**row, "row": number} for number, row in enumerate(rows)]
    responses = Responses(tokenize_rows(numbered, tokenizer, DataReport("held-out rows"), max_length=None))
    means: list[float] = []
    for start in range(0, len(responses), batch_size):
        batch = responses.collate(range(len(responses))[start : start + batch_size], tokenizer.pad_token_id)
        on_device = {name: values.to(model.device) for name, values in batch.items()}
        means += completion_logps(model, on_device).mean_logp.tolist()
    return means
