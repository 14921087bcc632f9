"""From checked rows to responses: token ids and which of them are scored, cut to length here and nowhere else.

Scored are the answer's own words, from where they begin in what the chat template writes (`turns.py`) to the token
that ends them. The ids are those of TRL's KTO trainer (`tokenize_fn` in trl 1.16, kto_trainer.py), but for four things
it leaves as they come: messages reach the template in the form it writes whole, a template without an end of turn gets
one, a doubled BOS is left out, and a plain text that ends in its end token, or in the chat template's, gets no other.
The very first token is never scored: nothing predicts it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
import xxhash
from datasets.utils import tqdm
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from bnf_align.data.rows import preference_rows
from bnf_align.data.template import (
    TemplateRefusal,
    as_the_template_wants,
    dated,
    end_token_id,
    merge_system,
    render_text,
    shared_prefix,
    split_thought,
    template_facts,
    tokens_of,
)
from bnf_align.data.token_ledger import TokenLedger, check_tokenizer
from bnf_align.data.turns import REASONING, Conversation, Renderings, Turn
from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport, PreferenceRow

FEATURES = datasets.Features(
    {
        "input_ids": datasets.List(datasets.Value("int32")),
        "completion_mask": datasets.List(datasets.Value("bool")),
        "label": datasets.Value("bool"),
        "pair_id": datasets.Value("int64"),
        "prompt_id": datasets.Value("int64"),
        "row": datasets.Value("int64"),
        "end": datasets.Value("int64"),
    }
)
CHUNK = 256
"""Rows that a process takes at a time."""
ROWS_OF_A_TABLE = 1_000
ROWS_PER_PROCESS = 10_000
"""Rows for which another process is started, where their number is not given: it takes them seconds."""
MOST_PROCESSES = 16


class Encoded(NamedTuple):
    """One response before it is cut."""

    row: int
    label: bool
    ids: np.ndarray
    """(T,) int32, prompt and completion."""
    mask: np.ndarray
    """(T,) bool, True where a token is scored."""
    end: int
    """Position of the scored token that ends the answer; T where there is none."""
    prompt: int
    """Hash of the prompt."""
    found: Mapping[str, Any]
    """What deserves a look, by the names of `token_ledger.FINDINGS` -> True, or the text that it is about, quoted."""
    left_out: frozenset[str] = frozenset()
    """What of the answer the template leaves out: "reasoning", "text", "tool calls"."""


class LeftOut(NamedTuple):
    """Why a row is left out."""

    reason: Reason
    lost: frozenset[str] = frozenset()
    """What of its answers the template leaves out, as in `Encoded.left_out`."""


def tokenize_rows(
    rows: Sequence[PreferenceRow],
    tokenizer: PreTrainedTokenizerBase,
    report: DataReport,
    *,
    max_length: int | None,
    merge_system_prompt: bool = False,
    score_thoughts: bool = True,
    template_date: str | None = None,
    vocab_size: int | None = None,
    num_proc: int | None = None,
) -> datasets.Dataset:
    """Tokenise checked rows into one record per response, in file order, of a pair the chosen one first.

    Args:
        rows: Rows of `preference_rows`.
        tokenizer: The model's; conversational rows need its chat template, plain ones its EOS token.
        report: What became of these rows. Its counts are set to what is left here, so each call wants its own.
        max_length: Tokens of prompt and completion kept, from the start; None for all.
        merge_system_prompt: Put a system message before the first user turn's text instead of in a turn of its own.
        score_thoughts: Whether reasoning that an answer brings is scored with it, or only what follows it.
        template_date: The date that chat templates write as today's, YYYY-MM-DD; None: today's.
        vocab_size: Rows of the model's input embedding, where that is known: no token may lie beyond.
        num_proc: Processes that share the work; None: one, and more where rows are many. Changes no result.

    Returns:
        `input_ids` (T,) int32, `completion_mask` (T,) bool, `label`, `pair_id` (the two responses of a pair share it,
        a single answer has its own), `prompt_id` (the first `pair_id` with the same prompt), `row` (number in the
        source), `end` (position of the end token, -1 if cut).

    Raises:
        BadInput: If the tokenizer cannot write these rows or the model not read them, or none of them is left.
    """
    chat = [row["row"] for row in rows if is_chat(row)]
    plain = [row["row"] for row in rows if not is_chat(row)]
    written = merge_system if merge_system_prompt else list
    system = [
        row["row"] for row in rows if is_chat(row) and any(turn["role"] == "system" for turn in written(row["prompt"]))
    ]
    check_tokenizer(chat, plain, system, tokenizer, report)
    ledger = TokenLedger(
        tokenizer, report, max_length=max_length, score_thoughts=score_thoughts, vocab_size=vocab_size
    )
    encode = partial(
        encode_row,
        tokenizer=tokenizer,
        merge_system_prompt=merge_system_prompt,
        score_thoughts=score_thoughts,
        template_date=template_date,
    )
    outcomes = tqdm(_shared_out(rows, encode, num_proc), "Tokenizing", len(rows), unit="row", delay=2)
    kept = (unit for row, outcome in zip(rows, outcomes, strict=True) if (unit := ledger.add(row["row"], outcome)))
    tables = list(_tables(kept, max_length))
    for finding in ledger.finish():
        finding.say(report)
    return datasets.concatenate_datasets(tables)


def _tables(units: Iterable[list[Encoded]], max_length: int | None) -> Iterator[datasets.Dataset]:
    """The responses of rows, cut, some thousand rows at a time: as Python objects they take ten times the memory.

    In memory: a cache on disk would outlive a changed tokenizer, and rows that somebody deletes. With explicit types:
    Arrow would store Python's integers in 8 bytes each.
    """
    prompts: dict[int, int] = {}
    numbered = enumerate(units)
    while answers := [(number, answer) for number, unit in islice(numbered, ROWS_OF_A_TABLE) for answer in unit]:
        columns = {
            "input_ids": [answer.ids[:max_length] for _, answer in answers],
            "completion_mask": [answer.mask[:max_length] for _, answer in answers],
            "label": [answer.label for _, answer in answers],
            "pair_id": [number for number, _ in answers],
            "prompt_id": [prompts.setdefault(answer.prompt, number) for number, answer in answers],
            "row": [answer.row for _, answer in answers],
            # A template may leave the end token out (the end is then past the last token), and a cut takes it away.
            "end": [answer.end if answer.end < len(answer.ids[:max_length]) else -1 for _, answer in answers],
        }
        yield datasets.Dataset.from_dict(columns, features=FEATURES)


def scored_text(
    row: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None = None,
    merge_system_prompt: bool = False,
    score_thoughts: bool = True,
    **row_options: Any,
) -> list[str]:
    """The text that training scores of a row: the decoded scored tokens of each response, of a pair the chosen first.

    Args:
        row: A raw row of TRL's types.
        tokenizer: The model's, with the chat template and the end token that training uses.
        max_length: Tokens of prompt and completion kept, from the start; None for all.
        merge_system_prompt: As in training.
        score_thoughts: As in training.
        row_options: `column_map`, `label_map`, `role_map`, `conflicting_labels` of `preference_rows`.

    Raises:
        BadInput: If training would leave the row out; the message says why.

    Example:
        >>> scored_text({"prompt": "2+2=", "chosen": "4", "rejected": "5"}, tokenizer)  # doctest: +SKIP
        ['4<eos>', '5<eos>']
    """
    rows, report = preference_rows([row], source="the row", **row_options)
    made = tokenize_rows(
        rows,
        tokenizer,
        report,
        max_length=max_length,
        merge_system_prompt=merge_system_prompt,
        score_thoughts=score_thoughts,
        num_proc=1,
    )
    scored = (np.array(one["input_ids"])[np.array(one["completion_mask"], dtype=bool)] for one in made)
    return [str(tokenizer.decode(ids, clean_up_tokenization_spaces=False)) for ids in scored]


def is_chat(row: PreferenceRow) -> bool:
    """Whether a checked row holds messages rather than plain text."""
    return isinstance(row["prompt"], list)


# Processes

Outcome = list[Encoded] | LeftOut
"""The responses of a row, or why it has none."""


def _shared_out(
    rows: Sequence[PreferenceRow], encode: Callable[[PreferenceRow], Outcome], num_proc: int | None
) -> Iterator[Outcome]:
    """What `encode` makes of each row, in their order, whatever the number of processes."""
    if num_proc is not None and num_proc < 1:
        raise BadInput(f"--dataset_num_proc {num_proc}: at least one process has to tokenise.")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    processes = num_proc or min(len(rows) // ROWS_PER_PROCESS + 1, cores, MOST_PROCESSES)
    # Any other way to start a process would run the user's script once more.
    if processes == 1 or "fork" not in multiprocessing.get_all_start_methods():
        yield from map(encode, rows)
        return
    failed: Exception | None = None
    try:
        # torch's workers end with this process, and it hears at once of one that was killed. With a generator of its
        # own the loader leaves alone the one that the run's numbers come from.
        chunks: DataLoader[Any] = DataLoader(
            rows,  # type: ignore[arg-type]
            CHUNK,
            collate_fn=partial(_encoded, encode=encode),
            num_workers=processes,
            multiprocessing_context="fork",
            generator=torch.Generator(),
        )
        for outcomes in chunks:
            if isinstance(outcomes, Exception):
                failed = outcomes
                break
            yield from outcomes
    except RuntimeError as error:
        raise BadInput(
            f"One of the {processes} processes that tokenise was killed, most likely for memory. Try fewer: "
            "--dataset_num_proc 1"
        ) from error
    if failed is not None:
        raise failed


def _encoded(rows: Sequence[PreferenceRow], encode: Callable[[PreferenceRow], Outcome]) -> list[Outcome] | Exception:
    """What `encode` makes of rows; an error as it is, where the loader would put its traceback into the message."""
    try:
        return [encode(row) for row in rows]
    except Exception as error:
        return error


# A row


def encode_row(
    row: PreferenceRow,
    tokenizer: PreTrainedTokenizerBase,
    merge_system_prompt: bool = False,
    score_thoughts: bool = True,
    template_date: str | None = None,
) -> Outcome:
    """The responses of a checked row, a pair's chosen one first; or why it is left out. See `tokenize_rows`."""
    sides = [("chosen", True), ("rejected", False)] if "chosen" in row else [("completion", row["label"])]
    if not is_chat(row):
        return [_plain(row, side, label, tokenizer, score_thoughts) for side, label in sides]
    facts, unit = template_facts(tokenizer), []
    row = dated(row, tokenizer, template_date)
    others: Renderings = []
    try:
        messages = as_the_template_wants(merge_system(row["prompt"]) if merge_system_prompt else row["prompt"], facts)
        prompt = render_text(tokenizer, messages, row, generation=True)
        for side, label in sides:
            conversation = Conversation(
                tokenizer,
                messages + as_the_template_wants(row[side], facts),
                row,
                score_thoughts=score_thoughts,
                others=others,
            )
            answer = _chat(row["row"], label, conversation, len(messages), prompt)
            if isinstance(answer, LeftOut):
                return answer
            unit.append(answer)
    except TemplateRefusal as error:
        return LeftOut(Reason("template_refuses", error=str(error)))
    if len(unit) == 2 and np.array_equal(unit[0].ids, unit[1].ids):
        lost = unit[0].left_out | unit[1].left_out
        return LeftOut(Reason("equal_in_template"), lost)
    return unit


