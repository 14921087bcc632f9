"""The columns of Table 4: where a number comes from, what has to be said of it, and what it may stand beside."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnf_align.report.inputs import Document
from bnf_align.report.subjects import Subject
from bnf_align.report.table import WITHHELD, Cell, Column, Section, number

OURS, UNKNOWN, PART = "†", "‡", "§"

NOTES = {
    OURS: "† made with our own wording of the prompt or of the judge's instructions, not upstream's: comparable with "
    "numbers made the same way, not with published ones.",
    UNKNOWN: "‡ the files do not say which wording was used.",
    PART: "§ over a part of the benchmark's items.",
}

JUDGED = 0.99
"""Share of a judged benchmark's items that need a verdict: published runs lack up to 3 of 1,024."""


@dataclass(frozen=True)
class Measure:
    """One benchmark number of a model."""

    task: str
    metric: str
    column: Column
    items: int
    """Of the whole benchmark."""
    judge: str | None = None
    """The paper's, where there is one."""
    digits: int = 1
    pooled: bool = False
    """Whether it depends on the other models it was computed with, so that it comes from a ranking."""
    worded: bool = True
    """Whether the wording moves it. Lengths are of answers to the users' own prompts, which nobody has worded."""

    @property
    def name(self) -> str:
        """How notes call it."""
        return f"{self.column.group} {self.column.name}".removesuffix(" (%)").removesuffix(" Acc")

    def source(self, subject: Subject) -> tuple[Document, str | None] | None:
        """The document that would hold the subject's number, and the subject's name in it if it is a ranking."""
        if not self.pooled and self.task in subject.results:
            return subject.results[self.task], None
        return subject.pools.get(self.task)

    def value(self, subject: Subject) -> float | None:
        """The subject's number, unrounded; None where it was not measured."""
        source = self.source(subject)
        return source[0].metric(self.metric, source[1]) if source else None

    def cell(self, subject: Subject) -> Cell:
        """The number as printed, with the signs of what has to be said of it."""
        return number(self.value(subject), self.digits, self.marks(subject))

    def marks(self, subject: Subject) -> str:
        """Signs of `NOTES`."""
        used = self.wording(subject)
        said = [*used, str(self.provenance(subject).get("follow_up", ""))]
        sign = UNKNOWN if not used else OURS if any("ours:" in text for text in said) else ""
        sign = sign if self.worded else ""
        scored = self._scored(subject)
        whole = scored is None or scored >= self.items * (JUDGED if self.judge else 1)
        return sign if whole else sign + PART

    def wording(self, subject: Subject) -> list[str]:
        """The hashes of the templates that the number was made with."""
        found = self.provenance(subject)
        return [str(found[key]) for key in ("template", "judge_template") if found.get(key)]

    def provenance(self, subject: Subject) -> dict[str, Any]:
        """What is recorded of the number, by the model's own result where a ranking is silent."""
        source, own = self.source(subject), subject.results.get(self.task)
        found = source[0].provenance(source[1]) if source else {}
        return (own.provenance() if own else {}) | {key: value for key, value in found.items() if value is not None}

    def protocol(self, subject: Subject) -> dict[str, Any]:
        """What two numbers must share to be ranked against each other."""
        source, found = self.source(subject), self.provenance(subject)
        if source is None:
            return {}
        if self.pooled:
            return {"pool": source[0].file}
        return {
            "task version": source[0].data.get("version"),
            "wording": ", ".join(self.wording(subject)) or None,
            "judge": found.get("judge"),
            "baseline": found.get("baseline"),
            "number of items": self._scored(subject) if PART in self.marks(subject) else "all",
        }

    def _scored(self, subject: Subject) -> float | None:
        source = self.source(subject)
        return source[0].metric("total", source[1]) if source else None

    def unlike_published(self, subjects: Iterable[Subject]) -> str | None:
        """Why the subjects' numbers cannot stand beside the paper's; None where they can, or there are none."""
        measured = [subject for subject in subjects if self.value(subject) is not None]
        marks = {sign for subject in measured for sign in self.marks(subject)}
        judges = {str(self.provenance(subject).get("judge") or "not recorded") for subject in measured}
        # The published judge, by its name or as one of its dated versions.
        known = re.compile(rf"{re.escape(self.judge or '')}(-\d{{4}}-\d\d-\d\d)?")
        others = [judge for judge in judges if self.judge and not known.fullmatch(judge)]
        if measured and self.pooled:
            return "the number depends on the pool of models"
        if OURS in marks:
            return "yours was made with our own wording"
        if UNKNOWN in marks:
            return "yours does not say its wording"
        if PART in marks:
            return "yours is over a part of the items"
        return f"the judge of yours is {', '.join(sorted(others))}, the paper's {self.judge}" if others else None


ELO = Measure("wild_bench", "wb_elo", Column("Elo", "Wild-Bench"), 1024, "gpt-4o", digits=0, pooled=True)
REASONING = tuple(
    Measure(task, "accuracy", Column("Acc (%)", group), items)
    for task, group, items in (
        ("gsm8k", "GSM8K", 1319),
        ("math_l5", "MATH", 721),
        ("crux", "CRUX", 800),
        ("mmlu_redux", "MMLU", 2778),
    )
)
MEASURES: Sequence[Measure] = (
    ELO,
    Measure("wild_bench", "wb_score", Column("Score", "Wild-Bench"), 1024, "gpt-4o"),
    Measure("arena_hard", "win_rate_lc", Column("LC (%)", "Arena-Hard"), 500, "gpt-4o-mini", pooled=True),
    Measure("arena_hard", "win_rate", Column("WR (%)", "Arena-Hard"), 500, "gpt-4o-mini"),
    *REASONING,
)
LENGTHS: Sequence[Measure] = (
    Measure("wild_bench", "average_length", Column("WB (characters)"), 1024, digits=0, worded=False),
    Measure("arena_hard", "average_tokens", Column("AH (tokens)"), 500, digits=0, worded=False),
)

PAPERS = {measure.task for measure in MEASURES}
KNOWN = {"held_out": ("accuracy", "auc_per_token"), "ifeval": ("prompt_strict", "instruction_strict")}
"""Task -> which of its numbers are shown."""


def own_measures(subjects: Iterable[Subject]) -> list[Measure]:
    """Of tasks that are none of the paper's: of a user's own one its `accuracy`, or else every number that it has."""
    found: dict[Measure, None] = {}
    for subject in subjects:
        for task, result in subject.results.items():
            metrics = result.data["metrics"]
            names = KNOWN.get(task) or (("accuracy",) if "accuracy" in metrics else tuple(metrics))
            for name in () if task in PAPERS else names:
                if isinstance(metrics.get(name), int | float) and name != "total":
                    title = f"{name.replace('_', ' ')}{' (%)' if task in KNOWN or name == 'accuracy' else ''}"
                    found[Measure(task, name, Column(title, task), 0, worded=task != "held_out")] = None
    return list(found)


def notes_of(sections: Iterable[Section]) -> list[str]:
    """The notes that explain the signs on the cells of `sections`."""
    signs = {sign for section in sections for row in section.rows for cell in row.cells for sign in cell.marks}
    return [text for sign, text in NOTES.items() if sign in signs]


def withheld_notes(reasons: Mapping[str, str]) -> list[str]:
    """Why numbers of the paper are not shown, from measure -> reason."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return [f"{WITHHELD} in {', '.join(of)}, the paper's is not shown: {reason}." for reason, of in names.items()]
