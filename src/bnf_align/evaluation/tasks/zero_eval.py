"""What the four tasks of ZeroEval share: zero-shot, one turn, reasoning and answer as JSON, greedy, 4,096 tokens.

GSM8K and MATH need no more than that, and stand here too.

Protocol: WildEval/ZeroEval 8c1485e, `src/templates` and `src/evaluation`. The prompts have its structure in our own
words; --template puts its wording in their place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from bnf_align.answers import Extracted, equivalent, extract, final_answer, same_number, text_of
from bnf_align.evaluation.task import (
    UNNAMED,
    EvalResult,
    Hub,
    Message,
    Metrics,
    Row,
    Task,
    answer_text,
    model_of,
    one_model,
)
from bnf_align.records import BadInput, counted

IDS = {"gsm8k-main-": "gsm8k", "crux-test-": "crux", "mmlu-redux-": "mmlu_redux"}
"""How ZeroEval's ids begin -> the task; those of `math-l5` are plain numbers."""


def id_of(row: Row) -> str:
    """The item that a row is about, under our name for it or ZeroEval's."""
    return str(row.get("id", row.get("session_id")))


def outputs_of(rows: Sequence[Row], model: str | None, task: str) -> tuple[list[Row], str | None]:
    """The rows of one model, and its name: `model`, or what the rows say.

    Raises:
        BadInput: If a row has no output, or the rows are of several models and `model` is none of them.
    """
    bad = [number for number, row in enumerate(rows) if "output" not in row]
    if bad or not rows:
        seen = f"; the first is row {bad[0]} with the columns {', '.join(rows[bad[0]])}" if bad else ""
        raise BadInput(
            f"{len(bad):,} of {len(rows):,} rows have no `output`{seen}. {task} scores a model's answers, as "
            "`bnf-align eval run` and ZeroEval write them."
        )
    # Any number has a first number and any text a verdict, so another task's rows would give a number all the same.
    others = {other for start, other in IDS.items() for row in rows if id_of(row).startswith(start)} - {task}
    if others:
        raise BadInput(f"There are rows of {' and of '.join(sorted(others))}, by their ids: score them with --task.")
    name = one_model((model_of(row) for row in rows), model)
    kept = [row for row in rows if model_of(row) == name]
    return kept, (model if name == UNNAMED else name)


def with_gold(
    rows: Sequence[Row], columns: Sequence[str], items: Mapping[str, Row], task: str
) -> tuple[list[Row], list[str]]:
    """`rows` with the gold `columns`, from `items` (by id) where they lack them, and the ids that have none there.

    Raises:
        BadInput: If a row lacks one and there are no items, or no row is left.
    """
    lacking = [id_of(row) for row in rows if _lacks(row, columns)]
    if not lacking:
        return list(rows), []
    filled = [
        {**row, **{name: items[id_of(row)][name] for name in columns if name in items.get(id_of(row), {})}}
        if _lacks(row, columns)
        else row
        for row in rows
    ]
    kept = [row for row in filled if not _lacks(row, columns)]
    if not items or not kept:
        have = f"none of the {len(items):,} items of --data has their ids" if items else "there are no items"
        raise BadInput(
            f"{len(lacking):,} of {len(rows):,} rows have no {' and '.join(columns)} to grade the output with, the "
            f"first {lacking[0]!r}, and {have}. Give the items of {task} with --data FILE."
        )
    return kept, [id_of(row) for row in filled if _lacks(row, columns)]


def required(rows: Iterable[Row], columns: Sequence[str], task: str) -> list[Row]:
    """Rows that are items of `task`.

    Raises:
        BadInput: If one lacks a column.
    """
    rows = list(rows)
    bad = [number for number, row in enumerate(rows) if _lacks(row, columns)]
    if bad:
        raise BadInput(
            f"{len(bad):,} of {len(rows):,} rows are no items of {task}, the first is row {bad[0]} with the columns "
            f"{', '.join(rows[bad[0]])}; needed: {', '.join(columns)}. Give another file with --data."
        )
    return rows


def _lacks(row: Row, columns: Sequence[str]) -> bool:
    return any(row.get(name) is None for name in columns)


FORM = """\
```json
{
    "reasoning": "...",
    "answer": "..."
}
```
"""
OPEN_QUESTION = f"""\
## Question:

{{question}}

## Instruction

Work the problem out before you settle on an answer. Reply with one JSON object of the form shown here: all of your \
working in `reasoning`, nothing but the final result in `answer`.

{FORM}"""
FIELD = re.compile(r"\{\$?(question|choices|code|input)\}")


