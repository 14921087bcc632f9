"""Chat products: where each keeps a message's id, parent, role, text and rating."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bnf_align.records import BadInput, DataReport
from bnf_align.sources.fields import dicts, filled, first_of, has, inside, joined, mapping
from bnf_align.sources.files import first_record, records_like, records_of, unpacked
from bnf_align.sources.rows import Format, Labelled, Prompt
from bnf_align.sources.shelf import Shelf
from bnf_align.sources.source import Message, Options, Pair, Record, Source, Thumb
from bnf_align.sources.trees import Node, Nodes, Tree, role_at, without_reasoning
from bnf_align.sources.turns import assistant, message, user

THUMBS_UP = {"thumbsUp": "up", "thumbsDown": "down"}
NO_SNAPSHOT = "no snapshot of its chat (take the export of all feedback: the list of it has none)"


class OpenWebUI(Source):
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
    values: Mapping[str, str] = {"1": "up", "-1": "down"}
    tree = Tree("id", "parentId", role_at("role"), lambda node: node.get("content"))

    def matches(self, record: Record, path: Path) -> bool:
        """A feedback record, or a chat with a tree of messages."""
        data, meta = record.get("data"), record.get("meta")
        if isinstance(data, dict) and isinstance(meta, dict):
            return "rating" in data and bool({"message_id", "chat_id"} & meta.keys())
        return inside(record, "chat.history.messages") is not None

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb]:
        """A thumb per feedback record, or per rated message of a chat."""
        for number, record in records_of(paths):
            if "data" in record or "meta" in record or "snapshot" in record:
                yield from self._feedback(number, record, report)
            else:
                yield from self._chat(number, record, report)

    def _feedback(self, number: int, record: Record, report: DataReport) -> Iterator[Thumb]:
        data, meta = mapping(record.get("data")), mapping(record.get("meta"))
        snapshot = mapping(record.get("snapshot"))
        chat = mapping(snapshot.get("chat"))
        if record.get("type", "rating") != "rating":
            report.drop("feedback of another type than rating", number)
        elif not snapshot:
            report.drop(NO_SNAPSHOT, number)
        else:
            body = next((part for part in (mapping(chat.get("chat")), chat, snapshot) if self._nodes(part)), {})
            extras = filled(
                id=record.get("id"),
                created_at=record.get("created_at"),
                rater=record.get("user_id"),
                model=data.get("model_id"),
                reason=joined(data.get("reason"), data.get("comment")),
                arena=meta.get("arena") or None,
            )
            where = meta.get("message_id"), data.get("rating"), meta.get("chat_id") or chat.get("id")
            yield from self.tree.thumb(
                number, self._nodes(body), *where, extras, report, inside(body, "params.system")
            )

    def _chat(self, number: int, record: Record, report: DataReport) -> Iterator[Thumb]:
        body = mapping(record.get("chat"))
        nodes = self._nodes(body)
        for key, node in nodes.items():
            note = mapping(mapping(node).get("annotation"))
            if note.get("rating") is not None:
                extras = filled(
                    id=key,
                    created_at=node.get("timestamp"),
                    rater=record.get("user_id"),
                    model=node.get("selectedModelId") or node.get("model"),
                    reason=joined(note.get("reason"), note.get("comment")),
                )
                where = key, note["rating"], record.get("id")
                yield from self.tree.thumb(number, nodes, *where, extras, report, inside(body, "params.system"))

    def _nodes(self, body: Record) -> Mapping[str, Any]:
        """The tree, or a list of messages with ids."""
        tree = inside(body, "history.messages")
        if isinstance(tree, dict):
            return tree
        return self.tree.nodes(iter(dicts(tree if isinstance(tree, list) else body.get("messages"))))


class LibreChat(Source):
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
    values: Mapping[str, str] = THUMBS_UP

    def matches(self, record: Record, path: Path) -> bool:
        """A conversation or a message, by the names of its ids."""
        if self._is_conversation(record):
            return "conversationId" in record
        return {"messageId", "parentMessageId", "isCreatedByUser"} <= record.keys()

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb]:
        """A thumb per message with feedback."""
        conversations = [path for path in paths if self._is_conversation(first_record(path))]
        for number, record in records_of(conversations):
            nodes, system = self.tree.nodes(self._messages(record)), inside(record, "options.promptPrefix")
            for node in nodes.values():
                yield from self._thumb(number, node, nodes, report, system)
        collections = [path for path in paths if path not in conversations]
        if collections:
            shelf = Shelf((node.get("messageId"), None, node) for _, node in records_of(collections))
            for number, node in records_of(collections):
                yield from self._thumb(number, node, shelf, report)

    def _is_conversation(self, record: Record) -> bool:
        return isinstance(record.get("messages"), list) or isinstance(record.get("messagesTree"), list)

    def _messages(self, record: Record) -> Iterator[Node]:
        """The messages of a conversation, those of a tree from the top down."""
        waiting = dicts(record.get("messages")) + dicts(record.get("messagesTree"))
        while waiting:
            node = waiting.pop(0)
            yield node
            waiting = dicts(node.get("children")) + waiting

    def _thumb(self, number: int, node: Node, nodes: Nodes, report: DataReport, system: Any = None) -> Iterator[Thumb]:
        feedback = mapping(node.get("feedback"))
        if feedback.get("rating") is None:
            return
        if node.get("unfinished") is True:
            report.drop("an answer that was stopped before its end: it would teach to stop there", number)
            return
        tag, date = feedback.get("tag"), node.get("createdAt")
        extras = filled(
            id=node.get("messageId"),
            created_at=date.get("$date") if isinstance(date, dict) else date,
            rater=node.get("user"),
            model=node.get("model"),
            reason=joined(mapping(tag).get("key") or tag, feedback.get("text")),  # some versions store the tag whole
        )
        where = node.get("messageId"), feedback["rating"], node.get("conversationId")
        yield from self.tree.thumb(number, nodes, *where, extras, report, system)

    @staticmethod
    def _text(node: Node) -> Any:
        """The text of a message: its parts of type text, or where it has no parts its `text`."""
        parts = [part.get("text") for part in dicts(node.get("content")) if part.get("type") == "text"]
        texts = [part.get("value") if isinstance(part, dict) else part for part in parts] or [node.get("text")]
        return "\n\n".join(map(str, texts)) if all(isinstance(text, str) for text in texts) else None

    tree = Tree(
        "messageId",
        "parentMessageId",
        role_at("isCreatedByUser", {True: "user", False: "assistant"}),
        _text,
        files=lambda node: dicts(node.get("files")) + dicts(node.get("content")),
    )


class ChatGPT(Source):
    """ChatGPT's "Export data", unpacked: `conversations.json` beside `message_feedback.json`.

        {"id": "c1", "title": "...", "mapping": {ID: {"id", "parent", "children", "message": {"id", "create_time",
          "author": {"role": "user" | "assistant" | "system" | "tool"}, "recipient": "all",
          "content": {"content_type": "text", "parts": ["Hi"]}, "metadata": {"model_slug": "..."}}}}}
        {"id": MESSAGE, "conversation_id": "c1", "user_id": "...", "rating": "thumbs_down", "content": "..."}

    A rating is of the message under `message_id`, or else `id`. Calls of tools, what they gave back, thoughts and
    hidden system messages were not part of what the person read, and are left out; a conversation with a picture is.

    Source: the exports as described in mitkury/chatgpt-export-parser, docs/chatgpt-data-export-format.md; the ratings
    in both spellings that are found, thumbs_up and thumbsUp.
    """

    name = "chatgpt"
    title = "a ChatGPT export"
    values: Mapping[str, str] = THUMBS_UP | {"thumbs_up": "up", "thumbs_down": "down"}

    def matches(self, record: Record, path: Path) -> bool:
        """A conversation with its mapping, or a rating of a message of one."""
        return self._is_conversation(record) or self._is_rating(record)

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb]:
        """A thumb per rating."""
        files: dict[str, list[Path]] = {"ratings": [], "conversations": []}
        for path in paths:
            record = first_record(path)
            kind = "conversations" if self._is_conversation(record) else "ratings" if self._is_rating(record) else ""
            files.get(kind, []).append(path)
        for kind, found in files.items():
            if not found:
                raise BadInput(
                    f"These files hold no {kind} of ChatGPT's export: give the folder with conversations.json and "
                    "message_feedback.json."
                )
        chats = records_of(files["conversations"])
        shelf = Shelf((chat.get("conversation_id") or chat.get("id"), None, chat) for _, chat in chats)
        for number, rating in records_of(files["ratings"]):
            chat = rating.get("conversation_id")
            nodes = mapping((shelf.get(chat) or {}).get("mapping"))
            key = rating.get("message_id") or rating.get("id")
            extras = filled(
                id=rating.get("id"),
                created_at=rating.get("create_time"),
                rater=rating.get("user_id"),
                model=inside(nodes.get(str(key)), "message.metadata.model_slug"),
                reason=inside(rating, "content.text"),
            )
            yield from self.tree.thumb(number, nodes, key, rating.get("rating"), chat, extras, report)

    def _is_conversation(self, record: Record) -> bool:
        return isinstance(record.get("mapping"), dict) and "current_node" in record

    def _is_rating(self, record: Record) -> bool:
        return {"conversation_id", "rating"} <= record.keys()

    @staticmethod
    def _role(node: Node) -> str | None:
        """Whose a message is; "" of what the person did not see."""
        said = mapping(node.get("message"))
        role, kind = inside(said, "author.role"), inside(said, "content.content_type")
        hidden = inside(said, "metadata.is_visually_hidden_from_conversation") is True
        shown = kind in ("text", "multimodal_text") and said.get("recipient", "all") == "all" and not hidden
        return role if role in ("user", "assistant") and shown else ""

    @staticmethod
    def _text(node: Node) -> Any:
        parts = inside(node, "message.content.parts")
        whole = isinstance(parts, list) and all(isinstance(part, str) for part in parts)
        return "\n".join(parts) if whole else None

    tree = Tree("id", "parent", _role, _text)


class OpenAssistant(Source):
    """OpenAssistant's conversations: a tree a record, or a message a record, answers ranked by people.

        {"message_tree_id": "m1", "prompt": {"message_id": "m1", "text": "Hi", "role": "prompter", "replies": [
          {"message_id": "m2", "parent_id": "m1", "text": "Hello", "role": "assistant", "rank": 0, "replies": []}]}}
        {"message_id": "m2", "parent_id": "m1", "message_tree_id": "m1", "text": "Hello", "role": "assistant",
         "rank": 0}

    Of the ranked answers to one turn the best, rank 0, and the worst are a pair.

    Source: huggingface.co/datasets/OpenAssistant/oasst1.
    """

    name = "openassistant"
    title = "OpenAssistant's conversations"
    tree = Tree(
        "message_id",
        "parent_id",
        role_at("role", {"prompter": "user", "assistant": "assistant"}),
        lambda node: node.get("text"),
    )

    def matches(self, record: Record, path: Path) -> bool:
        """A tree, or a message of one."""
        return "message_tree_id" in record and (isinstance(record.get("prompt"), dict) or "parent_id" in record)

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Pair]:
        """A pair for each turn with answers of different rank."""
        messages = (node for _, record in records_of(paths) for node in self._messages(record))
        shelf = Shelf((node.get("message_id"), node.get("parent_id"), node) for node in messages)
        for number, record in records_of(paths):
            for node in self._messages(record):
                yield from self._best_and_worst(number, node, shelf, report)

    def _messages(self, record: Record) -> Iterator[Record]:
        waiting = [record["prompt"]] if isinstance(record.get("prompt"), dict) else [record]
        while waiting:
            node = waiting.pop(0)
            yield {name: value for name, value in node.items() if name != "replies"}
            replies = dicts(node.get("replies"))
            waiting += [{"parent_id": node.get("message_id"), **reply} for reply in replies]

    def _best_and_worst(self, number: int, node: Record, shelf: Shelf, report: DataReport) -> Iterator[Pair]:
        """The pair of which this message is the best answer."""
        if node.get("role") != "assistant" or type(node.get("rank")) not in (int, float):
            return
        ranked = [
            other
            for other in shelf.group(node.get("parent_id"))
            if type(other.get("rank")) in (int, float) and not other.get("deleted")
        ]
        ranked.sort(key=lambda other: other["rank"])
        if not ranked or ranked[0].get("message_id") != node.get("message_id"):
            return
        ends = ranked[0], ranked[-1]
        if ends[0]["rank"] == ends[1]["rank"]:
            report.drop("an answer without another one of a lower rank", number)
            return
        best, worst = (self.tree.thumb(number, shelf, one.get("message_id"), True, "", {}, report) for one in ends)
        for better, other in zip(best, worst, strict=False):
            yield Pair(number, better.prompt, better.completion, other.completion, filled(id=node.get("parent_id")))


ANYTHINGLLM = Format(
    "anythingllm",
    "AnythingLLM's workspace chats",
    knows=("prompt", "response", "workspace", "sent_at", "rating"),
    prompt=Prompt(texts=(("prompt",),)),
    verdicts=(Labelled(("rating",), ("response",)),),
    values={"GOOD": "up", "BAD": "down", "--": "drop"},
    extras={"id": "id", "created_at": "sent_at", "rater": "username"},
    note="a row does not say what was said before it in its thread: each is read as a first question",
)
"""AnythingLLM's export of workspace chats as JSON or CSV, a row an exchange. Source: Mintplex-Labs/anything-llm,
server/utils/helpers/chat/convertTo.js."""


class Chainlit(Source):
    """Threads, `{"id", "userIdentifier", "steps": [step, ...]}`, as the data layers' `get_thread` gives them.

    A step is `{"id", "threadId", "parentId", "type", "output", "createdAt", "feedback": {"value": 1 | 0, "comment"}}`;
    of type user_message or assistant_message it is a turn of the conversation, in the order of time. Or the tables:
    one or more files of steps and one of feedbacks, `{"id", "forId" or "stepId", "value", "comment"}`, in any format.

    Newer versions rate the run that answers: its assistant messages together are then the answer.

    Source: Chainlit/chainlit, backend/chainlit/types.py (FeedbackDict: 0 is a thumb down), data/sql_alchemy.py,
    data/chainlit_data_layer.py, frontend/src/components/chat/Messages/Message/Buttons/FeedbackButtons.tsx.
    """

    name = "chainlit"
    title = "a Chainlit export"
    values: Mapping[str, str] = {"1": "up", "0": "down", "1.0": "up", "0.0": "down"}
    RATED = ("forId", "stepId")
    """Which step a feedback rates, in the SQLAlchemy and in the official data layer."""
    TIMES = ("startTime", "createdAt", "start")
    SPEAKERS: Mapping[str, str] = {"user_message": "user", "assistant_message": "assistant"}

    def matches(self, record: Record, path: Path) -> bool:
        """A thread, a step or a feedback, by columns that occur together nowhere else."""
        return self._kind(record) != ""

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb]:
        """A thumb per feedback."""
        kinds: dict[str, list[Path]] = defaultdict(list)
        for path in paths:
            record = first_record(path)
            if not (kind := self._kind(record)):
                raise BadInput(
                    f"{path} holds no threads, steps or feedbacks of Chainlit. Its columns: "
                    f"{', '.join(map(str, record)):.300}"
                )
            kinds[kind].append(path)
        for number, thread in records_of(kinds["thread"]):
            steps = dicts(thread.get("steps"))
            for step in steps:
                feedback = mapping(step.get("feedback"))
                if feedback.get("value") is not None:
                    rater = thread.get("userIdentifier") or thread.get("userId")
                    yield from self._thumb(number, feedback, step.get("id"), steps, rater, report)
        if kinds["step"] and not kinds["feedback"]:
            raise BadInput("There are steps, but no feedbacks: give the table of feedbacks too.")
        if kinds["feedback"]:
            shelf = Shelf((step.get("id"), step.get("threadId"), step) for _, step in records_of(kinds["step"]))
            for number, feedback in records_of(kinds["feedback"]):
                key = first_of(feedback, self.RATED)
                group = (shelf.get(key) or {}).get("threadId")
                steps = shelf.group(group) if _is_id(group) else []
                yield from self._thumb(number, feedback, key, steps, None, report)

    def _kind(self, record: Record) -> str:
        if isinstance(record.get("steps"), list) and "id" in record:
            return "thread"
        if {"value", "comment"} <= record.keys() and any(name in record for name in self.RATED):
            return "feedback"
        return "step" if {"id", "type", "output", "threadId", "parentId"} <= record.keys() else ""

    def _thumb(
        self, number: int, feedback: Record, key: Any, steps: Sequence[Record], rater: Any, report: DataReport
    ) -> Iterator[Thumb]:
        rated = next((step for step in steps if step.get("id") == key), None)
        turns = sorted((step for step in steps if step.get("type") in tuple(self.SPEAKERS)), key=self._time)
        answers = [step for step in turns if step is rated] or ([] if rated is None else _within(rated, turns, steps))
        if rated is None:
            report.drop("the step that is rated is not there", number)
        elif not answers or any(step["type"] == "user_message" for step in answers):
            report.drop("what is rated is not an assistant's answer", number)
        elif not all(isinstance(step.get("output"), str) for step in turns[: turns.index(answers[0])] + answers):
            report.drop("a message that is not text", number)
        else:
            value = feedback.get("value")
            yield Thumb(
                number,
                [self._message(step) for step in turns[: turns.index(answers[0])]],
                [assistant("\n\n".join(self._message(step)["content"] for step in answers))],
                None if value == "" else value,  # an empty cell of a CSV table
                answer=str(key),
                extras=filled(
                    id=feedback.get("id"),
                    created_at=self._time(answers[-1]),
                    reason=feedback.get("comment"),
                    rater=rater,
                ),
            )

    def _message(self, step: Record) -> Message:
        role, text = self.SPEAKERS[step["type"]], step["output"]
        return {"role": role, "content": without_reasoning(text) if role == "assistant" else text}

    def _time(self, step: Record) -> str:
        return str(first_of(step, self.TIMES) or "")


def _is_id(value: Any) -> bool:
    return isinstance(value, str | int) and value != ""


def _within(run: Record, turns: Sequence[Record], steps: Sequence[Record]) -> list[Record]:
    """The assistant's messages in a run, or in steps of it."""
    parents = {step["id"]: step.get("parentId") for step in steps if _is_id(step.get("id"))}

    def inside_run(step: Record) -> bool:
        at, seen = step.get("parentId"), set()
        while _is_id(at) and at not in seen and at != run.get("id"):
            seen.add(at)
            at = parents.get(at)
        return _is_id(at) and at == run.get("id")

    return [step for step in turns if step["type"] == "assistant_message" and inside_run(step)]


