"""Table 7: what training cost, as planned and as measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bnf_align.report import published
from bnf_align.report.subjects import Subject, sections_of
from bnf_align.report.table import Cell, Column, Row, Section, Table, number

GIB = 2**30
NOT_PLANNED = "not planned"

COLUMNS = (
    Column("Devices"),
    Column("planned", "Device hours"),
    Column("measured", "Device hours"),
    Column("measured", "Seconds"),
    Column("planned", "Peak memory (GiB)"),
    Column("measured", "Peak memory (GiB)"),
)

NOTES = (
    "Planned numbers are estimates made before the run. Hours are of training alone, without the reference pass, and "
    "planned where a plan knows the device's peak (bnf-align plan --tflops T --json).",
    "Memory is per device; on a CPU the measured one is the whole process, libraries included.",
)
HARDWARE = "The paper's hours are of 8 A100-80GB in bfloat16."


def training_costs(subjects: Sequence[Subject], beside: bool = False) -> Table | None:
    """Table 7, from `run.json` and plans. None where there is neither."""
    costly = [subject for subject in subjects if subject.run or subject.plan]
    if not costly:
        return None
    sections = []
    for base, own in sections_of(costly).items():
        rows = [Row(subject.label, _cells(subject)) for subject in own]
        hours = [hours for subject in own if (hours := _measured_hours(subject)) is not None]
        if len(hours) > 1:
            cells = [Cell("")] * 2 + [number(sum(hours), 2)] + [Cell("")] * 3
            rows.append(Row(f"Total of {len(hours)} runs", cells))
        sections.append(Section(base, rows))
    notes = [*NOTES]
    if beside:
        rows = [
            Row(f"{model}, {which}", [Cell("8", 8.0), Cell("–"), Cell(spent, float(spent)), *[Cell("–")] * 3])
            for model, both in published.GPU_HOURS.items()
            for which, spent in zip(("per training", "total"), both, strict=True)
        ]
        sections.append(Section(published.heading("Table 7"), rows, published=True))
        notes += [HARDWARE, published.API_COSTS]
    return Table("7", "Training costs", "Run", list(COLUMNS), sections, notes)


def _cells(subject: Subject) -> list[Cell]:
    run: Mapping[str, Any] = subject.run.data if subject.run else {}
    plan = plan_of(subject)
    hours, flops = plan.get("hours"), plan.get("flops")
    # The plan's own hours also count the reference pass.
    planned = hours["device"] * flops["training"] / sum(flops.values()) if hours and flops else None
    memory, peak = (plan.get("memory_bytes") or {}).get("total"), run.get("peak_memory_bytes")
    return [
        number(run.get("devices", plan.get("devices")), 0),
        number(planned, 2, unknown=NOT_PLANNED),
        number(_measured_hours(subject), 2),
        number(run.get("train_seconds"), 0),
        number(memory and memory / GIB, 2, unknown=NOT_PLANNED),
        number(peak and peak / GIB, 2),
    ]


def plan_of(subject: Subject) -> Mapping[str, Any]:
    """The plan made for the run, or before it; the one with hours, where there are both."""
    own = (subject.run.data.get("plan") if subject.run else None) or {}
    return subject.plan.data if subject.plan and not own.get("hours") else own


def _measured_hours(subject: Subject) -> float | None:
    if subject.run is None:
        return None
    return float(subject.run.data["train_seconds"]) * int(subject.run.data.get("devices", 1)) / 3600
