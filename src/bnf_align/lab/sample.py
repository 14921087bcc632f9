"""What a tiny model says, how often that is right, and how likely it finds given completions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bnf_align.construct.dataset import write_selection
from bnf_align.construct.generate import Job, generate
from bnf_align.construct.score import read_candidates, score
from bnf_align.construct.scorers.verifier import Verifier
from bnf_align.construct.select import Choice
from bnf_align.data.responses import Responses
from bnf_align.data.tokenize import tokenize_rows
from bnf_align.engines import Generation, Request, Sampling
from bnf_align.engines.local import Limits, LocalEngine
from bnf_align.evaluation.run import answered
from bnf_align.journal import read_jsonl
from bnf_align.lab.world import Skill
from bnf_align.logps import completion_logps
from bnf_align.outputs import write_text
from bnf_align.records import DataReport, PreferenceRow

Judged = tuple[str, bool]
"""An answer, and whether it is right."""

TEMPERATURE = 0.8
"""Of every sample the lab takes, for the preference data and for the evaluation alike."""
VERIFIER = "bnf_align.lab.world:is_right"
MAX_NEW_TOKENS = 24
"""The longest right answer has 21 tokens, its end token included."""


def complete(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[str], **how: Any
) -> list[list[str]]:
    """The completions of each prompt, without special tokens and with the space they begin with: see `generations`."""
    return [one.texts for one in generations(model, tokenizer, prompts, **how)]


def generations(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    temperature: float = TEMPERATURE,
    samples: int = 1,
    seed: int = 0,
    batch_size: int = 250,
) -> list[Generation]:
    """Completions of each prompt by the engine that makes everybody's data; the same seed gives the same ones.

    A temperature of 0 decodes greedily; anything above samples from the whole distribution, uncut.
    """
    requests = [Request(str(number), prompt) for number, prompt in enumerate(prompts)]
    engine = LocalEngine(model, tokenizer, "tiny", Limits(batch_size * samples))
    sampling = Sampling(temperature=temperature, n=samples, seed=seed, max_new_tokens=MAX_NEW_TOKENS)
    return answered(engine, requests, sampling)


def judged(
    engine: LocalEngine, rows: Sequence[dict[str, Any]], sampling: Sampling, verifier: str, folder: Path
) -> list[PreferenceRow]:
    """Answers to the prompts of `rows` with the verifier's thumb, by `generate`, `score` and `select`, resumable.

    `folder` gets `candidates.jsonl`, `scored.jsonl`, `preferences.jsonl` and its data card.
    """
    generate(rows, [Job(engine, sampling)], folder / "candidates.jsonl")
    score(read_candidates(folder / "candidates.jsonl"), Verifier(verifier), folder / "scored.jsonl")
    write_selection(folder / "scored.jsonl", folder / "preferences.jsonl", Choice(unpaired=True, threshold=1.0))
    return list(read_jsonl(folder / "preferences.jsonl"))


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
    folder: Path,
) -> list[PreferenceRow]:
    """`prompt, completion, label` rows: what the model says to each prompt, with the verifier's thumb.

    As everybody's data is made, see `judged`, and anew each time. Every sample is a row, so an answer that the model
    likes to give stands there as often as it gave it.
    """
    for file in folder.glob("*.jsonl*"):  # of a run with another seed or other settings
        file.unlink()
    rows = [{"id": str(number), "prompt": prompt, "skill": skill.name} for number, prompt in enumerate(prompts)]
    engine = LocalEngine(model, tokenizer, "tiny", Limits(250 * samples))
    sampling = Sampling(temperature=TEMPERATURE, n=samples, seed=seed, max_new_tokens=MAX_NEW_TOKENS)
    return judged(engine, rows, sampling, VERIFIER, folder)


def write_samples(
    path: Path, rows: Sequence[Mapping[str, Any]], before: Sequence[Judged], after: Sequence[Judged]
) -> None:
    """Answers before and after, side by side for the report."""
    lines = [
        {**row, "before": was[0], "before_correct": was[1], "after": now[0], "after_correct": now[1]}
        for row, was, now in zip(rows, before, after, strict=True)
    ]
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


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
