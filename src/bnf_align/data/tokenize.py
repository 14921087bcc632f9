"""From checked rows to responses: token ids and which of them are scored, cut to length here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

import datasets
from datasets.utils import tqdm
from transformers import PreTrainedTokenizerBase

from bnf_align.data.encode import Encoded, is_chat
from bnf_align.data.template import end_token_id, merge_system
from bnf_align.data.token_ledger import TokenLedger, check_tokenizer
from bnf_align.records import DataReport, PreferenceRow

__all__ = ["FEATURES", "end_token_id", "show_tokens", "tokenize_rows"]

FEATURES = datasets.Features(
    {
        "input_ids": datasets.List(datasets.Value("int32")),
        "completion_mask": datasets.List(datasets.Value("bool")),
        "label": datasets.Value("bool"),
        "pair_id": datasets.Value("int64"),
        "row": datasets.Value("int64"),
        "end": datasets.Value("int64"),
    }
)


def tokenize_rows(
    rows: Sequence[PreferenceRow],
    tokenizer: PreTrainedTokenizerBase,
    report: DataReport,
    *,
    max_length: int | None,
    merge_system_prompt: bool = False,
) -> datasets.Dataset:
    """Tokenise checked rows into one record per response, in file order, of a pair the chosen one first.

    Args:
        rows: Rows of `preference_rows`.
        tokenizer: The model's; conversational rows need its chat template, plain ones its EOS token.
        report: What became of these rows. Its counts are set to what is left here, so each call wants its own.
        max_length: Tokens of prompt and completion kept, from the start; None for all.
        merge_system_prompt: Put a system message before the first user turn's text instead of in a turn of its own.

    Returns:
        `input_ids` (T,) int32, `completion_mask` (T,) bool, `label`, `pair_id` (the two responses of a pair share it,
        a single answer has its own), `row` (number in the source), `end` (position of the end token, -1 if cut).

    Raises:
        BadInput: If the tokenizer cannot write these rows, or none of them is left.
    """
    rows = [_with_system_merged(row) for row in rows] if merge_system_prompt else rows
    chat = [row["row"] for row in rows if is_chat(row)]
    plain = [row["row"] for row in rows if not is_chat(row)]
    system = [row["row"] for row in rows if is_chat(row) and any(turn["role"] == "system" for turn in row["prompt"])]
    check_tokenizer(chat, plain, system, tokenizer, report)
    ledger = TokenLedger(tokenizer, report, max_length=max_length)
    units = [unit for row in tqdm(rows, desc="Tokenizing", unit="row", delay=2) if (unit := ledger.encode(row))]
    for finding in ledger.finish():
        finding.say(report)
    return _dataset(units, max_length)


def _with_system_merged(row: PreferenceRow) -> PreferenceRow:
    return {**row, "prompt": merge_system(row["prompt"])} if is_chat(row) else row


def _dataset(units: list[list[Encoded]], max_length: int | None) -> datasets.Dataset:
    # In memory and with explicit types: the cache of `Dataset.from_generator` outlives a changed tokenizer, and Arrow
    # would store Python's integers in 8 bytes each.
    answers = [(number, answer) for number, unit in enumerate(units) for answer in unit]
    columns = {
        "input_ids": [answer.ids[:max_length] for _, answer in answers],
        "completion_mask": [answer.mask[:max_length] for _, answer in answers],
        "label": [answer.label for _, answer in answers],
        "pair_id": [number for number, _ in answers],
        "row": [answer.row for _, answer in answers],
        # A template may leave the end token out (the end is then past the last token), and a cut takes it away.
        "end": [answer.end if answer.end < len(answer.ids[:max_length]) else -1 for _, answer in answers],
    }
    return datasets.Dataset.from_dict(columns, features=FEATURES)


def show_tokens(responses: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, count: int) -> str:
    """The first `count` rows token by token: position, id, whether it is scored (`#`), and its text.

    Args:
        responses: What `tokenize_rows` returned.
        tokenizer: The tokenizer it was made with.
        count: Rows to show; a pair shows both its responses.
    """
    shown = responses.select(range(min(len(responses), 2 * count)))
    lines = []
    for response in (response for response in shown if response["pair_id"] < shown[0]["pair_id"] + count):
        scored = response["completion_mask"]
        thumb, end = "up" if response["label"] else "down", "ends" if response["end"] >= 0 else "does not end"
        lines.append(f"row {response['row']}, {thumb}: {len(scored)} tokens, {sum(scored)} scored (#), {end}")
        for position, (token, hit) in enumerate(zip(response["input_ids"], scored, strict=True)):
            lines.append(f"{position:6} {token:7} {'#' if hit else '.'} {tokenizer.decode([token])!r}")
        lines.append("")
    return "\n".join(lines)