@dataclass(frozen=True)
class ZeroEvalTask(Task):
    """One of the four: they differ in how items are built and when an answer is right."""

    version = 1
    template = OPEN_QUESTION
    gold: ClassVar[tuple[str, ...]] = ("answer",)
    """The columns that an answer is graded with."""
    text: ClassVar[str] = "question"
    """Another name of the column with the question."""
    ids: ClassVar[str] = "{}"
    """What a row without an id is called, by its number."""
    blank_is_answer: ClassVar[bool] = True
    numeric: ClassVar[bool] = True
    """Whether answers are numbers, so that math-verify has an opinion on them."""

    def items(self, rows: Iterable[Row]) -> list[Row]:
        """Items from rows with a question and an `answer`: a number, a worked solution, or ZeroEval's "# 18"."""
        named = [{"question": row[self.text], **row} if self.text in row else row for row in rows]
        return [
            {
                "id": str(row.get("id", self.ids.format(number))),
                "question": row["question"],
                "answer": gold_number(row["answer"]),
            }
            for number, row in enumerate(required(named, ("question", "answer"), self.name))
        ]

    def prompt(self, item: Row, template: str | None = None) -> list[Message]:
        """The message that asks `item`.

        Raises:
            BadInput: If the template names a text that the item lacks, or none at all.
        """
        named, fields = set(FIELD.findall(template or self.template)), self.fields(item)
        if not named or not named <= fields.keys():
            wanted = ", ".join(sorted(named - fields.keys())) or "no text of the item at all"
            raise BadInput(
                f"The template names {wanted}, and item {item.get('id')!r} of {self.name} has {', '.join(fields)}. A "
                "prompt without its question would be answered all the same. Give another --template, or other --data."
            )
        return super().prompt(item, template)

    def fields(self, item: Row) -> dict[str, str]:
        """`question`."""
        return {"question": item["question"]}

    def right(self, answer: Any, row: Row) -> bool:
        """Whether `answer`, as JSON has it, is that of `row`: here, the same number."""
        return same_number(text_of(answer), gold_number(row["answer"]))

    def score(
        self,
        rows: Sequence[Row],
        *,
        model: str | None = None,
        data: Iterable[Row] = (),
        math_verify: bool = False,
        file: str = "",
        **_: Any,
    ) -> EvalResult:
        """Grade answers by ZeroEval's rules.

        Args:
            rows: One per item: `id` (or `session_id`), `output` (a text, or a list that holds one), the gold columns.
                No other column is looked at but the model's.
            model: The model's name: one rule of extraction is for Llama-3.1 alone. Without it that of the rows and
                of the file count.
            data: Items, for rows without a gold answer.
            math_verify: Whether to add `accuracy_math_verify`, a second opinion.
            file: The name of the rows' file: ZeroEval names it after the model.

        Returns:
            `accuracy`, `no_answer`: per cent of all items; `reason_length`: mean characters of the reasoning of
            answered items; `total`. An item's `correct` is None where there is no answer, which counts as wrong.

        Raises:
            BadInput: If a row has no output, or no gold answer and there is no `data`.
        """
        rows, name = outputs_of(rows, model, self.name)
        items = {id_of(item): item for item in self.items(data)}
        rows, unknown = with_gold(rows, self.gold, items, self.name)
        result = EvalResult(self.name, self.version, provenance={"model": name})
        if unknown:
            result.dropped["no item of --data has this id"] = unknown
        called = model or f"{name or ''} {file}"
        found = [extract(answer_text(row), called, blank_is_answer=self.blank_is_answer) for row in rows]
        result.items = [
            {"id": id_of(row), "correct": None, "answer": None}
            if one is None
            else {"id": id_of(row), "correct": self.right(one.answer, row), "answer": text_of(one.answer)}
            for one, row in zip(found, rows, strict=True)
        ]
        result.metrics = _metrics(result.items, found)
        if math_verify and self.numeric:
            for item, row in zip(result.items, rows, strict=True):
                answer = item["answer"]
                item["correct_math_verify"] = answer is not None and equivalent(answer, gold_number(row["answer"]))
            agreed = sum(item["correct_math_verify"] for item in result.items)
            result.metrics["accuracy_math_verify"] = _share(agreed, len(rows))
        if repeated := len(rows) - len({item["id"] for item in result.items}):
            result.notes.append(f"{counted(repeated, 'row')} with the item of an earlier one, counted again")
        return result


@dataclass(frozen=True)
class GSM8K(ZeroEvalTask):
    """ZeroEval's `gsm`, 1,319 grade-school problems: right where the first numbers are the same."""

    name = "gsm8k"
    hub = Hub("openai/gsm8k", "main", "test", "e53f048856ff4f594e959d75785d2c2d37b678ee")
    ids = "gsm8k-main-test-#{}"


@dataclass(frozen=True)
class MathLevel5(ZeroEvalTask):
    """ZeroEval's `math-l5`: the 721 hardest problems of MATH whose answer is an integer (two of them only nearly)."""

    name = "math_l5"
    hub = Hub("AI-MO/aimo-validation-math-level-5", "default", "train", "f6a57be5b8b7818f6abc1b91ada912f474466abc")
    text = "problem"


def gold_number(answer: Any) -> str:
    """The number in a gold answer: "18" of "18", of ZeroEval's "# 18", and of GSM8K's worked solution."""
    text = text_of(answer)
    return (final_answer(text) or "") if "####" in text else text.replace("#", "").strip()


def _metrics(items: Sequence[Row], found: Sequence[Extracted | None]) -> Metrics:
    reasons = [one.reasoning for one in found if one is not None]
    # Characters; of a list or an object, as published, its parts. Null and numbers have none.
    total, lengths = len(items), [len(one) if isinstance(one, str | list | dict) else 0 for one in reasons]
    return {
        "accuracy": _share(sum(bool(item["correct"]) for item in items), total),
        "no_answer": _share(total - len(lengths), total),
        "reason_length": sum(lengths) / len(lengths) if lengths else None,
        "total": total,
    }


def _share(count: int, total: int) -> float:
    # In this order: 473/800*100 prints as 59.13, as published, and 100*473/800 as 59.12.
    return count / total * 100
