"""Prompts in, candidates out: several answers to each, by one model or several, at one temperature or several."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from bnf_align.engines import Engine, Generation, Request, Sampling
from bnf_align.journal import Journal, read_jsonl

logger = logging.getLogger(__name__)

Row = dict[str, Any]


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
        lines = [f"{self.candidates:,} candidates to {self.prompts:,} prompts in {self.path}"]
        lines += [f"  {self.duplicates:,} say what another one of their prompt says", f"  ended by: {reasons}"]
        if self.missing:
            lines.append(f"  {self.missing:,} prompts have none yet: run the same command again")
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
        BadInput: If `out` was begun with other models, weights or sampling.
    """
    out = Path(out).expanduser()
    card = {"jobs": [_card(job) for job in jobs]}
    parts = [out] if len(jobs) == 1 else [_part(out, number) for number in range(len(jobs))]
    missing: set[str] = set()
    with Journal(out, card=card, about=about) as whole:
        finished = len(jobs) > 1 and {row["id"] for row in prompts} <= whole.done
    if not finished:
        for job, part in zip(jobs, parts, strict=True):
            missing |= _answer(prompts, job, part, card if len(jobs) == 1 else _card(job), about)
        if len(jobs) > 1 and not missing:
            _merge(prompts, parts, out, card, about)
    path = out if not missing else parts[0].with_name(parts[0].name + ".partial")
    return _counted(path, len(prompts), len(missing))


def _answer(
    prompts: Sequence[Row], job: Job, out: Path, card: Mapping[str, Any], about: Mapping[str, Any] | None
) -> set[str]:
    """Ids that have no candidates after all."""
    by_id = {row["id"]: row for row in prompts}
    requests = [Request(row["id"], row["prompt"]) for row in prompts]
    with Journal(out, card=card, about=about) as journal:
        finished = journal.done & by_id.keys()
        bar = tqdm(total=len(requests), initial=len(finished), desc=f"Candidates of {job.engine.name}", unit="prompt")
        with bar:
            for batch in job.engine.generate(requests, job.sampling, finished):
                journal.append([_row(by_id[one.id], one, job) for one in batch])
                bar.update(sum(one.id not in finished for one in batch))
                bar.set_postfix_str(f"{job.engine.tokens / max(job.engine.seconds, 1e-9):,.0f} tokens/s")
        missing = by_id.keys() - journal.done
        if not missing:
            journal.finish(by_id)
    return set(missing)


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
    """One row a prompt from the jobs' files, which are then no longer needed."""
    of_jobs = [{row["id"]: row["candidates"] for row in read_jsonl(part)} for part in parts]
    with Journal(out, card=card, about=about) as journal:
        for prompt in prompts:
            candidates = [one for answers in of_jobs for one in answers[prompt["id"]]]
            journal.append([{**prompt, "candidates": candidates, "duplicates": _duplicates(candidates)}])
        journal.finish(row["id"] for row in prompts)
    for part in parts:
        part.unlink()
        part.with_name(part.name + ".card.json").unlink(missing_ok=True)


def _part(out: Path, number: int) -> Path:
    return out.with_name(f"{out.name}.{number}.jsonl")


def _card(job: Job) -> Row:
    return {"model": job.engine.name, "weights": job.engine.weights, "sampling": asdict(job.sampling)}


def _counted(path: Path, prompts: int, missing: int) -> Generated:
    counts = Generated(path, prompts, missing)
    rows: Iterable[Row] = read_jsonl(path) if path.exists() else ()
    for row in rows:
        counts.candidates += len(row["candidates"])
        counts.duplicates += row["duplicates"]
        counts.finish_reasons.update(candidate["finish_reason"] for candidate in row["candidates"])
    return counts
