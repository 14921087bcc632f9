"""Answers before and after, with the words marked in which they differ."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from itertools import chain
from typing import Any

from bnf_align.evaluation.tasks import TASKS
from bnf_align.journal import read_jsonl
from bnf_align.records import BadInput
from bnf_align.report.inputs import Document

BUDGET = 2_400_000
"""Bytes of answers on a page; what does not fit is counted."""
LONGEST = 6_000
"""Characters of a text that are shown."""
WORD = re.compile(r"\s*\S+|\s+$")

Marked = list[tuple[str, bool]]
"""Pieces of a text, and whether the other side lacks them."""


@dataclass(frozen=True)
class Sample:
    """One prompt and its two answers."""

    number: int
    prompt: str
    before: Marked
    after: Marked
    outcome: str
    """`better`, `worse` or `same` where it is known, else empty."""
    cut: bool
    """Whether a text is longer than what is shown."""


@dataclass(frozen=True)
class Samples:
    """What is shown of the samples."""

    shown: list[Sample]
    total: int
    lacking: int = 0
    """Prompts with an answer from before or after training alone."""

    @property
    def outcomes(self) -> list[str]:
        """Those that occur, in the order of the filter."""
        known = {sample.outcome for sample in self.shown}
        return [name for name in ("better", "worse", "same") if name in known]


def samples_of(documents: Sequence[Document], answered: Iterable[tuple[Document, Document]] = ()) -> Samples:
    """The answers of every `samples.jsonl`, then those that were scored, as many as a page can hold."""
    shown: list[Sample] = []
    total, room = 0, BUDGET
    rows = chain.from_iterable(one.data["rows"] for one in documents if one.kind == "samples")
    for row in chain(rows, chain.from_iterable(_scored(*pair) for pair in answered)):
        total += 1
        if room > 0:
            sample = _sample(total, row)
            room -= _bytes(sample)
            shown += [sample] if room > 0 else []
    return Samples(shown, total, sum(one.data["lacking"] for one in documents if one.kind == "samples"))


def _scored(base: Document, method: Document) -> list[dict[str, Any]]:
    """The answers behind two results, by item; none where their files are gone, or hold something else."""
    try:
        before, after = (
            {str(row["id"]): row for row in read_jsonl(str(one.provenance()["file"]))} for one in (base, method)
        )
        correct = [{str(item["id"]): bool(item["correct"]) for item in one.data["items"]} for one in (base, method)]
        return [
            {
                "prompt": TASKS[method.task].prompt(before[name]),
                "before": str(before[name]["output"]),
                "after": str(after[name]["output"]),
                "before_correct": correct[0][name],
                "after_correct": correct[1][name],
            }
            for name in before
            if name in after and all(name in of for of in correct)
        ]
    except (BadInput, KeyError, NotImplementedError):
        return []


def marked(before: str, after: str) -> tuple[Marked, Marked]:
    """Both texts in pieces; joined again they are the texts."""
    sides = [WORD.findall(text) for text in (before, after)]
    old, new = ([word.strip() for word in side] for side in sides)
    matcher = SequenceMatcher(None, old, new)
    pieces: tuple[Marked, Marked] = ([], [])
    for tag, a0, a1, b0, b1 in matcher.get_opcodes():
        for side, (start, end) in enumerate(((a0, a1), (b0, b1))):
            if start < end:
                pieces[side].append(("".join(sides[side][start:end]), tag != "equal"))
    return pieces


def prompt_text(prompt: Any) -> str:
    """A prompt as one text; of messages each with its role."""
    if isinstance(prompt, str):
        return prompt
    if not isinstance(prompt, list):
        return str(prompt)
    said = [(one.get("role", ""), one.get("content", "")) if isinstance(one, dict) else ("", one) for one in prompt]
    return "\n\n".join(str(text) if len(said) == 1 else f"{role}: {text}" for role, text in said)


def _sample(number: int, row: dict[str, Any]) -> Sample:
    texts = [prompt_text(row["prompt"]), row["before"], row["after"]]
    prompt, before, after = (text[:LONGEST] for text in texts)
    scores: Sequence[Any] = [row.get("before_correct"), row.get("after_correct")]
    known = all(isinstance(score, int | float) for score in scores)
    outcome = ("better" if scores[1] > scores[0] else "worse" if scores[1] < scores[0] else "same") if known else ""
    return Sample(number, prompt, *marked(before, after), outcome, any(len(text) > LONGEST for text in texts))


def _bytes(sample: Sample) -> int:
    """About what the sample takes on the page."""
    sides = [*sample.before, *sample.after]
    texts = [sample.prompt, *(text for text, _ in sides)]
    return 420 + sum(len(text.encode("utf-8", "replace")) for text in texts) + 11 * sum(new for _, new in sides)
