"""Axolotl: the data formats of its DPO, IPO, ORPO and KTO."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from bnf_align.data.importers.files import Record
from bnf_align.data.importers.hh import transcript
from bnf_align.data.importers.importer import Importer, Message, Options, Pair, Thumb
from bnf_align.data.importers.shape import dicts, first_of, records_like
from bnf_align.data.importers.turns import asked, choice, ending, messages, with_system
from bnf_align.records import DataReport

PROMPT = ("prompt", "instruction", "input", "question")
CHOSEN = ("chosen", "chosen_response")
REJECTED = ("rejected", "rejected_response")


class Axolotl(Importer):
    """Axolotl's formats, all with an optional `system`.

        {"instruction": "Hi", "chosen_response": "Hello", "rejected_response": "What?"}   argilla
        {"input": "Hi", "chosen": "Hello", "rejected": "What?"}                           icr; intel has `question`
        {"prompt": "Hi", "chosen": [{"role": ...}, ...], "rejected": [...]}               ultra, argilla_chat
        {"messages": [...], "chosen": {"role": ...}, "rejected": {"role": ...}}           chat_template.default
        {"prompt": "Hi", "answers": [{"answer": "Hello", "rank": 1}, ...]}                nectar
        {"prompt": "Hi", "completion": "Hello", "label": true}                            KTO

    Of ranked answers rank 1 is the best, as in the Nectar data, and the last one the worst. (Axolotl's own
    `zephyr.nectar` takes the answer with the highest rank as the chosen one.)

    Source: github.com/axolotl-ai-cloud/axolotl, docs/rlhf.qmd and src/axolotl/prompt_strategies; for the ranks
    huggingface.co/datasets/berkeley-nest/Nectar.
    """

    name = "axolotl"
    title = "Axolotl's format"
    VALUES: ClassVar = {"true": "up", "false": "down"}

    def matches(self, record: Any, path: Path) -> bool:
        """Names that no other format has; `prompt, chosen, rejected` is TRL's own format, and read without import."""
        if not isinstance(record, dict):
            return False
        keys = record.keys()
        if any("rank" in answer for answer in dicts(record.get("answers"))):
            return "prompt" in keys
        turns = isinstance(record.get("messages"), list) and isinstance(record.get("chosen"), dict)
        foreign = {"chosen", "rejected"} <= keys and isinstance(first_of(record, ("input", "question")), str)
        own = {"chosen_response", "rejected_response"} <= keys and bool(keys & set(PROMPT))
        tagged = {"completion", "label"} <= keys and bool(keys & {"instruction", "question"}) and "prompt" not in keys
        return turns or own or tagged or (foreign and not keys & {"instruction", "prompt"})

    def read(self, paths: Sequence[Path], options: Options, report: DataReport) -> Iterator[Thumb | Pair]:
        """Pairs and thumbs, in the order of the file."""
        wanted = "a row with two answers, ranked answers, or a completion"
        for row, record in records_like(paths, _is_row, wanted, report):
            prompt = _prompt(record)
            if record.get("completion") is not None:
                yield from _single(row, prompt, record, report)
            elif "answers" in record:
                yield from _ranked(row, prompt, record, report)
            else:
                pair = choice(row, prompt, first_of(record, CHOSEN), first_of(record, REJECTED), {}, report)
                yield from [] if pair is None else [pair]


def _is_row(record: Record) -> bool:
    return bool(record.keys() & {"completion", "answers", *CHOSEN})


def _prompt(record: Record) -> list[Message] | None:
    """The turns before the answer, as far as they do not stand in it."""
    if record.get("messages") is not None:
        turns = messages(record["messages"])
        return turns and with_system(turns, record.get("system"))
    question = first_of(record, PROMPT)
    turns = transcript(question) if isinstance(question, str) and question.startswith("\n\nHuman:") else None
    if turns and turns[-1].get("content") == "":
        turns = turns[:-1]  # Nectar's prompts end with "Assistant:", where the answer begins
    if turns is None and isinstance(question, list):
        turns = messages(question)
    return with_system(turns, record.get("system")) if turns else asked(question, system=record.get("system"))


def _single(row: int, prompt: list[Message] | None, record: Record, report: DataReport) -> Iterator[Thumb]:
    answer = ending(record["completion"])
    if prompt is None:  # KTO's argilla_chat
        prompt = messages(record.get("chosen"))
    before = answer[0] if answer and answer[0] else prompt
    if answer is None or not before:
        report.drop("a completion without prompt, or that is no answer", row)
    else:
        yield Thumb(row, before, answer[1], record.get("label"))


def _ranked(row: int, prompt: list[Message] | None, record: Record, report: DataReport) -> Iterator[Pair]:
    answers = [answer for answer in dicts(record["answers"]) if type(answer.get("rank")) in (int, float)]
    answers.sort(key=lambda answer: answer["rank"])
    if len(answers) < 2 or answers[0]["rank"] == answers[-1]["rank"]:
        report.drop("fewer than two answers of different rank", row)
    else:
        extras = {
            f"{side}_model": answer["model"]
            for side, answer in (("chosen", answers[0]), ("rejected", answers[-1]))
            if answer.get("model")
        }
        pair = choice(row, prompt, answers[0].get("answer"), answers[-1].get("answer"), extras, report)
        yield from [] if pair is None else [pair]
