"""What flags and YAML keys of the form NAME=VALUE say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bnf_align.records import BadInput


def assignments(flag: str, values: list[str] | Mapping[str, Any] | None) -> dict[str, str]:
    """`["good=up", "bad=down"]`, or the mapping that a YAML file gives, as a dict.

    Raises:
        BadInput: If an entry is not NAME=VALUE, or two say different things of one name.
    """
    if values is None or isinstance(values, Mapping):
        return {str(name): str(value) for name, value in (values or {}).items()}
    pairs = [entry.strip().rpartition("=") for entry in values]
    may_be_empty = flag == "label_map"  # an empty cell is ''=drop, of which a shell leaves =drop
    wrong = [
        entry
        for entry, (name, equals, value) in zip(values, pairs, strict=True)
        if not equals or not value or not (name or may_be_empty)
    ]
    if wrong:
        raise BadInput(f"--{flag} takes NAME=VALUE, got {wrong[0]!r}.")
    found: dict[str, str] = {}
    for name, _, value in pairs:
        if found.setdefault(name, value) != value:
            raise BadInput(f"--{flag} says two things of {name!r}: {found[name]} and {value}. Keep one of them.")
    return found
