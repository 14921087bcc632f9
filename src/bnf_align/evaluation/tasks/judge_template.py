"""Templates that a user brings for the judge's question."""

from __future__ import annotations

from collections.abc import Sequence

from bnf_align.records import BadInput


def check_places(template: str, names: Sequence[str]) -> str:
    """`template`, if it has a place for each of `names`, written `{name}` or `{$name}`.

    Raises:
        BadInput: If it has not.
    """
    if missing := [name for name in names if f"{{{name}}}" not in template and f"{{${name}}}" not in template]:
        raise BadInput(
            f"The judge's template has no place for {', '.join(missing)}: the judge would decide without seeing it. "
            f"Write {', '.join(f'{{{name}}}' for name in missing)} where it goes in the file of --judge-template."
        )
    return template
