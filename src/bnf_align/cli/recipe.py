"""A recipe: one YAML mapping, read so that what stands there is what is meant."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from bnf_align.records import BadInput

LARGEST = 2**20
"""Characters of a recipe; the longest of ours has a thousandth."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's plain values: `no` is a text, `010` is one that reads as 10, and `1e-6` is a number."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (as the library declares it)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not read", problem_mark=event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(problem=f"{key!r} is no name", problem_mark=node.value[place][0].start_mark)
            if key in keys[:place]:
                raise yaml.MarkedYAMLError(problem=f"{key} stands twice", problem_mark=node.value[place][0].start_mark)
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?", "-+0123456789."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first))


def read_recipe(path: str | Path) -> dict[str, Any]:
    """The settings in a YAML file.

    Raises:
        BadInput: If it cannot be read, is no mapping of names, has a name twice, or an alias, which could multiply.
    """
    return read_with_lines(path)[0]


def read_with_lines(path: str | Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """The same, and the line that each name stands on, by the names from the outside in."""
    try:
        with Path(path).open(encoding="utf-8") as file:
            text = file.read(LARGEST + 1)
        found = yaml.load(text, _Loader) if len(text) <= LARGEST else None
        lines = dict(_lines(yaml.compose(text, _Loader))) if isinstance(found, dict) else {}
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        said = " ".join(str(error).replace('"<unicode string>", ', "").split())
        raise BadInput(f"--config {path} cannot be read: {said}") from error
    if len(text) > LARGEST:
        raise BadInput(f"--config {path} is longer than {LARGEST:,} characters: it is no recipe.")
    if not isinstance(found, dict):
        raise BadInput(f"--config {path} holds no settings: a recipe is lines of NAME: VALUE.")
    return found, lines


def _lines(node: yaml.Node | None, names: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], int]]:
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        yield (*names, key.value), key.start_mark.line + 1
        yield from _lines(value, (*names, key.value))
