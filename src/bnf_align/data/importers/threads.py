"""Conversations as messages: from a rated answer up the parent pointers to the root, and so to its prompt.

Chat products keep a tree: an edited question or a regenerated answer is one more child. The list order of an export
mixes the branches, so only the pointers say what an answer replied to.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from bnf_align.data.importers.importer import Message

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


def path_to(nodes: Nodes, leaf: Any, parent_key: str) -> list[Node]:
    """The nodes from the root of a tree to `leaf`.

    Args:
        nodes: Id -> node, of one conversation or of many.
        leaf: Id of the last one.
        parent_key: Where a node has its parent's id.

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
            raise BrokenThread("the answer is not in its thread" if not path else "a message of its thread is missing")
        seen.add(at)
        path.append(node)
        at = node.get(parent_key)
    return path[::-1]


def prompt_and_answer(
    nodes: list[Node], message: Callable[[Node], Message], system: Any = None
) -> tuple[list[Message], list[Message]]:
    """The nodes of a path as prompt and answer, the last one.

    Args:
        nodes: From the root on.
        message: What a node says.
        system: The system prompt of the conversation, where the product keeps it beside the messages.

    Raises:
        BrokenThread: If the answer is not the assistant's, or `message` cannot read a node.
    """
    messages = [message(node) for node in nodes]
    if not messages or messages[-1]["role"] != "assistant":
        raise BrokenThread("what is rated is not an assistant's answer")
    first = [{"role": "system", "content": system}] if isinstance(system, str) and system.strip() else []
    return first + messages[:-1], messages[-1:]


def without_reasoning(text: str) -> str:
    r"""An answer as the person read it, without the folded blocks before it.

    Example:
        >>> without_reasoning("<think>2 and 2 ...</think>\n\nFour.")
        'Four.'
    """
    folded = ("<" in text or ":::" in text) and REASONING.search(text)
    return REASONING.sub("", text).strip() if folded else text
