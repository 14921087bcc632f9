"""The items of WildBench v2: a conversation whose last turn asks, a checklist, tags."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from bnf_align.evaluation.task import Row
from bnf_align.evaluation.wb_formulas import GROUP_OF_TAG, groups_of
from bnf_align.records import BadInput

Tags = Mapping[str, Any] | Iterable[Row]
"""Session id -> its tags, primary first (a list, or `primary_tag` and `secondary_tags`); or rows with the id."""

SPEAKERS = {"user": "USER", "assistant": "ASSISTANT"}


def read_items(rows: Iterable[Row]) -> Iterator[Row]:
    """Items (`id`, `conversation_input`, `checklist`, `primary_tag`, `secondary_tags`, `intent`).

    Raises:
        BadInput: If a row has no id, or no conversation that ends with the user.
    """
    for number, row in enumerate(rows):
        name = session(row)
        turns = [{"role": turn["role"], "content": turn["content"]} for turn in row.get("conversation_input", [])]
        if name is None or not turns or turns[-1]["role"] != "user":
            raise BadInput(
                f"Row {number} is no task of WildBench: it needs `session_id` and a `conversation_input` that ends "
                f"with a turn of the user, and has {', '.join(row)}. Give rows of the v2 data set with --data FILE."
            )
        yield {
            "id": name,
            "conversation_input": turns,
            "checklist": list(row.get("checklist", [])),
            "primary_tag": row.get("primary_tag"),
            "secondary_tags": list(row.get("secondary_tags") or []),
            "intent": row.get("intent"),
        }


def session(row: Row) -> str | None:
    """The item a row speaks of: `id` is that of the judgment where a judgment of ours has one."""
    return next((str(row[key]) for key in ("item", "session_id", "id") if key in row), None)


def judge_fields(item: Row) -> dict[str, str]:
    """`history`, `user_query` and `checklist` as upstream's src/eval.py writes them into its template."""
    *before, last = item["conversation_input"]
    return {
        "history": "".join(
            f"{SPEAKERS[turn['role']]}: {turn['content']}\n\n" for turn in before if turn["role"] in SPEAKERS
        ),
        "user_query": last["content"],
        "checklist": "".join(f"- {point}\n" for point in item["checklist"]),
    }


def tags_of(row: Row) -> list[str] | None:
    """The tags of an item or a judgment, primary first; None where it has none."""
    return [row["primary_tag"], *(row.get("secondary_tags") or [])] if row.get("primary_tag") else None


def tag_table(tags: Tags) -> dict[str, list[str]]:
    """Session id -> tags, primary first.

    Raises:
        BadInput: If they are no texts.
    """
    if isinstance(tags, Mapping):
        return {str(name): found for name, value in tags.items() if (found := _listed(value))}
    return {str(session(row)): found for row in tags if (found := _listed(row.get("tags", row)))}


def _listed(value: Any) -> list[str] | None:
    if isinstance(value, Mapping):
        return tags_of(dict(value))
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(tag, str) for tag in found):
        raise BadInput(f"{value!r} is no task tag, and no list of them: mend the file of --tags.")
    return found


def item_groups(items: Sequence[str], tags: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """The task groups of each item.

    Raises:
        BadInput: If a tag is not one of WildBench's 12.
    """
    if odd := sorted({tag for item in items for tag in tags[item]} - GROUP_OF_TAG.keys()):
        raise BadInput(
            f"WildBench has no tag {', '.join(map(repr, odd))}, so the items that carry it are in no group. Its tags "
            f"are {', '.join(GROUP_OF_TAG)}: mend the file of --tags."
        )
    return [groups_of(tags[item][0], tags[item][1:]) for item in items]
