"""Chat products that keep a tree: where each keeps a message's id, parent, role, text and rating."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport
from bnf_align.sources.fields import dicts, filled, has, inside, joined, mapping
from bnf_align.sources.files import first_record, records_of
from bnf_align.sources.rows import Format, Labelled, Prompt
from bnf_align.sources.source import Options, Pair, Record, Source
from bnf_align.sources.trees import Nodes, Rated, Shelf, Tree, role_at

THUMBS_UP = {"thumbsUp": "up", "thumbsDown": "down"}


def _by_id(nodes: Sequence[Record], name: str) -> dict[str, Record]:
    return {node[name]: node for node in nodes if isinstance(node.get(name), str)}


def _openwebui_nodes(body: Record) -> Mapping[str, Any]:
    """The tree, or a list of messages with ids."""
    tree = inside(body, "history.messages")
    if isinstance(tree, dict):
        return tree
    return _by_id(dicts(tree if isinstance(tree, list) else body.get("messages")), "id")


def _openwebui_ratings(paths: Sequence[Path]) -> Iterator[Rated]:
    """A rating per feedback record, or per rated message of a chat."""
    for row, record in records_of(paths):
        if {"data", "meta", "snapshot"}.isdisjoint(record):
            body = mapping(record.get("chat"))
            nodes, system = _openwebui_nodes(body), inside(body, "params.system")
            for key, node in nodes.items():
                if (value := inside(node, "annotation.rating")) is not None:
                    about = {**node, "chat": record, "id": key}
                    yield Rated(row, nodes, key, value, record.get("id"), about, system)
            continue
        snapshot = mapping(record.get("snapshot"))
        chat = mapping(snapshot.get("chat"))
        body = next((part for part in (mapping(chat.get("chat")), chat, snapshot) if _openwebui_nodes(part)), {})
        refused = None if snapshot else Reason("no_snapshot")
        if record.get("type", "rating") != "rating":
            refused = Reason("other_feedback")
        leaf, value = inside(record, "meta.message_id"), inside(record, "data.rating")
        chat_id = inside(record, "meta.chat_id") or chat.get("id")
        yield Rated(row, _openwebui_nodes(body), leaf, value, chat_id, record, inside(body, "params.system"), refused)


def _openwebui_reason(record: Record) -> str | None:
    note = mapping(record.get("data") or record.get("annotation"))
    return joined(note.get("reason"), note.get("comment"))


def _is_openwebui(record: Record) -> bool:
    """A feedback record, or a chat with a tree of messages."""
    data, meta = record.get("data"), record.get("meta")
    if isinstance(data, dict) and isinstance(meta, dict):
        return "rating" in data and not {"message_id", "chat_id"}.isdisjoint(meta)
    return inside(record, "chat.history.messages") is not None


OPENWEBUI = Tree(
    "openwebui",
    "an Open WebUI export",
    knows=_is_openwebui,
    parent="parentId",
    role=role_at("role"),
    text=lambda node: node.get("content"),
    rated=_openwebui_ratings,
    values={"1": "up", "-1": "down"},
    extras={
        "id": "id",
        "created_at": "created_at|timestamp",
        "rater": "user_id|chat.user_id",
        "model": "data.model_id|selectedModelId|model",
        "reason": _openwebui_reason,
        "arena": lambda record: inside(record, "meta.arena") or None,
    },
)
"""Open WebUI: a JSON list of feedback records, each with a snapshot of its chat, as a tree of messages.

    {"id", "user_id", "type": "rating", "created_at", "updated_at",
     "data": {"rating": 1 | -1, "model_id", "sibling_model_ids", "reason", "comment", "tags"},
     "meta": {"arena", "chat_id", "message_id", "message_index"},
     "snapshot": {"chat": {"id", "title", "chat": {"params": {"system"}, "history": {"currentId", "messages": {
        ID: {"id", "parentId", "childrenIds", "role", "content", "files", "model", "annotation": {"rating"}}}}}}}}

