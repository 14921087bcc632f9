"""From raw rows to checked preference rows, with every row that is left out counted under its reason."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import datasets

from bnf_align.data.check import checked_row
from bnf_align.data.columns import Columns, read_columns
from bnf_align.data.findings import Finding
from bnf_align.data.ledger import OUT, PAIR, UP, Ledger
from bnf_align.data.messages import MessageReader
from bnf_align.data.read import dataset_rows
from bnf_align.data.template import shared_prefix
from bnf_align.records import BadInput, DataReport, PreferenceRow
from bnf_align.sources import ImportedRows

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
    report = DataReport(source)
    raw = list(_plain_rows(rows))
    if isinstance(rows, ImportedRows):
        rows.say(report)
    checker = RowChecker(read_columns(raw, column_map, report), role_map, report)
    checked = [row for position, given in enumerate(raw) if (row := checker.row(position, given))]
    checker.finish()
    ledger = Ledger(report)
    for row in checked:
        ledger.add(row)
    for finding in ledger.settle(label_map, conflicting_labels):
        finding.say(report)
    return list(labelled(checked, ledger)), report


class RowChecker:
    """Raw rows to checked rows, one at a time.

    Args:
        columns: What the source calls its columns.
        role_map: The source's role -> ours.
        report: Where what is left out is counted.
    """

    def __init__(self, columns: Columns, role_map: Mapping[str, str] | None, report: DataReport) -> None:
        self._columns, self._report = columns, report
        self._messages = MessageReader(role_map, report)

    def row(self, position: int, raw: Mapping[str, Any]) -> PreferenceRow | None:
        """The row at a position of the source with its label as it stands there; None, and counted, if left out.

        Raises:
            BadInput: If it is not what can be read at all.
        """
        number = self._columns.number(position, raw)
        named = self._columns.named(raw)
        try:
            self._messages.read(number, named)
            return checked_row(number, named, self._report)
        except RecursionError:
            place = f"{self._report.source}, row {number}"
            raise BadInput(f"{place}: it is nested too deeply to be a conversation.") from None

    def finish(self) -> None:
        """Say what all rows together have.

        Raises:
            BadInput: If there are unknown roles.
        """
        self._messages.finish()


def labelled(rows: Iterable[PreferenceRow], ledger: Ledger) -> Iterator[PreferenceRow]:
    """Of the rows that `ledger` remembers, in their order, those it keeps, with their labels as it read them."""
    for row, side in zip(rows, ledger.sides.tolist(), strict=True):
        if side != OUT:
            yield with_label(row, side)


def with_label(row: PreferenceRow, side: int) -> PreferenceRow:
    """A row with its label as `ledger.sides` has it; a pair as it is."""
    return row if side == PAIR else {**row, "label": side == UP}


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


def remark_on_balance(report: DataReport) -> None:
    """Warn where single responses are all or nearly all of one label."""
    if (finding := balance(report)) is not None:
        finding.say(report)


def balance(report: DataReport) -> Finding | None:
    """What is wrong with the balance of single responses; pairs are balanced by nature."""
    ups, downs = report.ups, report.downs
    if report.pairs:
        return None
    if not downs:
        text = "only ups: nothing says what to avoid, so this is plain supervised fine-tuning on them"
        return Finding("one_sided", text)
    if not ups:
        return Finding("one_sided", "only downs: nothing says what to do instead, so the model can only unlearn")
    if max(ups, downs) <= UNBALANCED * min(ups, downs):
        return None
    text = f"{ups:,} ups against {downs:,} downs: the rarer label has little say in the mean of a step"
    return Finding("unbalanced", text, figures={"ups": ups, "downs": downs})
