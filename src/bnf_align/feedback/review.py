"""Prepared answers, judged blind: in another order for everybody, and without the names of the models."""

from __future__ import annotations

import hashlib
import json
import random
import threading
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnf_align.feedback.store import Message, Row, Store
from bnf_align.feedback.verdict import Answer, Verdict, rows_of, verdict_of
from bnf_align.journal import read_jsonl
from bnf_align.records import BadInput

TEXTS = ("text", "content", "completion")
SAID = ("role", "content")


@dataclass(frozen=True)
class Task:
    """What a person is asked about: one answer, or which of two is better."""

    prompt: str | list[Message]
    answers: tuple[Answer, ...]

    @property
    def id(self) -> str:
        """16 hexadecimal digits of its texts: the same in every file that holds them, in whatever order."""
        content = json.dumps([self.prompt, sorted(answer.text for answer in self.answers)], sort_keys=True)
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()


def read_tasks(path: str | Path, pairs: bool) -> list[Task]:
    """The tasks in a file of prepared answers, each once.

    A row has a `prompt` (text or messages) and its answers: a list under `candidates` or `completions`, or TRL's
    `chosen` and `rejected`, or one `completion`. An answer is a text, messages, or an object of `text` and `model`.

    Args:
        path: A .jsonl or .json file, .gz too.
        pairs: Ask for the better of two: the first and second answer of a row, the third and fourth, and so on.
            Otherwise every answer is judged by itself.

    Raises:
        BadInput: If a row is of another shape, or there is nothing to ask.
    """
    tasks: dict[str, Task] = {}
    for number, row in enumerate(read_jsonl(path)):
        prompt, answers = _row(row, f"{path}, row {number}")
        size = 2 if pairs else 1
        for first in range(0, len(answers) - size + 1, size):
            task = Task(prompt, tuple(answers[first : first + size]))
            if len({answer.text for answer in task.answers}) == size:  # of two equal answers none is better
                tasks[task.id] = task
    if not tasks:
        needed = "two different answers to one prompt" if pairs else "an answer"
        raise BadInput(f"{path}: no row has {needed}. Prepare some, or {'leave --pairs out' if pairs else 'chat'}.")
    return list(tasks.values())


def _row(row: Row, place: str) -> tuple[str | list[Message], list[Answer]]:
    prompt = row.get("prompt")
    if isinstance(prompt, list):
        for message in prompt:
            if not isinstance(message, dict) or not all(isinstance(message.get(name), str) for name in SAID):
                raise BadInput(f"{place}: a message of a prompt is a role and a content, not {message!r:.80}.")
    elif not isinstance(prompt, str):
        raise BadInput(f"{place}: a row needs a `prompt`, as text or messages; this one has {', '.join(row)}.")
    listed = row.get("candidates") or row.get("completions")
    if not isinstance(listed, list):
        listed = [row[name] for name in ("chosen", "rejected", "completion") if row.get(name)]
    answers = [_answer(value, row.get("model"), f"{place}, answer {at}") for at, value in enumerate(listed)]
    return prompt, [answer for answer in answers if answer.text.strip()]


def _answer(value: Any, model: str | None, place: str) -> Answer:
    if isinstance(value, str):
        return Answer(value, model)
    if isinstance(value, list) and len(value) == 1:  # a completion as messages
        value = value[0]
    texts = [value[name] for name in TEXTS if isinstance(value.get(name), str)] if isinstance(value, dict) else []
    if not texts:
        raise BadInput(f"{place}: an answer is a text, or an object with a `text`, not {value!r:.80}.")
    return Answer(texts[0], value.get("model") or model)


