"""What a judge of WildBench decided between two outputs."""

from __future__ import annotations

from typing import Any

CHOICES = {"A++": 2, "A+": 1, "A=B": 0, "B+": -1, "B++": -2}
"""The judge's choice -> how far response A is ahead of B."""


def read_choice(value: Any) -> int | None:
    """How far response A is ahead, from one of the five choices; None for anything else."""
    return CHOICES.get(value.strip()) if isinstance(value, str) else None