def _plain(
    row: PreferenceRow, side: str, label: bool, tokenizer: PreTrainedTokenizerBase, score_thoughts: bool
) -> Encoded:
    prompt, text, eos = row["prompt"], row[side], tokenizer.eos_token_id
    end = end_token_id(tokenizer) if tokenizer.chat_template else eos
    ends = {token for token in (eos, end) if token is not None}
    ended = text.rstrip().endswith(tuple(tokenizer.convert_ids_to_tokens(list(ends))))
    ids = tokenizer(text=prompt + text + ("" if ended else tokenizer.eos_token))["input_ids"]
    alone = tokenizer(text=prompt)["input_ids"]
    thought = split_thought(text, prompt.rstrip().endswith("<think>"))[0]
    before = alone if score_thoughts or not thought else tokenizer(text=prompt + thought)["input_ids"]
    mask = np.zeros(len(ids), dtype=bool)
    mask[shared_prefix(before, ids) :] = True
    at = [i for i, token in enumerate(ids) if mask[i] and token in ends]
    lost = alone[shared_prefix(alone, ids) :]
    found = {
        "not_a_prefix": lost and repr(tokenizer.decode(lost)),
        "ended": ended,
        "ends_early": any(ids[i] == ids[at[-1]] for i in at[:-1]),
        "thoughts": bool(thought),
    }
    return _response(row["row"], label, ids, mask, at[-1] if at else None, prompt, tokenizer, found)


