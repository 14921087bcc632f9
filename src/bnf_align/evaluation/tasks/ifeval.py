"""IFEval: 541 prompts whose instructions a program can check (https://arxiv.org/abs/2311.07911)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bnf_align.answers.ifeval import instructions_of, verdicts
from bnf_align.evaluation.task import UNNAMED, EvalResult, Hub, Message, Row, Task, model_of, one_model
from bnf_align.judge.wording import fill
from bnf_align.records import BadInput, counted, rows_text
from bnf_align.thoughts import without_thoughts


@dataclass(frozen=True)
class IFEval(Task):
    """Zero-shot: the prompt is asked as it stands."""

    name = "ifeval"
    version = 1
    hub = Hub("google/IFEval", "default", "train", "966cd89545d6b6acfd7638bc708b98261ca58e84")
    template = "{prompt}"

    def items(self, rows: Iterable[Row]) -> list[Row]:
        """Items from rows with `prompt`, `instruction_id_list` and `kwargs`; `id` or the official `key` names them.

        Raises:
            BadInput: If a row has no prompt, or an instruction that IFEval does not know.
        """
        rows = list(rows)
        bad = [number for number, row in enumerate(rows) if not isinstance(row.get("prompt"), str)]
        if bad:
            raise BadInput(
                f"{rows_text(bad)} of {len(rows):,} have no `prompt` that is a text, so they are no items of "
                f"{self.name}. Give another file with --data."
            )
        return [
            {
                "id": str(row.get("id", row.get("key", number))),
                "prompt": row["prompt"],
                "instruction_id_list": [one.kind for one in instructions],
                "kwargs": [one.arguments for one in instructions],
            }
            for number, (row, instructions) in enumerate(zip(rows, instructions_of(rows), strict=True))
        ]

    def prompt(self, item: Row, template: str | None = None) -> list[Message]:
        """The message that asks `item`.

        Raises:
            BadInput: If the template has no place for the prompt.
        """
        if template is not None and fill(template, {"prompt": ""}) == template:
            raise BadInput("The template has no place for the prompt: write {prompt} where it goes.")
        return super().prompt(item, template)

    def fields(self, item: Row) -> dict[str, str]:
        """`prompt`."""
        return {"prompt": item["prompt"]}

    def score(
        self, rows: Sequence[Row], *, model: str | None = None, data: Sequence[Row] = (), **_: Any
    ) -> EvalResult:
        """Check responses as the official program does.

        Args:
            rows: One per prompt: `prompt` and `response`, as the official file has them, or the rows of `eval run`,
                which have `output` and bring their instructions.
            model: Which model, where the rows are of several.
            data: Items, for rows without instructions. Without any, the data set on the hub.

        Returns:
            `prompt_strict`, `prompt_loose`: per cent of prompts whose instructions are all followed;
            `instruction_strict`, `instruction_loose`: per cent of instructions; `total` prompts and `instructions`.
            Loose is the better of eight versions of the response. An item's `correct` is that of `prompt_strict`.

        Raises:
            BadInput: If a row has no prompt or no text, no row is of an item, or the items cannot be had.
        """
        rows, name = _of_one_model(rows, model)
        own = [row for row in rows if "instruction_id_list" in row]
        if data or len(own) == len(rows):
            known = self.items(data)
        else:
            from bnf_align.evaluation.items import load_items

            known = load_items(self)
        items = {item["prompt"]: item for item in [*self.items(own), *known]}
        responses: dict[str, Any] = {row["prompt"]: _response(row) for row in rows}
        answered = [items[prompt] for prompt in responses if prompt in items]
        result = EvalResult(self.name, self.version, provenance={"model": None if name == UNNAMED else name})
        for number, row in enumerate(rows):
            if row["prompt"] not in items:
                result.drop("no item has this prompt", str(row.get("id", row.get("key", number))))
        if not answered:
            raise BadInput(
                f"None of the {len(rows):,} rows has the prompt of one of the {len(items):,} items of {self.name}, "
                "letter for letter. Give the items that were asked with --data FILE."
            )
        for item, instructions in zip(answered, instructions_of(answered), strict=True):
            strict, loose = (verdicts(responses[item["prompt"]], instructions, loose) for loose in (False, True))
            one = {"id": item["id"], "correct": all(strict), "instructions": item["instruction_id_list"]}
            result.items.append({**one, "strict": strict, "loose": loose})
        for rule in ("strict", "loose"):
            result.metrics[f"prompt_{rule}"] = _share([all(item[rule]) for item in result.items])
            result.metrics[f"instruction_{rule}"] = _share([one for item in result.items for one in item[rule]])
        result.metrics |= {"total": len(answered), "instructions": sum(len(item["strict"]) for item in result.items)}
        if repeated := len(rows) - len(responses):
            result.notes.append(
                f"{counted(repeated, 'row')} with the prompt of an earlier one: the last of each counts, "
                "as in the official program"
            )
        if missing := len(items) - len(answered):
            result.notes.append(f"{missing:,} of {len(items):,} items have no response here, and do not count")
        return result


def _of_one_model(rows: Sequence[Row], model: str | None) -> tuple[list[Row], str]:
    """The rows of `model`, or of the only one, and its name."""
    faults = {
        "have no `prompt` that is a text": [n for n, row in enumerate(rows) if not isinstance(row.get("prompt"), str)],
        "have no text in `response` or `output`": [n for n, row in enumerate(rows) if _response(row) is None],
    }
    if any(faults.values()) or not rows:
        listed = " and ".join(f"{rows_text(numbers)} {fault}" for fault, numbers in faults.items() if numbers)
        raise BadInput(
            f"Of {len(rows):,} rows {listed or 'none can be scored'}. ifeval scores what a model answers to a prompt: "
            "the official file's `prompt` and `response`, or the rows of `bnf-align eval run`. Where a model said "
            'nothing, the response is "".'
        )
    name = one_model((model_of(row) for row in rows), model)
    return [row for row in rows if model_of(row) == name], name


def _response(row: Row) -> str | None:
    text = row.get("response", row.get("output"))
    return without_thoughts(text) if isinstance(text, str) else None


def _share(followed: Sequence[bool]) -> float:
    return sum(followed) / len(followed) * 100
