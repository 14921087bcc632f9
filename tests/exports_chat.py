"""Exports of chat products as they write them, with given thumbs in them: each thumb a chat of its own.

`values` is how the product writes an up and a down.
"""

import json
from pathlib import Path

Thumb = tuple[str, str, bool]


def feedback(
    messages: dict[str, dict],
    message_id: str,
    rating,
    *,
    number: int = 0,
    chat_id: str = "chat-0",
    params: dict | None = None,
    **data,
) -> dict:
    """One record of Open WebUI's `GET /api/v1/evaluations/feedbacks/all/export`."""
    return {
        "id": f"feedback-{number}",
        "user_id": "user-7",
        "version": 0,
        "type": "rating",
        "data": {
            "rating": rating,
            "model_id": "llama",
            "sibling_model_ids": None,
            "reason": "",
            "comment": "",
            "tags": [],
            **data,
        },
        "meta": {"arena": False, "chat_id": chat_id, "message_id": message_id, "message_index": 2, "tags": []},
        "snapshot": {
            "chat": {
                "id": chat_id,
                "user_id": "user-7",
                "title": "A chat",
                "chat": {
                    "id": "",
                    "title": "A chat",
                    "models": ["llama"],
                    "params": params or {},
                    "history": {"messages": messages, "currentId": message_id},
                    "messages": [],
                },
            }
        },
        "created_at": 1730000000 + number,
        "updated_at": 1730000000 + number,
    }


def tree(*nodes: tuple) -> dict[str, dict]:
    """Open WebUI's messages from (id, parent, role, content), with the fields that the product adds."""
    return {
        key: {
            "id": key,
            "parentId": parent,
            "childrenIds": [other[0] for other in nodes if other[1] == key],
            "role": role,
            "content": content,
            "timestamp": 1730000000,
            **({"model": "llama", "done": True} if role == "assistant" else {"models": ["llama"]}),
        }
        for key, parent, role, content in nodes
    }


def openwebui(thumbs: list[Thumb], folder: Path, values: tuple = (1, -1)) -> list[Path]:
    records = [
        feedback(
            tree((f"q{n}", None, "user", prompt), (f"a{n}", f"q{n}", "assistant", answer)),
            f"a{n}",
            values[not up],
            number=n,
            chat_id=f"chat-{n}",
        )
        for n, (prompt, answer, up) in enumerate(thumbs)
    ]
    (folder / "feedback-history-export.json").write_text(json.dumps(records), encoding="utf-8")
    return [folder / "feedback-history-export.json"]


def said(key: str, parent: str | None, text: str, *, by_user: bool, rating=None, **fields) -> dict:
    """One message of LibreChat's database."""
    return {
        "messageId": key,
        "conversationId": "conversation-0",
        "parentMessageId": parent or "00000000-0000-0000-0000-000000000000",
        "isCreatedByUser": by_user,
        "sender": "User" if by_user else "GPT-4o",
        "model": None if by_user else "gpt-4o",
        "user": "user-7",
        "text": text,
        "error": False,
        "unfinished": False,
        **({} if rating is None else {"feedback": {"rating": rating, "tag": "helpful"}}),
        **fields,
    }


def librechat(thumbs: list[Thumb], folder: Path, values: tuple = ("thumbsUp", "thumbsDown")) -> list[Path]:
    messages = []
    for n, (prompt, answer, up) in enumerate(thumbs):
        rating = values[not up]
        messages += [
            {"_id": {"$oid": f"q{n:023}"}} | said(f"q{n}", None, prompt, by_user=True, conversationId=f"c{n}"),
            {"_id": {"$oid": f"a{n:023}"}}
            | said(f"a{n}", f"q{n}", answer, by_user=False, rating=rating, conversationId=f"c{n}"),
        ]
    (folder / "messages.jsonl").write_text("".join(json.dumps(one) + "\n" for one in messages), encoding="utf-8")
    return [folder / "messages.jsonl"]


