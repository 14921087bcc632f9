"""Prompts in, candidates out: several answers to each, by one model or several, at one temperature or several."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from bnf_align.engines import Engine, Generation, Request, Sampling, asked_with
from bnf_align.journal import Journal, Row, read_jsonl
from bnf_align.records import BadInput, counted

logger = logging.getLogger(__name__)

MADE = {"candidates", "duplicates"}
"""Columns of a row that are no prompt's."""


class Job(NamedTuple):
    """One model at one temperature."""

    engine: Engine
    sampling: Sampling


@dataclass
class Generated:
    """What a run of `generate` has done."""

    path: Path
    """The candidates; or, with `missing` prompts, what a rerun goes on with."""
    prompts: int = 0
    missing: int = 0
    """Prompts without candidates: the endpoint failed. The same command asks for them again."""
    candidates: int = 0
    duplicates: int = 0
    """Candidates that say what an earlier one of the same prompt says."""
    finish_reasons: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """The counts in plain words."""
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.finish_reasons.items()))
        lines = [
            f"{counted(self.candidates, 'candidate')} to {counted(self.prompts, 'prompt')} in {self.path}",
            f"  {counted(self.duplicates, 'duplicate')} of another one of the same prompt",
            f"  ended by: {reasons}",
        ]
        if self.missing:
            lines.append(f"  {counted(self.missing, 'prompt')} without any yet: run the same command again")
        return lines


def generate(
    prompts: Sequence[Row], jobs: Sequence[Job], out: str | Path, *, about: Mapping[str, Any] | None = None
) -> Generated:
    """Answer every prompt that `out` has no candidates to yet.

    With several jobs each has a file of its own until all are done, so a kill loses nothing of any of them.

    Args:
        prompts: Rows with `id` and `prompt`, all of them on a rerun too: the batches follow from them.
        jobs: Models and how to draw from them; a row's candidates stand in this order.
        out: The file of candidates.
        about: What is worth knowing beside them, such as the command.

    Raises:
        BadInput: If `out` was begun with other models, weights or sampling, or answers other prompts under these ids.
    """
    out = Path(out).expanduser()
    card = {"jobs": [_card(job) for job in jobs]}
    if len(jobs) == 1:
        missing = _answer(prompts, jobs[0], out, card, about)
        return _counted(prompts, len(missing), [out])
    with Journal(out, card=card, about=about) as whole:
        _same_prompts(whole, prompts)
        finished = set(whole.done)
    parts = [out.with_name(f"{out.name}.{number}.jsonl") for number in range(len(jobs))]
    missing = set()
    if not finished.issuperset(row["id"] for row in prompts):
        for job, part in zip(jobs, parts, strict=True):
            missing |= _answer(prompts, job, part, _card(job), about, finished)
        if missing:
            return _counted(prompts, len(missing), parts)
    _merge(prompts, parts, out, card, about)
    for file in parts:  # a kill may have come between the merging and this
        file.unlink(missing_ok=True)
        file.with_name(file.name + ".card.json").unlink(missing_ok=True)
    return _counted(prompts, 0, [out])


def _answer(
    prompts: Sequence[Row],
    job: Job,
    out: Path,
    card: Mapping[str, Any],
    about: Mapping[str, Any] | None,
    elsewhere: Set[str] = frozenset(),
) -> set[str]:
    """Answer what neither `out` nor a file `elsewhere` has; ids that have no candidates after all."""
    by_id = {row["id"]: row for row in prompts}
    requests = [Request(row["id"], row["prompt"]) for row in prompts]
    with Journal(out, card=card, about=about) as journal:
        _same_prompts(journal, prompts)
        finished = (journal.done | elsewhere) & by_id.keys()
        bar = tqdm(total=len(requests), initial=len(finished), desc=f"Candidates of {job.engine.name}", unit="prompt")
        with bar:
            for batch in job.engine.generate(requests, job.sampling, finished):
                bar.update(journal.append([_row(by_id[one.id], one, job) for one in batch if one.id not in elsewhere]))
                bar.set_postfix_str(f"{job.engine.tokens / max(job.engine.seconds, 1e-9):,.0f} tokens/s")
        missing = by_id.keys() - journal.done - elsewhere
        if not missing:
            journal.finish(by_id)
    return missing


def _same_prompts(journal: Journal, prompts: Sequence[Row]) -> None:
    """Answers to other prompts under the same ids must not pass for answers to these, nor bring old columns along."""
    asked = {row["id"]: row for row in prompts}
    prompt, columns = [], {}
    for name, row in journal.read():
        now = asked.get(name, row)
        if row.get("prompt") != now.get("prompt"):
            prompt.append(name)
        elif other := {column for column in (row.keys() | now.keys()) - MADE if row.get(column) != now.get(column)}:
            columns[name] = ", ".join(sorted(other))
    if prompt:
        raise BadInput(
            f"{journal.path} has answers to other prompts under {len(prompt):,} of these ids, the first "
            f"{prompt[0]!r}: they were worded otherwise, or one of the two commands had --chat. Give another --out."
        )
    if columns:
        name, listed = next(iter(columns.items()))
        raise BadInput(
            f"{journal.path} has columns of earlier prompts in {counted(len(columns), 'row')}; the first, {name!r}, "
            f"has another {listed}. They would stay as they are there, a right answer that was corrected since for "
            "one, and `score` goes by them. Give another --out."
        )


def _row(prompt: Row, generation: Generation, job: Job) -> Row:
    texts = zip(generation.texts, generation.finish_reasons, generation.tokens, strict=True)
    about = {"model": job.engine.name, "temperature": job.sampling.temperature, "seed": job.sampling.seed}
    candidates = [{"text": text, "finish_reason": reason, "tokens": tokens, **about} for text, reason, tokens in texts]
    return {**prompt, "candidates": candidates, "duplicates": _duplicates(candidates)}


def _duplicates(candidates: Sequence[Row]) -> int:
    return len(candidates) - len({candidate["text"] for candidate in candidates})


def _merge(
    prompts: Sequence[Row], parts: Sequence[Path], out: Path, card: Mapping[str, Any], about: Mapping[str, Any] | None
) -> None:
    """One row a prompt from the jobs' files; where `out` has all rows, a kill may still have kept it from its end."""
    with Journal(out, card=card, about=about) as journal:
        new = [prompt for prompt in prompts if prompt["id"] not in journal.done]
        of_jobs = [{row["id"]: row["candidates"] for row in read_jsonl(part)} for part in parts] if new else []
        for prompt in new:
            candidates = [one for answers in of_jobs for one in answers[prompt["id"]]]
            journal.append([{**prompt, "candidates": candidates, "duplicates": _duplicates(candidates)}])
        journal.finish(row["id"] for row in prompts)


def _card(job: Job) -> Row:
    made = {"model": job.engine.name, "weights": job.engine.weights, "sampling": asdict(job.sampling)}
    return made | asked_with(job.engine)


def _counted(prompts: Sequence[Row], missing: int, files: Sequence[Path]) -> Generated:
    """What the files hold for `prompts`; where some are missing, that is in the partial ones."""
    ids = {row["id"] for row in prompts}
    partial = [file.with_name(file.name + ".partial") for file in files]
    counts = Generated(partial[0] if missing else files[0], len(ids), missing)
    for pair in zip(files, partial, strict=True):
        for row in (row for file in pair if file.exists() for row in read_jsonl(file) if row["id"] in ids):
            counts.candidates += len(row["candidates"])
            counts.duplicates += row["duplicates"]
            counts.finish_reasons.update(candidate["finish_reason"] for candidate in row["candidates"])
    return counts
