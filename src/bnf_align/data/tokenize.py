"""From checked rows to responses: token ids and which of them are scored, cut to length here and nowhere else."""

from __future__ import annotations

from collections.abc import Sequence

import datasets
import numpy as np
from datasets.utils import tqdm
from transformers import PreTrainedTokenizerBase

from bnf_align.data.encode import Encoded, encode_row, is_chat
from bnf_align.data.template import TemplateRefusal, end_token_id, merge_system, takes_system
from bnf_align.records import BadInput, DataReport, PreferenceRow, rows_text

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
    _check_tokenizer(rows, tokenizer, report)
    rows = [_with_system_merged(row) for row in rows] if merge_system_prompt else rows
    _check_system(rows, tokenizer, report.source)
    encoded = _encoded(rows, tokenizer, report)
    units = [unit for unit in encoded if _fits(unit, max_length)]
    for unit in encoded:
        if not _fits(unit, max_length):
            report.drop(_too_long(max_length), unit[0].row)
    if not units:
        raise BadInput(_none_left(report, [answer for unit in encoded for answer in unit], max_length))
    _remark(report, units, tokenizer, max_length)
    return _dataset(units, max_length)


def _check_tokenizer(rows: Sequence[PreferenceRow], tokenizer: PreTrainedTokenizerBase, report: DataReport) -> None:
    chat = [row["row"] for row in rows if is_chat(row)]
    plain = [row["row"] for row in rows if not is_chat(row)]
    name = tokenizer.name_or_path or "The tokenizer"
    if chat and not tokenizer.chat_template:
        raise BadInput(
            f"{report.source} holds messages in {rows_text(chat)}, but {name} has no chat template: is it a base "
            "model's? Take the instruction-tuned model's tokenizer, or give a template with --chat_template_path."
        )
    if plain and not tokenizer.eos_token:
        raise BadInput(
            f"{report.source} holds plain text in {rows_text(plain)}, but {name} has no EOS token, so the end of an "
            "answer could not be learnt. Name it with --eos_token."
        )
    if plain and tokenizer.chat_template:
        report.notes.append(f"plain text, to which the chat template is not applied: {rows_text(plain)}")


def _check_system(rows: Sequence[PreferenceRow], tokenizer: PreTrainedTokenizerBase, source: str) -> None:
    system = [row["row"] for row in rows if is_chat(row) and any(turn["role"] == "system" for turn in row["prompt"])]
    if system and not takes_system(tokenizer):
        raise BadInput(
            f"{source} has system messages in {rows_text(system)}, which the chat template of "
            f"{tokenizer.name_or_path or 'the tokenizer'} refuses or leaves out. Put their text before the first user "
            "turn's with --merge_system_prompt"
        )


def _with_system_merged(row: PreferenceRow) -> PreferenceRow:
    return {**row, "prompt": merge_system(row["prompt"])} if is_chat(row) else row


def _encoded(
    rows: Sequence[PreferenceRow], tokenizer: PreTrainedTokenizerBase, report: DataReport
) -> list[list[Encoded]]:
    chat_end = end_token_id(tokenizer)
    encoded = []
    for row in tqdm(rows, desc="Tokenizing", unit="row", delay=2):
        try:
            encoded.append(encode_row(row, tokenizer, chat_end))
        except TemplateRefusal as error:
            report.drop(f"the chat template refuses them: {error}", row["row"])
    return encoded


def _fits(unit: list[Encoded], max_length: int | None) -> bool:
    """Whether every response of a unit keeps a scored token: a pair stays whole or goes."""
    return all(answer.mask[:max_length].any() for answer in unit)


def _too_long(max_length: int | None) -> str:
    return f"prompts longer than max_length={max_length}"


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
        "end": [answer.end if _ended(answer, max_length) else -1 for _, answer in answers],
    }
    return datasets.Dataset.from_dict(columns, features=FEATURES)


def _ended(answer: Encoded, max_length: int | None) -> bool:
    return answer.end < len(answer.ids[:max_length])


def _none_left(report: DataReport, answers: list[Encoded], max_length: int | None) -> str:
    too_long = report.dropped.get(_too_long(max_length))
    if not too_long:
        listed = "; ".join(f"{reason}: {rows_text(rows)}" for reason, rows in report.dropped.items())
        return f"{report.source}: no row is left after tokenising. {listed}."
    lengths = [len(answer.ids) for answer in answers]
    shortest = min(int(answer.mask.argmax()) for answer in answers)
    wanted = 1 << int(np.quantile(lengths, 0.95)).bit_length()
    return (
        f"{report.source}: every prompt is longer than max_length={max_length} (shortest {shortest:,} tokens), so no "
        f"token of an answer is left to score. Try --max_length {wanted}"
    )


def _remark(
    report: DataReport, units: list[list[Encoded]], tokenizer: PreTrainedTokenizerBase, max_length: int | None
) -> None:
    """Set the counts to what is left, and say what is cut, open or rendered otherwise than at inference."""
    report.pairs = sum(len(unit) == 2 for unit in units)
    report.ups = sum(len(unit) == 1 and unit[0].label for unit in units)
    report.downs = len(units) - report.pairs - report.ups
    answers = [answer for unit in units for answer in unit]
    _remark_on_cuts(report, answers, max_length)
    endless = [answer for answer in answers if answer.end == len(answer.ids)]
    if endless:
        report.warnings.append(f"no end token after the answer, as the template writes it: {_rows(endless)}")
    lost = [answer for answer in answers if answer.lost]
    if lost:
        report.warnings.append(
            f"the tokens of a prompt alone are not those it has before its answer: {_rows(lost)}. The answer starts "
            f"where they part; of the first, this end of the prompt is left out: {tokenizer.decode(lost[0].lost)!r}"
        )
    doubled = [answer for answer in answers if answer.doubled]
    if doubled:
        report.notes.append(f"the text begins with BOS, which the tokenizer adds too; one is kept: {_rows(doubled)}")


def _remark_on_cuts(report: DataReport, answers: list[Encoded], max_length: int | None) -> None:
    p50, p95 = (round(length) for length in np.quantile([len(answer.ids) for answer in answers], (0.5, 0.95)))
    report.lengths = {"p50": p50, "p95": p95, "max": max(len(answer.ids) for answer in answers)}
    cut = [a for a in answers if max_length is not None and len(a.ids) > max_length and not _ended(a, max_length)]
    if cut:
        report.cut = sorted({answer.row for answer in cut})
        report.warnings.append(
            f"{len(cut) / len(answers):.1%} of answers are cut at max_length={max_length} and lose their end token, "
            f"so the model is not taught to stop there (prompt and answer: p50 {p50:,}, p95 {p95:,} tokens). "
            "Raise --max_length if memory allows"
        )


def _rows(answers: list[Encoded]) -> str:
    return rows_text(sorted({answer.row for answer in answers}))


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