def step(key: str, kind: str, output: str, minute: int, *, thread: str = "t0", parent: str | None = None) -> dict:
    """One step of Chainlit's data layer."""
    return {
        "id": key,
        "threadId": thread,
        "parentId": parent,
        "type": kind,
        "name": kind,
        "input": "",
        "output": output,
        "createdAt": f"2025-05-01T10:{minute:02}:00.000Z",
        "isError": False,
        "feedback": None,
    }


def chainlit(thumbs: list[Thumb], folder: Path, values: tuple = (1, 0)) -> list[Path]:
    threads = []
    for n, (prompt, answer, up) in enumerate(thumbs):
        rated = step(f"a{n}", "assistant_message", answer, 2, thread=f"t{n}", parent=f"r{n}")
        rated["feedback"] = {"forId": f"a{n}", "id": f"f{n}", "value": values[not up], "comment": None}
        steps = [
            step(f"q{n}", "user_message", prompt, 0, thread=f"t{n}"),
            step(f"r{n}", "run", "", 1, thread=f"t{n}", parent=f"q{n}"),
            rated,
        ]
        threads.append({"id": f"t{n}", "createdAt": "2025-05-01T10:00:00Z", "userIdentifier": "ann", "steps": steps})
    (folder / "threads.json").write_text(json.dumps(threads), encoding="utf-8")
    return [folder / "threads.json"]


def node(key: str, parent: str | None, role: str, *parts, **fields) -> dict:
    """One node of the mapping in ChatGPT's export; without parts an empty root."""
    said = {
        "id": key,
        "author": {"role": role, "name": None, "metadata": {}},
        "create_time": 1730000000.0,
        "content": {"content_type": "text", "parts": list(parts)},
        "recipient": "all",
        "metadata": {"model_slug": "gpt-4o"} if role == "assistant" else {},
        **fields,
    }
    return {"id": key, "message": said if parts else None, "parent": parent, "children": []}


def conversation(key: str, *nodes: dict) -> dict:
    """One conversation of ChatGPT's export."""
    mapping = {one["id"]: one for one in nodes}
    return {"id": key, "conversation_id": key, "title": "A chat", "mapping": mapping, "current_node": nodes[-1]["id"]}


def chatgpt_rating(key: str, chat: str, rating, **fields) -> dict:
    """One thumb of ChatGPT's export."""
    return {"id": key, "conversation_id": chat, "user_id": "user-7", "rating": rating, "content": "{}", **fields}


def chatgpt(thumbs: list[Thumb], folder: Path, values: tuple = ("thumbs_up", "thumbs_down")) -> list[Path]:
    chats = [
        conversation(
            f"c{n}",
            node("root", None, "system"),
            node(f"q{n}", "root", "user", prompt),
            node(f"a{n}", f"q{n}", "assistant", answer),
        )
        for n, (prompt, answer, _) in enumerate(thumbs)
    ]
    ratings = [chatgpt_rating(f"a{n}", f"c{n}", values[not up]) for n, (_, _, up) in enumerate(thumbs)]
    for name, records in (("conversations.json", chats), ("message_feedback.json", ratings)):
        (folder / name).write_text(json.dumps(records), encoding="utf-8")
    return [folder / "conversations.json", folder / "message_feedback.json"]


def anythingllm(thumbs: list[Thumb], folder: Path, values: tuple = ("GOOD", "BAD")) -> list[Path]:
    records = [
        {
            "id": n,
            "prompt": prompt,
            "response": answer,
            "sent_at": "2026-05-01T10:00:00.000Z",
            "attachments": [],
            "workspace": "docs",
            "username": "ann",
            "rating": values[not up],
        }
        for n, (prompt, answer, up) in enumerate(thumbs)
    ]
    (folder / "chats.json").write_text(json.dumps(records), encoding="utf-8")
    return [folder / "chats.json"]


EXPORTS = {
    "openwebui": openwebui,
    "librechat": librechat,
    "chainlit": chainlit,
    "chatgpt": chatgpt,
    "anythingllm": anythingllm,
}
