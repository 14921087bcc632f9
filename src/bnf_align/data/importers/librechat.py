"""LibreChat: the conversation that "Export" writes as JSON, or the messages of its database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bnf_align.data.importers.files import first_record, records_of
from bnf_align.data.importers.importer import Importer, Message, Options, Thumb
from bnf_align.data.importers.shape import dicts, filled, mapping
from bnf_align.data.importers.shelf import Shelf
from bnf_align.data.importers.threads import BrokenThread, Node, Nodes, path_to, prompt_and_answer, without_reasoning
from bnf_align.records import DataReport


class LibreChat(Importer):
    """One conversation a file, `{"conversationId", "title", "messages": [...]}`, or `"messagesTree"` with `children`.

    Or the collection `messages` as `mongoexport` writes it, conversations mixed. A message is

        {"messageId", "conversationId", "parentMessageId", "isCreatedByUser", "sender", "model", "user", "createdAt",
         "text": ..., or "content": [{"type": "text", "text": ... | {"value": ...}}, {"type": "think", ...}, ...],
         "feedback": {"rating": "thumbsUp" | "thumbsDown", "tag", "text"}}

    The parent of the first is 00000000-0000-0000-0000-000000000000; the system prompt of a conversation is
    `options.promptPrefix`, which messages of the database lack. Tool calls and thoughts are not part of an answer;
    what is `unfinished`, and a conversation with an error or an image, is left out.

    Source: danny-avila/LibreChat, packages/data-provider/src/feedback.ts (the ratings),
    packages/data-schemas/src/schema/message.ts, client/src/hooks/Conversations/useExportConversation.ts.
    """

    name = "librechat"
    title = "a LibreChat export"
    VALUES: ClassVar = {"thumbsUp": "up", "thumbsDown": "down"}

    def matches(self, record: Any, path: Path) -> bool:
        """A conversation or a message, by the names of its ids."""
        if _is_conversation(record):
            return "conversationId" in record
        return {"messageId", "parentMessageId", "isCreatedByUser"} <= record.keys()

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb]:
        """A thumb per message with feedback."""
        conversations = [path for path in paths if _is_conversation(first_record(path))]
        for number, record in records_of(conversations):
            nodes, system = _by_id(_messages(record)), mapping(record.get("options")).get("promptPrefix")
            for message in nodes.values():
                yield from _thumb(number, message, nodes, report, system)
        collections = [path for path in paths if path not in conversations]
        if collections:
            every = (message for _, message in records_of(collections))
            shelf = Shelf((message.get("messageId"), None, message) for message in every)
            for number, message in records_of(collections):
                yield from _thumb(number, message, shelf, report)


def _is_conversation(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("messages"), list) or isinstance(record.get("messagesTree"), list)


def _messages(record: Mapping[str, Any]) -> Iterator[Node]:
    """The messages of a conversation, those of a tree from the top down."""
    waiting = dicts(record.get("messages")) + dicts(record.get("messagesTree"))
    while waiting:
        message = waiting.pop(0)
        yield message
        waiting = dicts(message.get("children")) + waiting


def _by_id(messages: Iterator[Node]) -> dict[str, Node]:
    return {message["messageId"]: message for message in messages if isinstance(message.get("messageId"), str)}


def _rating(message: Node) -> Any:
    return mapping(message.get("feedback")).get("rating")


def _thumb(number: int, message: Node, nodes: Nodes, report: DataReport, system: Any = None) -> Iterator[Thumb]:
    if _rating(message) is None:
        return
    conversation, parent = message.get("conversationId"), message.get("parentMessageId")
    try:
        if message.get("unfinished") is True:
            raise BrokenThread("an answer that was stopped before its end: it would teach to stop there")
        path = path_to(nodes, message.get("messageId"), "parentMessageId")
        prompt, answer = prompt_and_answer(path, _message, system)
    except BrokenThread as error:
        report.drop(str(error), number)
        return
    yield Thumb(
        number,
        prompt,
        answer,
        _rating(message),
        answer=f"{conversation}/{message.get('messageId')}",
        extras=filled(
            id=message.get("messageId"),
            created_at=_date(message.get("createdAt")),
            rater=message.get("user"),
            model=message.get("model"),
            reason=_reason(mapping(message["feedback"])),
        ),
        question=f"{conversation}/{parent}",
    )


def _message(node: Node) -> Message:
    if not isinstance(node.get("isCreatedByUser"), bool):
        raise BrokenThread("a message that does not say whose it is")
    if node.get("error") is True:
        raise BrokenThread("an error message in its conversation")
    if any("image" in str(part.get("type")) for part in dicts(node.get("files")) + dicts(node.get("content"))):
        raise BrokenThread("an image in its conversation: only text is read")
    if node["isCreatedByUser"]:
        return {"role": "user", "content": _text(node)}
    return {"role": "assistant", "content": without_reasoning(_text(node))}


def _text(node: Node) -> str:
    """The text of a message: its parts of type text, or where it has no parts its `text`."""
    parts = [part.get("text") for part in dicts(node.get("content")) if part.get("type") == "text"]
    texts = [mapping(part).get("value") if isinstance(part, dict) else part for part in parts] or [node.get("text")]
    if not all(isinstance(text, str) for text in texts):
        raise BrokenThread("a message that is not text")
    return "\n\n".join(str(text) for text in texts)


def _reason(feedback: Mapping[str, Any]) -> str | None:
    """Why: the chosen tag, which some versions store whole, and the person's words."""
    tag = mapping(feedback.get("tag")).get("key") or feedback.get("tag")
    return ": ".join(part for part in (tag, feedback.get("text")) if isinstance(part, str) and part.strip()) or None


def _date(value: Any) -> Any:
    return value.get("$date") if isinstance(value, dict) else value
