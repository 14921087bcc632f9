"""Chats as trees of messages: from a rated answer up the parent pointers to the root, and so to its prompt.

Chat products keep a tree: an edited question or a regenerated answer is one more child. The list order of an export
mixes the branches, so only the pointers say what an answer replied to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from bnf_align.records import DataReport
from bnf_align.sources.fields import dicts, inside
from bnf_align.sources.source import Extras, Message, Thumb

Node = Mapping[str, Any]


class Nodes(Protocol):
    """The messages of one conversation or of many, by id; a dict is one."""

    def get(self, key: str, /) -> Any:
        """The message with an id, None without one."""


ROOTS = (None, "", "00000000-0000-0000-0000-000000000000")
"""What stands for "no parent"; the zeros are LibreChat's."""

REASONING = re.compile(
    r'<details\s+type="(?:reasoning|code_interpreter|tool_calls)"[^>]*>.*?(?:</details>|\Z)'
    r"|\A\s*<think(?:ing)?>.*?(?:</think(?:ing)?>|\Z)"
    r"|\A\s*:::thinking\s.*?(?:^:::\s*$|\Z)",
    re.DOTALL | re.IGNORECASE | re.MULTILINE,
)
"""Blocks that were shown folded: Open WebUI's details; at the beginning, for an answer may be about them, the tags of
reasoning models and LibreChat's fences."""


class BrokenThread(ValueError):
    """Why a conversation cannot be rebuilt, as the reason for which its row is left out."""


def without_reasoning(text: str) -> str:
    r"""An answer as the person read it, without the folded blocks before it.

    Example:
        >>> without_reasoning("<think>2 and 2 ...</think>\n\nFour.")
        'Four.'
    """
    folded = ("<" in text or ":::" in text) and REASONING.search(text)
    return REASONING.sub("", text).strip() if folded else text


@dataclass(frozen=True)
class Tree:
    """Where the messages of a product keep their parts."""

    id: str
    parent: str
    role: Callable[[Node], str | None]
    """Whose a message is; "" for one that was not shown, such as a tool's or an empty root; None where it is not
    said."""
    text: Callable[[Node], Any]
    """What it says; anything but a string is a message that is not text."""
    files: Callable[[Node], Any] = lambda node: node.get("files")
    """What came with it, a list of objects with a type."""

    def nodes(self, messages: Iterator[Node]) -> dict[str, Node]:
        """Messages by their ids."""
        return {node[self.id]: node for node in messages if isinstance(node.get(self.id), str)}

    def path(self, nodes: Nodes, leaf: Any) -> list[Node]:
        """The messages from the root of a tree to `leaf`.

        Raises:
            BrokenThread: If a parent is missing or the pointers go in a circle.
        """
        path: list[Node] = []
        seen = set()
        at = leaf
        while at not in ROOTS:
            node = nodes.get(at) if isinstance(at, str) else None
            if isinstance(at, str) and at in seen:
                raise BrokenThread("its thread goes in a circle")
            if not isinstance(node, Mapping):
                raise BrokenThread("a message of its thread is missing" if path else "the answer is not in its thread")
            seen.add(at)
            path.append(node)
            at = node.get(self.parent)
        return path[::-1]

    def message(self, node: Node) -> Message | None:
        """A message; None of one that was not shown.

        Raises:
            BrokenThread: If it cannot be read.
        """
        role = self.role(node)
        if role is None:
            raise BrokenThread("a message that does not say whose it is")
        if not role:
            return None
        if node.get("error") is True:  # older versions put what went wrong in the place of the answer
            raise BrokenThread("an error message in its conversation")
        if any("image" in str(file.get("type")) for file in dicts(self.files(node))):
            raise BrokenThread("an image in its conversation: only text is read")
        text = self.text(node)
        if not isinstance(text, str):
            raise BrokenThread("a message that is not text")
        return {"role": role, "content": without_reasoning(text) if role == "assistant" else text}

    def thumb(
        self,
        number: int,
        nodes: Nodes,
        leaf: Any,
        value: Any,
        chat: Any,
        extras: Extras,
        report: DataReport,
        system: Any = None,
    ) -> Iterator[Thumb]:
        """The rating of a message as a thumb; none, and counted, where its conversation cannot be rebuilt.

        Args:
            number: The record's number.
            nodes: The messages.
            leaf: Id of the one that is rated.
            value: The rating.
            chat: What identifies the conversation: message ids may repeat from one to the next.
            extras: Columns that travel along.
            report: Where what cannot be rebuilt is counted.
            system: The system prompt of the conversation, where the product keeps it beside the messages.
        """
        try:
            path = self.path(nodes, leaf)
            turns = [turn for node in path if (turn := self.message(node)) is not None]
            if not turns or turns[-1]["role"] != "assistant" or self.message(path[-1]) is None:
                raise BrokenThread("what is rated is not an assistant's answer")
        except BrokenThread as error:
            report.drop(str(error), number)
            return
        first = [{"role": "system", "content": system}] if isinstance(system, str) and system.strip() else []
        question = path[-1].get(self.parent)
        yield Thumb(
            number,
            first + turns[:-1],
            turns[-1:],
            value,
            answer=f"{chat}/{leaf}",
            extras=extras,
            question=None if question in (None, "") else f"{chat}/{question}",
        )


def role_at(path: str, roles: Mapping[Any, str] | None = None) -> Callable[[Node], str | None]:
    """Whose a message is, by a field of it: as it stands there, or what its values mean; None for all else."""

    def role(node: Node) -> str | None:
        value = inside(node, path)
        known = value if roles is None else roles.get(value) if isinstance(value, str | bool) else None
        return known if isinstance(known, str) and known else None

    return role
