"""What a benchmark is: where its items come from, how they are asked, how the answers are judged and counted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from bnf_align.evaluation.result import EvalResult
from bnf_align.judge.wording import fill

Row = dict[str, Any]
Message = dict[str, Any]


class Hub(NamedTuple):
    """Where the items of a task are published."""

    dataset: str
    config: str | None
    split: str
    revision: str
    """A commit, so that the items cannot change unseen."""


class Question(NamedTuple):
    """What a judge is asked about one answer."""

    id: str
    """The item's id and what tells its questions apart, such as `#1` and `#2` for the two orders."""
    messages: list[Message]
    row: Row
    """What the judgment's row carries besides the judge's text: `item`, `game`, `baseline`, ..."""


@dataclass(frozen=True)
class Task:
    """A benchmark. A task is one file with one subclass and one instance, entered in `tasks.TASKS`."""

    name: ClassVar[str]
    version: ClassVar[int]
    hub: ClassVar[Hub]
    template: ClassVar[str]
    """Our wording of the prompt, with `{field}` where an item's texts go."""

    def items(self, rows: Iterable[Row]) -> list[Row]:
        """Items (`id`, texts, gold) from rows of the hub's data set or of the upstream repository's files.

        Raises:
            BadInput: If a row lacks what the task needs.
        """
        raise NotImplementedError

    def prompt(self, item: Row, template: str | None = None) -> list[Message]:
        """The messages that ask `item`, in our wording or in that of `template`."""
        return [{"role": "user", "content": fill(template or self.template, self.fields(item))}]

    def fields(self, item: Row) -> dict[str, str]:
        """The texts that a template may name."""
        raise NotImplementedError

    def score(self, rows: Sequence[Row], **options: Any) -> EvalResult:
        """Metrics of answers (of judgments, for a task with a judge): a pure function of `rows`."""
        raise NotImplementedError


@dataclass(frozen=True)
class JudgedTask(Task):
    """A benchmark whose answers a judge model reads."""

    judge: ClassVar[str]
    """The judge model that the paper used."""
    judge_template: ClassVar[str]
    """Our wording of what the judge is asked."""
    judge_tokens: ClassVar[int]
    """The longest judgment."""
    judge_json: ClassVar[bool] = False
    """Whether the judge is held to JSON."""

    def answers(self, rows: Iterable[Row]) -> dict[str, Row]:
        """Item id -> row with `output`, from answer rows of ours or of the benchmark's own shape."""
        return {str(row["id"] if "id" in row else row["session_id"]): row for row in rows if "output" in row}

    def questions(
        self, item: Row, answer: str, baseline: str | None = None, template: str | None = None
    ) -> list[Question]:
        """What to ask the judge about `answer` to `item`, against `baseline`'s answer where there is one."""
        raise NotImplementedError

    def follow_up(self, question: Question, judgment: str, template: str | None = None) -> Question | None:
        """What to ask next, under the same id, where `judgment` lacks a verdict; None where it is to stay so."""
        return None