def _chat(row: int, label: bool, conversation: Conversation, first: int, prompt: str) -> Encoded | LeftOut:
    """A response in messages; or why there is nothing of it.

    The answer is what follows the `first` messages, the prompt; `prompt` is that rendered, the assistant's turn
    opened.
    """
    text, ids, tokenizer = conversation.text, conversation.ids, conversation.tokenizer
    facts = template_facts(tokenizer)
    opened = shared_prefix(prompt, text)
    begin = opened
    turns: dict[int, Turn] = {}
    for at, message in enumerate(conversation.messages[first:], first):
        if message["role"] == "assistant":
            turn = conversation.turn(at, begin)
            if not turns and opened == len(prompt):  # what the prompt for generation holds is not the answer's
                turn = turn._replace(start=max(turn.start, opened), stop=max(turn.stop, opened))
            begin, turns[at] = turn.stop, turn
    brings = frozenset().union(*(turn.brings for turn in turns.values()))
    lost = frozenset().union(*(turn.lost for turn in turns.values()))
    if all(turn.brings <= turn.lost for turn in turns.values()):
        return LeftOut(Reason("nothing_in_template"), lost)
    if not conversation.score_thoughts and all(turn.brings <= turn.lost | {REASONING} for turn in turns.values()):
        return LeftOut(Reason("only_reasoning"))
    mask, end, early, added = np.zeros(len(ids) + 1, dtype=bool), None, False, False
    ends = {*facts.ends, facts.after_answer, facts.after_call}
    for at, turn in turns.items():
        if turn.brings <= turn.lost:  # its end alone would teach to say nothing
            continue
        start, stop, end = conversation.span(at, turn)
        early |= any(token in ends for token in ids[start : stop - (end is not None)])
        follows = facts.after_call if turn.calls else facts.after_answer
        if end is None and follows is not None and at == len(conversation.messages) - 1:
            ids, end, stop, added = [*ids, follows], len(ids), len(ids) + 1, True
        mask[start:stop] = True
    turn = next(iter(turns.values()))
    context = text[opened : turn.start] if text[opened : turn.start].strip() else ""
    border, alone = turn.start if context else opened, []
    if not conversation.score_thoughts and REASONING in turn.brings - turn.lost:
        context = ""  # it is the row's own
    at = conversation.token_at(border)
    if conversation.straddles(at, border):
        alone = list(tokens_of(tokenizer, text[:border])["input_ids"])
    lost_tokens = alone[shared_prefix(alone, ids) :]
    found = {
        "not_a_prefix": lost_tokens and repr(tokenizer.decode(lost_tokens)),
        "ends_early": early,
        "context": context and repr(context),
        "unwritten": not context and prompt[opened:] and repr(prompt[opened:]),
        "added_end": added and repr(tokenizer.decode([ids[-1]])),
        "thoughts": REASONING in brings - lost,
    }
    return _response(row, label, ids, mask[: len(ids)], end, prompt, tokenizer, found, lost)


def _response(
    row: int,
    label: bool,
    ids: list[int],
    mask: np.ndarray,
    end: int | None,
    prompt: str,
    tokenizer: PreTrainedTokenizerBase,
    found: Mapping[str, Any],
    left_out: frozenset[str] = frozenset(),
) -> Encoded:
    # A text that begins with BOS gets a second one from tokenizers that add it; models have never seen two.
    bos = tokenizer.bos_token_id
    extra = max(next((i for i, token in enumerate(ids) if token != bos), 0) - 1, 0)
    mask = mask[extra:]
    mask[:1] = False  # nothing predicts the first token
    return Encoded(
        row,
        label,
        np.asarray(ids[extra:], dtype=np.int32),
        mask,
        end=len(mask) if end is None else end - extra,
        prompt=xxhash.xxh3_64_intdigest(prompt.encode(errors="backslashreplace")),
        found={"two_bos": extra > 0, **{name: text for name, text in found.items() if text}},
        left_out=left_out,
    )


def show_tokens(responses: datasets.Dataset, tokenizer: PreTrainedTokenizerBase, count: int) -> str:
    """The first `count` rows, of a pair both responses, token by token: position, id, scored (`#`) or not, text."""
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
