"""What a benchmark is: where items come from, how they are asked, judged and counted, and what scoring gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, NamedTuple

from bnf_align.judge.wording import fill
from bnf_align.records import BadInput, rows_text
from bnf_align.thoughts import without_thoughts

Metrics = dict[str, float | int | None]


@dataclass
class EvalResult:
    """One model's numbers on one task, what each item got, and what was left out.

    A number never travels alone: `provenance` says which model, task version, wording, judge, seed and command made
    it, as far as the files say so.
    """

    task: str
    version: int
    """Of the task's rules: a change that can move a number raises it."""
    metrics: Metrics = field(default_factory=dict)
    """Per cent, characters or counts, named as in the published tables; None where something needed is missing."""
    items: list[dict[str, Any]] = field(default_factory=list)
    """One per item: `id` and its verdict (`correct`, `answer`; `score`; `games`)."""
    dropped: dict[str, list[str]] = field(default_factory=dict)
    """Reason -> ids of what does not count."""
    notes: list[str] = field(default_factory=list)
    """How something was read, each said once."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """`model`, `template` (sha256 of the wording, or "ours"), `judge`, `seed`, `command`, `file`."""

    def drop(self, reason: str, item: str) -> None:
        """Count `item` as left out for `reason`."""
        self.dropped.setdefault(reason, []).append(item)

    def as_dict(self) -> dict[str, Any]:
        """The result as one JSON object."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The result in plain words, one number a line."""
        model = self.provenance.get("model") or "unknown model"
        lines = [f"{self.task} (version {self.version}): {model}"]
        lines += [f"  {name:<16} {_shown(value)}" for name, value in self.metrics.items()]
        lines += [f"  left out {rows_text(ids)}: {reason}" for reason, ids in self.dropped.items()]  # type: ignore[arg-type]
        return lines + [f"  note: {note}" for note in self.notes]


def _shown(value: float | int | None) -> str:
    if value is None:
        return "not measured"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


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


def answer_text(row: Row) -> str:
    """The text of an answer row, ours or ZeroEval's, without the reasoning before it; empty where it gave none."""
    output = row["output"]
    if isinstance(output, list):
        output = output[0] if output else None
    return without_thoughts(output) if isinstance(output, str) else ""


UNNAMED = "unknown model"


def model_of(row: Mapping[str, Any]) -> str:
    """The model a row speaks of, in whichever column its benchmark writes it."""
    columns = ("model", "model_id", "model_test", "generator")
    return str(next((row[name] for name in columns if row.get(name)), UNNAMED))


def one_model(names: Iterable[str], model: str | None = None) -> str:
    """The model to score, as the rows write it: `model`, or the only one there is.

    A name fits with or without its owner (`google/gemma-7b-it`), and any name fits rows that have none.

    Raises:
        BadInput: If `model` is none of `names`, or there are several to choose from.
    """
    known = sorted(set(names))
    fitting = [name for name in known if model in (None, name, name.split("/")[-1]) or name == UNNAMED]
    if model in known or len(fitting) == 1:
        return model if model in known and model is not None else fitting[0]
    raise BadInput(
        f"A number is one model's, and the rows have {len(known):,}: {', '.join(known)}. "
        f"{'Choose one' if model is None else f'None is {model!r}: choose another'} with --model NAME."
    )


def one_judge(names: Iterable[str | None]) -> str | None:
    """Who judged, as far as the rows say so.

    Raises:
        BadInput: If several did.
    """
    known = sorted({str(name) for name in names if name})
    if len(known) > 1:
        raise BadInput(
            f"The rows were judged by {' and by '.join(known)}. Judges differ by more than models do, so a mean over "
            "both says nothing: put the judgments of each into a file of its own."
        )
    return known[0] if known else None
