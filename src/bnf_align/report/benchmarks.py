"""Table 3: what the two judged benchmarks are like, from their items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from bnf_align.evaluation.items import load_items
from bnf_align.evaluation.task import Message
from bnf_align.evaluation.tasks import TASKS
from bnf_align.records import BadInput
from bnf_align.report import published
from bnf_align.report.subjects import Subject
from bnf_align.report.table import NOT_MEASURED, Cell, Column, Row, Section, Table, number

COLUMNS = ("#Tasks", "#Turns", "ChatHistory", "QueryLen", "PromptLen", "RealUser", "Evaluation")
OURS = ("Judge", "Baseline")
"""Columns that the paper says in its text."""

# What no file of items says: whether users asked, and how answers are judged.
FACTS = {"arena_hard": ("Arena-Hard", "✓", "Pair"), "wild_bench": ("Wild-Bench", "✓", "Score+Pair")}

LENGTHS = (
    "QueryLen is the mean number of characters of the user's last turn, PromptLen that of the whole conversation."
)


def benchmark_statistics(
    data: Mapping[str, str | Path], subjects: Sequence[Subject] = (), beside: bool = False
) -> Table | None:
    """Table 3, with the judge and the baseline of the results. None where `data` is empty.

    Args:
        data: Task -> file of its items.
        subjects: The rows of the report.
        beside: Add the paper's rows.

    Raises:
        BadInput: If a task is not one of Table 3's, or a file does not hold its items.
    """
    if not data:
        return None
    if odd := sorted(set(data) - set(FACTS)):
        raise BadInput(f"Table 3 is about {' and '.join(FACTS)}, not {', '.join(odd)}: --data arena_hard=FILE.")
    sections = [Section("", [_row(task, data.get(task), subjects) for task in FACTS])]
    if beside:
        rows = [
            Row(FACTS[task][0], [Cell(text) for text in (*texts, *published.JUDGES[task])])
            for task, texts in published.BENCHMARKS.items()
        ]
        sections.append(Section(published.heading("Table 3"), rows, published=True))
    columns = [Column(name) for name in COLUMNS + OURS]
    return Table("3", "Statistics of the judged benchmarks", "Data set", columns, sections, [LENGTHS])


def _row(task: str, path: str | Path | None, subjects: Sequence[Subject]) -> Row:
    label, real, evaluation = FACTS[task]
    # The prompt of these two tasks is the user's own text, with nothing around it.
    asked = [TASKS[task].prompt(item) for item in load_items(TASKS[task], path)] if path else []
    measured = conversation_cells(asked) if path else [Cell(NOT_MEASURED)] * 5
    results = [subject.results[task].provenance() for subject in subjects if task in subject.results]
    used = [sorted({str(found[key]) for found in results if found.get(key)}) for key in ("judge", "baseline")]
    named = [Cell(", ".join(names) or "–") for names in used]
    return Row(label, [*measured, Cell(real), Cell(evaluation), *named])


def conversation_cells(conversations: Sequence[Sequence[Message]]) -> list[Cell]:
    """Number of conversations, most turns of a user, whether there is history, mean lengths in characters."""
    turns = max(sum(message["role"] == "user" for message in messages) for messages in conversations)
    query = mean(len(messages[-1]["content"]) for messages in conversations)
    prompt = mean(sum(len(message["content"]) for message in messages) for messages in conversations)
    history = any(len(messages) > 1 for messages in conversations)
    return [
        number(len(conversations), 0),
        Cell(f"≤{turns}" if turns > 1 else "1", float(turns)),
        Cell("✓" if history else "×"),
        number(query, 0),
        number(prompt, 0),
    ]