Or a list of chats, `{"id", "user_id", "chat": {...as above}}`, where messages have an `annotation` with a rating.
An arena record rates its message like any other; of two answers to one question, one up and one down are a pair.
Source: open-webui/open-webui, backend/open_webui/models/feedbacks.py (the record), src/lib/components/chat/Messages/
ResponseMessage.svelte, `feedbackHandler` (data, meta, snapshot) and src/lib/utils/index.ts, `removeDetails`.
"""


def _is_conversation(record: Record) -> bool:
    return isinstance(record.get("messages"), list) or isinstance(record.get("messagesTree"), list)


def _librechat_ratings(paths: Sequence[Path]) -> Iterator[Rated]:
    """The messages with feedback, of conversations or of a collection of messages in any order."""
    conversations = [path for path in paths if _is_conversation(first_record(path))]
    for row, record in records_of(conversations):
        waiting, found = dicts(record.get("messages")) + dicts(record.get("messagesTree")), []
        while waiting:  # a tree from the top down
            found.append(waiting.pop(0))
            waiting = dicts(found[-1].get("children")) + waiting
        nodes = _by_id(found, "messageId")
        for node in nodes.values():
            yield from _librechat_rating(row, node, nodes, inside(record, "options.promptPrefix"))
    if collections := [path for path in paths if path not in conversations]:
        shelf = Shelf((node.get("messageId"), None, node) for _, node in records_of(collections))
        for row, node in records_of(collections):
            yield from _librechat_rating(row, node, shelf)


def _librechat_rating(row: int, node: Record, nodes: Nodes, system: Any = None) -> Iterator[Rated]:
    if (value := inside(node, "feedback.rating")) is not None:
        refused = Reason("stopped") if node.get("unfinished") is True else None
        yield Rated(row, nodes, node.get("messageId"), value, node.get("conversationId"), node, system, refused)


def _librechat_text(node: Record) -> Any:
    """The text of a message: its parts of type text, or where it has no parts its `text`."""
    parts = [part.get("text") for part in dicts(node.get("content")) if part.get("type") == "text"]
    texts = [part.get("value") if isinstance(part, dict) else part for part in parts] or [node.get("text")]
    return "\n\n".join(map(str, texts)) if all(isinstance(text, str) for text in texts) else None


def _librechat_reason(node: Record) -> str | None:
    tag = inside(node, "feedback.tag")  # some versions store it whole
    return joined(mapping(tag).get("key") or tag, inside(node, "feedback.text"))


LIBRECHAT = Tree(
    "librechat",
    "a LibreChat export",
    knows=lambda record: (
        "conversationId" in record
        if _is_conversation(record)
        else has("messageId", "parentMessageId", "isCreatedByUser")(record)
    ),
    parent="parentMessageId",
    role=role_at("isCreatedByUser", {True: "user", False: "assistant"}),
    text=_librechat_text,
    rated=_librechat_ratings,
    values=THUMBS_UP,
    extras={
        "id": "messageId",
        "created_at": "createdAt.$date|createdAt",
        "rater": "user",
        "model": "model",
        "reason": _librechat_reason,
    },
    files=lambda node: dicts(node.get("files")) + dicts(node.get("content")),
)
"""LibreChat: a conversation a file, {"conversationId", "title", "messages": [...]}, or "messagesTree" with `children`.

Or the collection `messages` as `mongoexport` writes it, conversations mixed. A message is

    {"messageId", "conversationId", "parentMessageId", "isCreatedByUser", "sender", "model", "user", "createdAt",
     "text": ..., or "content": [{"type": "text", "text": ... | {"value": ...}}, {"type": "think", ...}, ...],
     "feedback": {"rating": "thumbsUp" | "thumbsDown", "tag", "text"}}

The system prompt of a conversation is `options.promptPrefix`, which messages of the database lack. Tool calls and
thoughts are not part of an answer; what is `unfinished`, and a conversation with an error or an image, is left out.
Source: danny-avila/LibreChat, packages/data-provider/src/feedback.ts (the ratings), packages/data-schemas/src/schema/
message.ts, client/src/hooks/Conversations/useExportConversation.ts.
"""


def _is_chatgpt(record: Record) -> str:
    """What a record of ChatGPT's export holds; "" for one of anything else."""
    if isinstance(record.get("mapping"), dict) and "current_node" in record:
        return "conversations"
    return "ratings" if has("conversation_id", "rating")(record) else ""


def _chatgpt_ratings(paths: Sequence[Path]) -> Iterator[Rated]:
    kinds = [(path, _is_chatgpt(first_record(path))) for path in paths]
    for kind in ("ratings", "conversations"):
        if kind not in (found for _, found in kinds):
            raise BadInput(
                f"These files hold no {kind} of ChatGPT's export: give the folder with conversations.json and "
                "message_feedback.json."
            )
    chats = records_of([path for path, kind in kinds if kind == "conversations"])
    shelf = Shelf((chat.get("conversation_id") or chat.get("id"), None, chat) for _, chat in chats)
    for row, rating in records_of([path for path, kind in kinds if kind == "ratings"]):
        nodes = mapping((shelf.get(rating.get("conversation_id")) or {}).get("mapping"))
        leaf = rating.get("message_id") or rating.get("id")
        about = {**rating, "node": nodes.get(str(leaf))}
        yield Rated(row, nodes, leaf, rating.get("rating"), rating.get("conversation_id"), about)


def _chatgpt_role(node: Record) -> str | None:
    """Whose a message is; "" of what the person did not see: tools, thoughts and hidden instructions."""
    said = mapping(node.get("message"))
    role, kind = inside(said, "author.role"), inside(said, "content.content_type")
    hidden = inside(said, "metadata.is_visually_hidden_from_conversation") is True
    shown = kind in ("text", "multimodal_text") and said.get("recipient", "all") == "all" and not hidden
    return role if role in ("user", "assistant") and shown else ""


