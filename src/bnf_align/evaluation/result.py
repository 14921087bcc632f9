"""What scoring a file of outputs or judgments gives."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from bnf_align.records import rows_text

Metrics = dict[str, float | int | None]


@dataclass
class EvalResult:
    """One model's numbers on one task, what each item got, and what was left out.

    A number never travels alone: `provenance` says which model, task version, wording, judge, seed and command made
    it, as far as the files say so.
    """

    task: str
    version: int
    """Of the task's rules: a change that can move a number raises it."""
    metrics: Metrics = field(default_factory=dict)
    """Per cent, characters or counts, named as in the published tables; None where something needed is missing."""
    items: list[dict[str, Any]] = field(default_factory=list)
    """One per item: `id` and its verdict (`correct`, `answer`; `score`; `games`)."""
    dropped: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> ids of what does not count."""
    notes: list[str] = field(default_factory=list)
    """How something was read, each said once."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """`model`, `template` (sha256 of the wording, or "ours"), `judge`, `seed`, `command`, `file`."""

    def drop(self, reason: str, item: str) -> None:
        """Count `item` as left out for `reason`."""
        self.dropped.setdefault(reason, []).append(item)

    def as_dict(self) -> dict[str, Any]:
        """The result as one JSON object."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The result in plain words, one number a line."""
        model = self.provenance.get("model") or "unknown model"
        lines = [f"{self.task} (version {self.version}): {model}"]
        lines += [f"  {name:<16} {_shown(value)}" for name, value in self.metrics.items()]
        lines += [f"  left out {rows_text(ids)}: {reason}" for reason, ids in self.dropped.items()]  # type: ignore[arg-type]
        return lines + [f"  note: {note}" for note in self.notes]


def _shown(value: float | int | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
