"""From raw rows to checked preference rows, with every row that is left out counted under its reason."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import datasets

from bnf_align.data.check import checked_row
from bnf_align.data.columns import named_rows
from bnf_align.data.labels import read_labels
from bnf_align.data.messages import normalise_messages
from bnf_align.data.read import dataset_rows
from bnf_align.data.template import shared_prefix
from bnf_align.records import BadInput, DataReport, PreferenceRow, rows_text

UNBALANCED = 20
ASKING = ("system", "user", "tool")


def preference_rows(
    rows: Iterable[Mapping[str, Any]],
    *,
    source: str,
    column_map: Mapping[str, str] | None = None,
    label_map: Mapping[str, str] | None = None,
    role_map: Mapping[str, str] | None = None,
    conflicting_labels: str = "drop",
) -> tuple[list[PreferenceRow], DataReport]:
    """Check and normalise raw rows of TRL's types; pairs and single answers may stand in one source.

    Read are `prompt, chosen, rejected`; `chosen, rejected` that begin with their prompt; `prompt, completion, label`;
    and `messages, label`, where the last assistant turn is the answer. `tools` and `chat_template_kwargs` stay.

    Args:
        rows: Raw rows, or an Arrow dataset of them. A row's position is its number in every message.
        source: Name of the source, for messages.
        column_map: Our column name -> the source's (`--map`).
        label_map: Label value -> "up", "down" or "drop" (`--label_map`).
        role_map: The source's role -> ours (`--role_map`).
        conflicting_labels: What becomes of single answers labelled both up and down: "drop" all of them, "keep" them,
            or keep those with the "majority" label (`--conflicting_labels`).

    Returns:
        The rows kept, in their order, and what became of all of them.

    Raises:
        BadInput: If the source cannot be read for certain, or no row of it is usable.
    """
    if conflicting_labels not in ("drop", "keep", "majority"):
        raise BadInput(f"--conflicting_labels {conflicting_labels}: known are drop, keep and majority.")
    report = DataReport(source)
    named = named_rows(_plain_rows(rows), column_map, report)
    report.rows = len(named)
    numbers = _numbers(named)
    normalise_messages(named, numbers, role_map, report)
    numbered = zip(numbers, named, strict=True)
    checked = [kept for number, row in numbered if (kept := checked_row(number, row, report))]
    checked = _labelled(checked, label_map, report)
    checked = _without_conflicts(checked, conflicting_labels, report)
    if not checked:
        raise BadInput(f"{source}: 0 of {report.rows:,} rows are usable. {_reasons(report)}")
    _count(checked, report)
    _remark(checked, report)
    return checked, report


def _numbers(rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """The rows' numbers in their source: what `split_by_prompt` wrote into `row`, or else their positions."""
    numbers = [row["row"] for row in rows if isinstance(row.get("row"), int)]
    return numbers if len(numbers) == len(rows) and numbers == sorted(set(numbers)) else list(range(len(rows)))