def _chatgpt_text(node: Record) -> Any:
    parts = inside(node, "message.content.parts")
    return "\n".join(parts) if isinstance(parts, list) and all(isinstance(part, str) for part in parts) else None


CHATGPT = Tree(
    "chatgpt",
    "a ChatGPT export",
    knows=lambda record: bool(_is_chatgpt(record)),
    parent="parent",
    role=_chatgpt_role,
    text=_chatgpt_text,
    rated=_chatgpt_ratings,
    values=THUMBS_UP | {"thumbs_up": "up", "thumbs_down": "down"},
    extras={
        "id": "id",
        "created_at": "create_time",
        "rater": "user_id",
        "model": "node.message.metadata.model_slug",
        "reason": "content.text",
    },
)
"""ChatGPT's "Export data", unpacked: `conversations.json` beside `message_feedback.json`.

    {"id": "c1", "title": "...", "current_node": ID, "mapping": {ID: {"id", "parent", "children", "message": {"id",
      "author": {"role": "user" | "assistant" | "system" | "tool"}, "recipient": "all",
      "content": {"content_type": "text", "parts": ["Hi"]}, "metadata": {"model_slug": "..."}}}}}
    {"id": MESSAGE, "conversation_id": "c1", "user_id": "...", "rating": "thumbs_down", "content": "..."}

A rating is of the message under `message_id`, or else `id`; both spellings of a thumbs_up or thumbsUp are found.
Source: mitkury/chatgpt-export-parser, docs/chatgpt-data-export-format.md.
"""


class _OpenAssistant(Tree):
    """A tree whose answers are ranked: of those to one turn the best and the worst are a pair."""

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Pair]:  # type: ignore[override]
        """A pair for each turn with answers of different rank."""
        nodes = (node for _, record in records_of(paths) for node in _replies(record))
        shelf = Shelf((node.get("message_id"), node.get("parent_id"), node) for node in nodes)
        for row, record in records_of(paths):
            for node in _replies(record):
                group = [one for one in shelf.group(node.get("parent_id")) if _is_ranked(one)]
                group.sort(key=lambda one: one["rank"])
                if not _is_ranked(node) or group[0].get("message_id") != node.get("message_id"):
                    continue  # the pair stands where its better answer does
                if group[0]["rank"] == group[-1]["rank"]:
                    report.drop(Reason("no_lower_rank"), row)
                    continue
                ends = (Rated(row, shelf, one.get("message_id"), None, "", one) for one in (group[0], group[-1]))
                best, worst = map(self.thumb, ends)
                if isinstance(best, Reason):
                    report.drop(best, row)
                elif isinstance(worst, Reason):
                    report.drop(worst, row)
                else:
                    extras = filled(id=node.get("parent_id"))
                    yield Pair(row, best.prompt, best.completion, worst.completion, extras)


def _replies(record: Record) -> Iterator[Record]:
    """The messages of a tree from the top down, or a message that is a record of its own."""
    waiting = [record["prompt"]] if isinstance(record.get("prompt"), dict) else [record]
    while waiting:
        node = waiting.pop(0)
        yield {name: value for name, value in node.items() if name != "replies"}
        waiting += [{"parent_id": node.get("message_id"), **reply} for reply in dicts(node.get("replies"))]


def _is_ranked(node: Record) -> bool:
    return node.get("role") == "assistant" and type(node.get("rank")) in (int, float) and not node.get("deleted")


OPENASSISTANT = _OpenAssistant(
    "openassistant",
    "OpenAssistant's conversations",
    knows=lambda record: (
        "message_tree_id" in record and (isinstance(record.get("prompt"), dict) or "parent_id" in record)
    ),
    parent="parent_id",
    role=role_at("role", {"prompter": "user", "assistant": "assistant"}),
    text=lambda node: node.get("text"),
    rated=lambda paths: iter(()),
)
"""OpenAssistant/oasst1: a tree a record, or a message a record; answers are ranked by people, 0 is the best.

    {"message_tree_id": "m1", "prompt": {"message_id": "m1", "text": "Hi", "role": "prompter", "replies": [
      {"message_id": "m2", "parent_id": "m1", "text": "Hello", "role": "assistant", "rank": 0, "replies": []}]}}
"""

ANYTHINGLLM = Format(
    "anythingllm",
    "AnythingLLM's workspace chats",
    knows=("prompt", "response", "workspace", "sent_at", "rating"),
    prompt=Prompt(texts=("prompt",)),
    verdicts=(Labelled("rating", "response"),),
    values={"GOOD": "up", "BAD": "down", "--": "drop"},
    extras={"id": "id", "created_at": "sent_at", "rater": "username"},
    note="a row does not say what was said before it in its thread: each is read as a first question",
)
"""AnythingLLM's export of workspace chats as JSON or CSV, a row an exchange. Source: Mintplex-Labs/anything-llm,
server/utils/helpers/chat/convertTo.js."""

CHATS: tuple[Source, ...] = (OPENWEBUI, LIBRECHAT, CHATGPT, OPENASSISTANT, ANYTHINGLLM)
