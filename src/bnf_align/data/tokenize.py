"""From checked rows to responses: token ids and which of them are scored, cut to length here and nowhere else.

The ids are those of TRL's KTO trainer (`tokenize_fn` in trl 1.16, kto_trainer.py), but for four things it leaves as
they come: only the assistant's turns of an answer of several turns are scored, a doubled BOS is left out, the very
first token is never scored, and a plain text that ends in its end token, or in the chat template's, gets no other.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import NamedTuple

import datasets
import numpy as np
import xxhash
from datasets.utils import tqdm
from transformers import PreTrainedTokenizerBase

from bnf_align.data.template import (
    TemplateRefusal,
    assistant_spans,
    end_token_id,
    merge_system,
    render,
    shared_prefix,
)
from bnf_align.data.token_ledger import TokenLedger, check_tokenizer
from bnf_align.records import BadInput, DataReport, PreferenceRow

__all__ = ["FEATURES", "Encoded", "encode_row", "end_token_id", "is_chat", "show_tokens", "tokenize_rows"]

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
    """Hash of the prompt's own tokens."""
    lost: list[int]
    """Tokens at the end of the prompt, rendered alone, that are not there when the answer follows."""
    doubled: bool
    """Whether a second BOS at the start was left out."""
    ended: bool
    """Whether it is plain text that brought its end token along."""
    ends_early: bool
    """Whether an end token stands in the text of an answer, before the one that ends it."""


def tokenize_rows(
    rows: Sequence[PreferenceRow],
    tokenizer: PreTrainedTokenizerBase,
    report: DataReport,
    *,
    max_length: int | None,
    merge_system_prompt: bool = False,
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
    ledger = TokenLedger(tokenizer, report, max_length=max_length, vocab_size=vocab_size)
    encode = partial(
        encode_row, tokenizer=tokenizer, chat_end=end_token_id(tokenizer), merge_system_prompt=merge_system_prompt
    )
    outcomes = tqdm(_shared_out(rows, encode, num_proc), "Tokenizing", len(rows), unit="row", delay=2)
    units = [unit for row, outcome in zip(rows, outcomes, strict=True) if (unit := ledger.add(row["row"], outcome))]
    for finding in ledger.finish():
        finding.say(report)
    prompts: dict[int, int] = {}
    answers = [(number, answer) for number, unit in enumerate(units) for answer in unit]
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
    # In memory: a cache on disk would outlive a changed tokenizer, and rows that somebody deletes. With explicit
    # types: Arrow would store Python's integers in 8 bytes each.
    return datasets.Dataset.from_dict(columns, features=FEATURES)


def is_chat(row: PreferenceRow) -> bool:
    """Whether a checked row holds messages rather than plain text."""
    return isinstance(row["prompt"], list)


# Processes

Outcome = list[Encoded] | str
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
    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe(duplex=False) for _ in range(processes)]
    workers = [context.Process(target=_work, args=(n, pipes, rows, encode), daemon=True) for n in range(processes)]
    for worker in workers:
        worker.start()
    for _, sender in pipes:
        sender.close()
    try:
        for chunk in range(-(-len(rows) // CHUNK)):
            outcomes = pipes[chunk % processes][0].recv()
            if isinstance(outcomes, Exception):
                raise outcomes
            yield from outcomes
    except EOFError:
        raise BadInput(
            f"One of the {processes} processes that tokenise was killed, most likely for memory. Try fewer: "
            "--dataset_num_proc 1"
        ) from None
    finally:
        for receiver, _ in pipes:
            receiver.close()
        for worker in workers:
            worker.join()


def _work(
    number: int,
    pipes: list[tuple[Connection, Connection]],
    rows: Sequence[PreferenceRow],
    encode: Callable[[PreferenceRow], Outcome],
) -> None:
    """Send what `encode` makes of every chunk of rows that is this process's turn, while somebody reads it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for other, (receiver, sender) in enumerate(pipes):
        receiver.close()  # so that nobody reads when the first process is gone, and this one ends too
        if other != number:
            sender.close()
    for start in range(number * CHUNK, len(rows), len(pipes) * CHUNK):
        outcomes: list[Outcome] | Exception
        try:
            outcomes = [encode(row) for row in rows[start : start + CHUNK]]
        except Exception as error:
            outcomes = error
        try:
            pipes[number][1].send(outcomes)
        except BrokenPipeError:
            return


# A row


def encode_row(
    row: PreferenceRow, tokenizer: PreTrainedTokenizerBase, chat_end: int | None, merge_system_prompt: bool = False
) -> Outcome:
    """The responses of a checked row, a pair's chosen one first; or why the chat template refuses it.

    Args:
        row: A row of `preference_rows`.
        tokenizer: The model's.
        chat_end: `end_token_id(tokenizer)`, which ends the answers of conversational rows; EOS ends plain ones.
        merge_system_prompt: As in `tokenize_rows`.
    """
    sides = [("chosen", True), ("rejected", False)] if "chosen" in row else [("completion", row["label"])]
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    if not is_chat(row):
        prompt = tokenizer(text=row["prompt"])["input_ids"]
        ends = [eos] if chat_end in (None, eos) or not tokenizer.chat_template else [eos, chat_end]
        texts = tuple(tokenizer.convert_ids_to_tokens(ends))
        unit = []
        for side, label in sides:
            ended = row[side].rstrip().endswith(texts)
            ids = tokenizer(text=row["prompt"] + row[side] + ("" if ended else tokenizer.eos_token))["input_ids"]
            spans = [slice(shared_prefix(prompt, ids), len(ids))]
            unit.append(_response(row["row"], label, ids, spans, prompt, ends, bos)._replace(ended=ended))
        return unit
    messages = merge_system(row["prompt"]) if merge_system_prompt else row["prompt"]
    try:
        prompt = render(tokenizer, messages, row, generation=True)
        unit = []
        for side, label in sides:
            ids = render(tokenizer, messages + row[side], row)
            spans = [slice(shared_prefix(prompt, ids), len(ids))]
            if len(row[side]) > 1:
                spans = assistant_spans(tokenizer, messages + row[side], len(messages), ids, row, chat_end)
            unit.append(_response(row["row"], label, ids, spans, prompt, [chat_end], bos))
        return unit
    except TemplateRefusal as error:
        return f"the chat template refuses them: {error}"


def _response(
    row: int,
    label: bool,
    ids: list[int],
    spans: list[slice],
    prompt: list[int],
    ends: list[int | None],
    bos: int | None,
) -> Encoded:
    tokens, mask = np.asarray(ids, dtype=np.int32), np.zeros(len(ids), dtype=bool)
    for span in spans:
        mask[span] = True
    # A text that begins with BOS gets a second one from tokenizers that add it; models have never seen two.
    extra = max(next((i for i, token in enumerate(ids) if token != bos), 0) - 1, 0)
    tokens, mask = tokens[extra:], mask[extra:]
    mask[:1] = False  # nothing predicts the first token
    found = np.flatnonzero(mask & np.isin(tokens, [end for end in ends if end is not None]))
    return Encoded(
        row,
        label,
        tokens,
        mask,
        end=int(found[-1]) if len(found) else len(tokens),
        prompt=xxhash.xxh3_64_intdigest(np.asarray(prompt, dtype=np.int32).tobytes()),
        lost=prompt[shared_prefix(prompt, ids) :],
        doubled=extra > 0,
        ended=False,
        ends_early=len(found) > 0 and int((tokens[found] == tokens[found[-1]]).sum()) > len(spans),
    )


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