def split_by_prompt(
    rows: Iterable[Mapping[str, Any]], fraction: float, seed: int = 0, column_map: Mapping[str, str] | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Split rows, raw or checked, into training and evaluation so that all rows of one prompt land on one side.

    The side follows from a hash of the prompt alone, so it stays the same when rows are appended or shuffled.

    Args:
        rows: Rows of TRL's types.
        fraction: Share of the prompts to hold out, from 0 to 1; the share of rows comes close where prompts are many.
        seed: Another seed holds out other prompts.
        column_map: As in `preference_rows`, where rows are raw.

    Returns:
        Training and evaluation rows, each with its number in `row`, which `preference_rows` keeps.

    Raises:
        BadInput: If a fraction above 0 leaves one side empty.
    """
    sides: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    prompts = set()
    for number, row in enumerate(_plain_rows(rows)):
        prompt = _prompt_key(row, column_map or {})
        prompts.add(prompt)
        digest = hashlib.blake2b(f"{seed}\0{prompt}".encode(errors="backslashreplace"), digest_size=8).digest()
        sides[int.from_bytes(digest, "big") < fraction * 2**64].append({"row": number, **row})
    if fraction > 0 and not all(sides):
        raise BadInput(
            f"--eval_fraction {fraction} leaves no {'training' if sides[1] else 'evaluation'} rows: "
            f"{len(sides[0]) + len(sides[1]):,} rows have {len(prompts):,} different prompts, and all rows of one "
            "stay together. Choose another fraction."
        )
    return sides


def _plain_rows(rows: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    return dataset_rows(rows) if isinstance(rows, datasets.Dataset) else rows


def _prompt_key(row: Mapping[str, Any], column_map: Mapping[str, str]) -> str:
    """The prompt of a row that may be raw: its column, the conversation before the answer, or what answers share."""
    prompt, messages, chosen, rejected = (
        row.get(column_map.get(name, name)) for name in ("prompt", "messages", "chosen", "rejected")
    )
    if prompt is None and isinstance(messages, list):
        turns = [i for i, turn in enumerate(messages) if isinstance(turn, dict) and turn.get("role") not in ASKING]
        prompt = messages[: turns[-1]] if turns else messages
    elif prompt is None and chosen and rejected and isinstance(chosen, type(rejected)):
        prompt = chosen[: shared_prefix(chosen, rejected)]
    return _canonical(prompt)


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)


def _labelled(
    rows: list[PreferenceRow], label_map: Mapping[str, str] | None, report: DataReport
) -> list[PreferenceRow]:
    singles = [row for row in rows if "label" in row]
    values = [row["label"] for row in singles]
    try:
        labels, note = read_labels(values, label_map, rows=[row["row"] for row in singles])
    except BadInput as error:
        raise BadInput(f"{report.source}: {error}") from error
    if note:
        report.notes.append(f"label: {note}")
    for row, value, label in zip(singles, values, labels, strict=True):
        row["label"] = label
        if label is None:
            report.drop("no label" if value is None else "a label that --label_map drops", row["row"])
    return [row for row in rows if "label" not in row or row["label"] is not None]


def _answer_key(row: PreferenceRow) -> str:
    return _canonical({name: value for name, value in row.items() if name not in ("row", "label")})


def _without_conflicts(rows: list[PreferenceRow], rule: str, report: DataReport) -> list[PreferenceRow]:
    """Rows without the single answers that carry both labels: their gradients cancel where they should teach."""
    votes: dict[str, Counter[bool]] = defaultdict(Counter)
    for row in rows:
        if "label" in row:
            votes[_answer_key(row)][row["label"]] += 1
    torn = {key: vote for key, vote in votes.items() if len(vote) > 1}
    if not torn:
        return rows
    ups, downs = sum(vote[True] for vote in torn.values()), sum(vote[False] for vote in torn.values())
    counts = f"{len(torn):,} answers carry both labels ({ups:,} ups, {downs:,} downs)"
    if rule == "keep":
        report.warnings.append(f"{counts}: kept, as --conflicting_labels keep says, and they cancel each other")
        return rows
    left = {"drop": "none of them is kept", "majority": "the more frequent label is kept"}[rule]
    report.notes.append(f"{counts}: {left} (--conflicting_labels drop|majority|keep)")
    lost = {id(row) for row in rows if "label" in row and _loses(row["label"], torn.get(_answer_key(row)), rule)}
    for row in rows:
        if id(row) in lost:
            report.drop("the same answer is labelled both up and down", row["row"])
    return [row for row in rows if id(row) not in lost]


def _loses(label: bool, vote: Counter[bool] | None, rule: str) -> bool:
    return vote is not None and (rule == "drop" or vote[label] <= vote[not label])


def _reasons(report: DataReport) -> str:
    return "; ".join(f"{reason}: {rows_text(rows)}" for reason, rows in report.dropped.items()) + "."


def _count(rows: Sequence[PreferenceRow], report: DataReport) -> None:
    report.ups = sum(row.get("label") is True for row in rows)
    report.downs = sum(row.get("label") is False for row in rows)
    report.pairs = len(rows) - report.ups - report.downs


def _remark(rows: Sequence[PreferenceRow], report: DataReport) -> None:
    """Say what is kept but deserves a look."""
    repeats = len(rows) - len({_canonical({**row, "row": None}) for row in rows})
    if repeats:
        report.notes.append(f"{repeats:,} rows repeat an earlier one word for word, and are kept")
    continued = [row["row"] for row in rows if _ends_with_assistant(row["prompt"])]
    if continued:
        report.warnings.append(
            f"the prompt ends with an assistant turn, which the answer continues: {rows_text(continued)}"
        )
    unprompted = [row["row"] for row in rows if isinstance(row["prompt"], str) and not row["prompt"].strip()]
    if unprompted:
        report.warnings.append(f"the prompt is empty: {rows_text(unprompted)}")


def _ends_with_assistant(prompt: str | list[dict[str, Any]]) -> bool:
    return isinstance(prompt, list) and prompt[-1]["role"] == "assistant"


def remark_on_balance(report: DataReport) -> None:
    """Warn where single responses are all or nearly all of one label; pairs are balanced by nature."""
    if report.pairs:
        return
    if not report.downs:
        report.warnings.append("only ups: nothing says what to avoid, so this is plain supervised fine-tuning on them")
    elif not report.ups:
        report.warnings.append("only downs: nothing says what to do instead, so the model can only unlearn")
    elif max(report.ups, report.downs) > UNBALANCED * min(report.ups, report.downs):
        report.warnings.append(
            f"{report.ups:,} ups against {report.downs:,} downs: the rarer label has little say in the mean of a step"
        )
