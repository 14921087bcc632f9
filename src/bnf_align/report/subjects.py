"""Which row of a table a result belongs to: by the user's word, by its run, or by the model's own name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bnf_align.records import BadInput
from bnf_align.report.inputs import Document

BASE = "Base"
OTHERS = "Other models"

METHODS = {
    "sft": "SFT",
    "slic_hf": "SLiC-HF",
    "dpo": "DPO",
    "ipo": "IPO",
    "kto": "KTO",
    "rdpo": "R-DPO",
    "orpo": "ORPO",
    "simpo": "SimPO",
    "dpo_norm": "DPO-norm",
    "rpo": "RPO",
    "apo_zero": "APO-zero",
    "bco": "BCO",
    "topr": "TOPR",
    "w_reinforce": "W-REINFORCE",
    "npo": "NPO",
    "nll_pll": "NLL-PLL",
    "bnf": "BNF",
    "bnf_asymmetric": "BNF, asymmetric",
    "bnf_contrastive": "BNF, contrastive",
}
"""The name of each loss in its paper, for rows that are named by their run."""


def method_of(loss: str) -> str:
    """How a loss is called in tables and on the page."""
    return METHODS.get(loss, loss)


@dataclass
class Subject:
    """One row: a model, with everything that is known of it."""

    label: str
    section: str = ""
    """The base model, over whose methods Tables 4 to 6 rank."""
    base: bool = False
    results: dict[str, Document] = field(default_factory=dict)
    """By task."""
    pools: dict[str, tuple[Document, str]] = field(default_factory=dict)
    """By task: the ranking that holds the model, and its name there."""
    run: Document | None = None
    plan: Document | None = None

    @property
    def title(self) -> str:
        """How messages call the row."""
        return f"{self.section}:{self.label}" if self.section else self.label

    def models(self) -> set[str]:
        """The names under which results and rankings may speak of this model."""
        names = {str(model) for found in self.results.values() if (model := found.provenance().get("model"))}
        if self.run:
            names |= {str(self.run.path.parent), str(self.run.data["arguments"].get("output_dir"))}
        return names

    def documents(self) -> list[Document]:
        """Every document that the row's numbers come from."""
        pools = [pool for pool, _ in self.pools.values()]
        return [*self.results.values(), *pools, *filter(None, (self.run, self.plan))]

    def add(self, document: Document) -> None:
        """Take in a result, a run or a plan.

        Raises:
            BadInput: If the row has another one of that kind.
        """
        if document.kind == "result":
            held: Document | None = self.results.setdefault(document.task, document)
        elif document.kind == "run":
            self.run = held = self.run or document
        else:
            self.plan = held = self.plan or document
        if held is not None and held.data != document.data:
            what = f"{document.kind}s{' of ' + document.task if document.task else ''}"
            raise BadInput(
                f"The row {self.title!r} has two {what}: {held.path} and {document.path}. One row has one number: "
                "leave one out, or give each a row with --rows NAME=FILE_OR_FOLDER."
            )


def collect(
    documents: Iterable[Document],
    named: Mapping[str, Sequence[Document]] | None = None,
    base: str | None = None,
) -> list[Subject]:
    """The rows of a report.

    Args:
        documents: What names itself: a result by the run that made its model (section: the run's base model, label:
            its method), else by the model's own name.
        named: Row -> its documents; `SECTION:LABEL` or a label alone. A row labelled `Base` is its section's base.
        base: The model, as results call it, that the others are compared with.

    Raises:
        BadInput: If a result names no model, or a row would have two numbers of a kind.
    """
    documents = list(documents)
    subjects = [_named(name, found) for name, found in (named or {}).items()]
    runs = [document for document in documents if document.kind == "run"]
    subjects += _of_runs(runs)
    for document in documents:
        if document.kind == "result":
            _own(document, subjects, runs).add(document)
        if document.kind == "plan":
            raise BadInput(
                f"{document.path} is a plan, which names no run: say whose with --rows NAME={document.path}."
            )
    for subject in subjects:
        subject.base = subject.base or (base is not None and any(same(base, name) for name in subject.models()))
    if base is not None and not any(subject.base for subject in subjects):
        known = ", ".join(sorted(name for subject in subjects for name in subject.models()))
        raise BadInput(f"--base {base}: no result is of that model. There are {known or 'none'}.")
    _pools([*documents, *(one for found in (named or {}).values() for one in found)], subjects)
    return sorted(subjects, key=lambda subject: not subject.base)


def sections_of(subjects: Iterable[Subject]) -> dict[str, list[Subject]]:
    """Base model -> its rows, in their order; those of no known base come last."""
    subjects = list(subjects)
    sections: dict[str, list[Subject]] = {one.section: [] for one in subjects if one.section}
    others = OTHERS if sections else ""
    for subject in subjects:
        sections.setdefault(subject.section or others, []).append(subject)
    return sections


def same(one: str, other: str) -> bool:
    """Whether two names mean one model; a folder may be written in several ways."""
    return one == other or os.path.abspath(one) == os.path.abspath(other)


def _named(name: str, documents: Sequence[Document]) -> Subject:
    section, _, label = name.rpartition(":")
    subject = Subject(label.strip(), section.strip(), label.strip().lower() == BASE.lower())
    for document in documents:
        if document.kind in ("result", "run", "plan"):
            subject.add(document)
    return subject


def _of_runs(runs: Sequence[Document]) -> list[Subject]:
    """A row per run, called after its loss; after its folder where a base model has several runs of that loss."""
    losses = Counter((str(run.data.get("model")), run.data["loss_type"]) for run in runs)
    subjects = []
    for run in runs:
        model, loss = str(run.data.get("model")), str(run.data["loss_type"])
        label = method_of(loss) if losses[model, loss] == 1 else run.path.parent.name
        subjects.append(Subject(label, model, run=run))
    return subjects


def _own(result: Document, subjects: list[Subject], runs: Sequence[Document]) -> Subject:
    """The row of a result that no `--rows` names, made where there is none yet."""
    model = result.provenance().get("model")
    if not model:
        raise BadInput(f"{result.path} does not say which model it is of: say it with --rows NAME={result.path}.")
    for subject in subjects:
        if any(same(model, name) for name in subject.models()):
            return subject
    based = [str(run.data.get("model")) for run in runs if same(model, str(run.data.get("model")))]
    subject = Subject(BASE, based[0], base=True) if based else Subject(str(model))
    subjects.append(subject)
    return subject


def _pools(documents: Iterable[Document], subjects: Sequence[Subject]) -> None:
    for document in documents:
        for model in document.models:  # of a ranking; others have none
            for subject in subjects:
                if any(same(model, name) for name in subject.models()):
                    held, _ = subject.pools.setdefault(document.task, (document, model))
                    if held.data != document.data:
                        raise BadInput(
                            f"{subject.title!r} is in two rankings of {document.task}, {held.path} and "
                            f"{document.path}: what depends on the pool has one value per pool. Leave one out."
                        )