class Gradio(Source):
    """Gradio's `gr.ChatInterface(flagging_mode="manual")`: `.gradio/flagged/log.csv`.

        conversation,index,value,flag,timestamp
        "[{""role"": ""user"", ""content"": [...]}, ...]",1,Like,2026-05-29 13:46:19.963000

    Five names stand above four fields: Gradio 5 and 6 write the rating under `value` and the time under `flag`. A row
    of five fields is read as the header says. `index` is the rated message, or in the older format of pairs (pair, 1).
    Several bot messages in one bubble are rated together; messages shown as thoughts are left out of the answer.
    A thumb that is taken back is written as an empty rating: it and the click it takes back count for nothing. Of a
    Like and a Dislike of one answer by one person, as far as the log tells people apart, the last click counts.
    Logs of `gr.Interface` have the columns of their own components: they are a `table`.

    Source: gradio 6.31, gradio/flagging.py (ChatCSVLogger), events.py (LikeData) and the chatbot's front end.
    """

    name = "gradio"
    title = "answers flagged in Gradio"
    values: Mapping[str, str] = {"Like": "up", "Dislike": "down"}
    HEADER = ("conversation", "index", "value", "flag")

    def matches(self, record: Record, path: Path) -> bool:
        """The header is Gradio's own."""
        return has(*self.HEADER)(record)

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb]:
        """Ratings as thumbs, in the order of the log."""
        gone = self._gone(self._clicks(paths, DataReport("")))
        for row, record in self._clicks(paths, report):
            rating, time = self._rating(record)
            if row in gone:
                report.drop(gone[row], row)
            elif isinstance(texts := _exchange(record), str):
                report.drop(texts, row)
            else:
                yield Thumb(row, *texts, rating, extras=filled(created_at=time, rater=record.get("username")))

    def _clicks(self, paths: Sequence[Path], report: DataReport) -> Iterator[tuple[int, Record]]:
        return records_like(paths, has(*self.HEADER), "a line of a chat's flagging log", report)

    def _rating(self, record: Record) -> tuple[Any, Any]:
        """The rating, empty for a click that takes one back, and its time."""
        if record.get("timestamp") is None:
            return record["value"], record["flag"]
        return record["flag"], record["timestamp"]

    def _gone(self, clicks: Iterator[tuple[int, Record]]) -> dict[int, str]:
        """Rows of clicks that a later one by the same person took back or changed, each with its reason."""
        standing: dict[int, list[tuple[int, Any]]] = defaultdict(list)
        gone: dict[int, str] = {}
        for row, record in clicks:
            rating = self._rating(record)[0]
            earlier = standing[hash(json.dumps([_exchange(record), record.get("username")], default=str))]
            if rating in (None, ""):
                taken = [row, *([earlier.pop()[0]] if earlier else [])]
                gone |= dict.fromkeys(taken, "a thumb that was taken back")
                continue
            if earlier and earlier[-1][1] != rating:
                gone[earlier.pop()[0]] = "a thumb that was changed afterwards"
            earlier.append((row, rating))
        return gone


