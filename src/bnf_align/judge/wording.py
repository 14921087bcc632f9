"""The wording of a question to a model: a template, its places, and what stands for it in provenance."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence

from bnf_align.records import BadInput


def fill(template: str, fields: Mapping[str, str]) -> str:
    """`template` with `{name}` and `{$name}` replaced, in one pass, so that inserted text is never read as a template.

    Braces around anything but a known name stay as they are: the templates hold JSON.
    """
    names = "|".join(map(re.escape, fields))
    return re.sub(rf"\{{\$?({names})\}}", lambda match: fields[match.group(1)], template)


def wording(template: str | None, ours: str) -> str:
    """What stands for the wording in provenance: the hash of a template, marked as ours where it is ours."""
    text = ours if template is None else template
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"ours:{digest}" if text == ours else digest


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
