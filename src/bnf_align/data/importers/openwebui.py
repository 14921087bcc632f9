"""Open WebUI: the export of all feedback (Admin, Evaluations), or chats whose messages are rated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bnf_align.data.importers.files import records_of
from bnf_align.data.importers.importer import Importer, Message, Options, Thumb
from bnf_align.data.importers.shape import dicts, filled, mapping
from bnf_align.data.importers.threads import BrokenThread, Node, path_to, prompt_and_answer, without_reasoning
from bnf_align.records import DataReport

NO_SNAPSHOT = "no snapshot of its chat (take the export of all feedback: the list of it has none)"


class OpenWebUI(Importer):
    """A JSON list of feedback records, each with a snapshot of its chat, as a tree of messages.

        {"id", "user_id", "type": "rating", "created_at", "updated_at",
         "data": {"rating": 1 | -1, "model_id", "sibling_model_ids", "reason", "comment", "tags"},
         "meta": {"arena", "chat_id", "message_id", "message_index"},
         "snapshot": {"chat": {"id", "title", "chat": {"params": {"system"}, "history": {"currentId", "messages": {
            ID: {"id", "parentId", "childrenIds", "role", "content", "files", "model", "annotation": {"rating"}}}}}}}}

    Or a list of chats, `{"id", "user_id", "chat": {...as above}}`, where messages have an `annotation` with a rating.
    An arena record rates its message like any other; of two answers to one question, one up and one down are a pair.

    Source: open-webui/open-webui, backend/open_webui/models/feedbacks.py (the record) and
    src/lib/components/chat/Messages/ResponseMessage.svelte, `feedbackHandler` (data, meta, snapshot);
    src/lib/utils/index.ts, `removeDetails` (the blocks that are not part of an answer).
    """

    name = "openwebui"
    title = "an Open WebUI export"
    VALUES: ClassVar = {"1": "up", "-1": "down"}

    def matches(self, record: Any, path: Path) -> bool:
        """A feedback record, or a chat with a tree of messages."""
        data, meta = record.get("data"), record.get("meta")
        if isinstance(data, dict) and isinstance(meta, dict):
            return "rating" in data and bool({"message_id", "chat_id"} & meta.keys())
        return "messages" in mapping(mapping(record.get("chat")).get("history"))

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb]:
        """A thumb per feedback record, or per rated message of a chat."""
        for number, record in records_of(paths):
            if "data" in record or "meta" in record or "snapshot" in record:
                yield from _feedback(number, record, report)
            else:
                yield from _chat(number, record, report)


def _feedback(number: int, record: Mapping[str, Any], report: DataReport) -> Iterator[Thumb]:
    data, meta = mapping(record.get("data")), mapping(record.get("meta"))
    snapshot = mapping(record.get("snapshot"))
    chat = mapping(snapshot.get("chat"))
    extras = filled(
        id=record.get("id"),
        created_at=record.get("created_at"),
        rater=record.get("user_id"),
        model=data.get("model_id"),
        reason=_reason(data),
        arena=meta.get("arena") or None,
    )
    try:
        if record.get("type", "rating") != "rating":
            raise BrokenThread("feedback of another type than rating")
        if not snapshot:
            raise BrokenThread(NO_SNAPSHOT)
        chat_id = meta.get("chat_id") or chat.get("id")
        body = next((part for part in (chat.get("chat"), chat, snapshot) if _messages(mapping(part))), {})
        yield _thumb(number, mapping(body), chat_id, meta.get("message_id"), data.get("rating"), extras)
    except BrokenThread as error:
        report.drop(str(error), number)


def _chat(number: int, record: Mapping[str, Any], report: DataReport) -> Iterator[Thumb]:
    body = mapping(record.get("chat"))
    for message_id, message in _messages(body).items():
        note = mapping(mapping(message).get("annotation"))
        if note.get("rating") is None:
            continue
        extras = filled(
            id=message_id,
            created_at=message.get("timestamp"),
            rater=record.get("user_id"),
            model=message.get("selectedModelId") or message.get("model"),
            reason=_reason(note),
        )
        try:
            yield _thumb(number, body, record.get("id"), message_id, note["rating"], extras)
        except BrokenThread as error:
            report.drop(str(error), number)


def _thumb(number: int, body: Node, chat_id: Any, message_id: Any, value: Any, extras: Mapping[str, Any]) -> Thumb:
    path = path_to(_messages(body), message_id, "parentId")
    prompt, answer = prompt_and_answer(path, _message, mapping(body.get("params")).get("system"))
    question = path[-1].get("parentId")
    return Thumb(
        number,
        prompt,
        answer,
        value,
        answer=f"{chat_id}/{message_id}",
        extras=extras,
        question=f"{chat_id}/{question}" if question else None,
    )


def _message(node: Node) -> Message:
    role, content = node.get("role"), node.get("content")
    if not isinstance(role, str) or not isinstance(content, str):
        raise BrokenThread("a message that is not text")
    if node.get("error") is True:  # older versions put what went wrong in the place of the answer
        raise BrokenThread("an error message in its conversation")
    if any(file.get("type") == "image" for file in dicts(node.get("files"))):
        raise BrokenThread("an image in its conversation: only text is read")
    return {"role": role, "content": without_reasoning(content) if role == "assistant" else content}


def _messages(body: Node) -> Mapping[str, Any]:
    """The tree, or a list of messages with ids."""
    tree = mapping(body.get("history")).get("messages")
    if isinstance(tree, dict):
        return tree
    nodes = dicts(tree if isinstance(tree, list) else body.get("messages"))
    return {node["id"]: node for node in nodes if isinstance(node.get("id"), str)}


def _reason(data: Mapping[str, Any]) -> str | None:
    """Why, in the person's words or by the chosen reason."""
    parts = [data.get("reason"), data.get("comment")]
    return ": ".join(part for part in parts if isinstance(part, str) and part.strip()) or None