def _exchange(record: Record) -> tuple[list[Message], list[Message]] | str:
    """The rated answer and all before it, or why there is none."""
    # Gradio 5 wrote an apostrophe before JSON that a spreadsheet might take for a formula.
    turns = unpacked(str(record["conversation"]).removeprefix("'"))
    index = [part.strip() for part in str(record["index"]).strip("()[] ").split(",")]  # 3, [1, 1] or (1, 1)
    if not isinstance(turns, list) or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in index):
        return "no conversation or no index"
    at = [int(part) for part in index]
    if turns and all(isinstance(turn, list) and len(turn) == 2 for turn in turns):
        turns = [turn for question, answer in turns for turn in (user(question), assistant(answer))]
        at = [at[0] * 2 + at[1]] if len(at) == 2 else []
    if len(at) != 1 or at[0] >= len(turns):
        return "the rated message is not in the conversation"
    said = [message(turn) for turn in turns]
    if any(turn is None for turn in said):
        return "a message without role or content"
    roles = [turn["role"] if turn else "" for turn in said]
    if roles[at[0]] != "assistant":
        return "the rated message is not an answer"
    end = next((i for i in range(at[0], len(said)) if roles[i] != "assistant"), len(said))
    spoken = [i for i, turn in enumerate(turns) if not mapping(turn.get("metadata")).get("title")]  # no thoughts
    before = [turn for i in spoken if i < at[0] and (turn := said[i]) and turn.get("content") is not None]
    answer = [turn for i in spoken if at[0] <= i < end and (turn := said[i])]
    return (before, answer) if answer else "nothing but thoughts was rated"


CHATS: tuple[Source, ...] = (OpenWebUI(), LibreChat(), Chainlit(), Gradio(), ChatGPT(), OpenAssistant(), ANYTHINGLLM)