class Review:
    """One person's way through the tasks.

    Args:
        tasks: What `read_tasks` returned.
        store: Where judgements go.
        raters: How many people are to judge a task; None for everybody. Tasks that others have begun come first, and
            those that so many have judged do not come.
    """

    def __init__(self, tasks: Sequence[Task], store: Store, raters: int | None = None) -> None:
        self._store = store
        # The answers too: the one that always stands first would be found the better one too often.
        shuffled = [
            Task(task.prompt, tuple(random.sample(task.answers, len(task.answers))))
            for task in random.sample(tasks, len(tasks))
        ]
        if raters:
            judged = times_judged(store.rows())
            shuffled = sorted(
                (task for task in shuffled if judged[task.id] < raters), key=lambda task: -judged[task.id]
            )
        self._todo, self._seen = deque(shuffled), list[Task]()
        self._ids = {task.id for task in shuffled}
        self._rows: dict[str, list[Row]] = {}
        self._judging = threading.Lock()

    @property
    def task(self) -> Task | None:
        """What is asked now; None where everything is judged."""
        return self._todo[0] if self._todo else None

    @property
    def verdict(self) -> Verdict | None:
        """What was said to it before; None for nothing."""
        return verdict_of(self._rows.get(self.task.id, []), self.task.answers) if self.task else None

    @property
    def reason(self) -> str:
        """And why."""
        rows = self._rows.get(self.task.id) if self.task else None
        return (rows and rows[0]["reason"]) or ""

    @property
    def progress(self) -> tuple[int, int]:
        """Tasks judged, of how many."""
        return len(self._rows), len(self._ids)

    @property
    def begun(self) -> bool:
        """Whether there is a task to go back to."""
        return bool(self._seen)

    def recall(self, user: str | None) -> None:
        """Pass over what a person of that name has judged before; of people without one nothing is known."""
        if user is None:
            return
        with self._judging:
            own: dict[str, list[Row]] = {}
            for row in self._store.rows():
                if row.get("user") == user and "item" in row:
                    own.setdefault(row["item"], []).append(row)
            self._rows |= {name: rows for name, rows in own.items() if name in self._ids}
            judged = [task for task in self._todo if task.id in own]
            self._todo = deque(task for task in self._todo if task.id not in own)
            self._seen = judged + self._seen

    def judge(self, task_id: str, verdict: Verdict | None, reason: str = "", user: str | None = None) -> None:
        """Store a verdict on a task and go on; None takes it back and stays.

        Nothing happens where another task is asked by now: a second click of a double click is no verdict on it.

        Raises:
            OSError: If that cannot be stored; what was stored before still is.
        """
        with self._judging:
            if self.task is None or self.task.id != task_id:
                return
            task = self.task
            about = {"user": user, "item": task.id}
            rows = [] if verdict is None else rows_of(task.prompt, task.answers, verdict, reason, **about)
            stored = self._store.put_all(self._rows.get(task_id, []), rows)
            if stored:
                self._rows[task_id] = stored
                self._seen.append(self._todo.popleft())
            else:
                self._rows.pop(task_id, None)

    def explain(self, task_id: str, reason: str) -> None:
        """Change the reason of the verdict on the task that is asked; without a verdict it comes with that."""
        with self._judging:
            rows = self._rows.get(task_id)
            if rows and self.task and self.task.id == task_id:
                if stored := self._store.explain(rows, reason):
                    self._rows[task_id] = stored
                else:
                    del self._rows[task_id]

    def skip(self, task_id: str) -> None:
        """Go on to the next task; one without a verdict comes again at the end."""
        with self._judging:
            if self.task is None or self.task.id != task_id:
                return
            self._seen.append(self._todo.popleft())
            if task_id not in self._rows:
                self._todo.append(self._seen[-1])

    def back(self) -> None:
        """Go back to the task before."""
        with self._judging:
            if self._seen:
                task = self._seen.pop()
                self._todo = deque([task, *(other for other in self._todo if other.id != task.id)])


def times_judged(rows: Sequence[Row]) -> Counter[str]:
    """Task -> how many people have judged it. Those without a name are told apart by the second of their judgement."""
    return Counter(
        item for item, _ in {(row["item"], row.get("user") or row["created_at"]) for row in rows if "item" in row}
    )
