"""The items of a task: from its data set on the hub at a fixed revision, or from a file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bnf_align.data.read import dataset_rows, iter_rows
from bnf_align.evaluation.task import Row, Task
from bnf_align.records import BadInput


def load_items(task: Task, data: str | Path | None = None, limit: int | None = None) -> list[Row]:
    """Items of `task`, in the order of their source.

    Args:
        task: The benchmark.
        data: A file of its items (`--data`); None takes its data set from the hub, at the revision the task names.
        limit: The first so many items.

    Raises:
        BadInput: If there are none, two share an id, or the hub cannot be reached.
    """
    items = task.items(iter_rows(data) if data else _hub_rows(task))
    ids = [item["id"] for item in items]
    if len(set(ids)) < len(ids):
        twice = next(name for name in ids if ids.count(name) > 1)
        raise BadInput(
            f"{data or task.hub.dataset}: {len(ids) - len(set(ids)):,} items repeat an id, the first {twice!r}. "
            "Answers are filed by id: give every item its own, or leave `id` out to number them."
        )
    if not items:
        raise BadInput(f"{data or task.hub.dataset} has no items of {task.name}.")
    return items[:limit]


def _hub_rows(task: Task) -> Iterator[Row]:
    import datasets

    hub = task.hub
    try:
        configs: list[Any] = [hub.config] if hub.config else datasets.get_dataset_config_names(hub.dataset)
        for config in configs:
            loaded = datasets.load_dataset(hub.dataset, config, split=hub.split, revision=hub.revision)
            yield from ({"config": config, **row} for row in dataset_rows(loaded))
    except Exception as error:  # what the hub raises differs with the cause: offline, gated, renamed
        raise BadInput(
            f"{hub.dataset} ({hub.config or 'all configurations'}, revision {hub.revision}) could not be read from "
            f"the hub: {type(error).__name__}: {str(error)[:200]}. Give its rows as a file with --data FILE."
        ) from error
