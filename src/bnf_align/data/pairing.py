"""Which responses belong together: pairs, what a loss cannot use of them, and the rows of KTO's KL term."""

from __future__ import annotations

from itertools import pairwise

import datasets
import numpy as np
from numpy.typing import ArrayLike

from bnf_align.data.responses import Responses
from bnf_align.reasons import Reason
from bnf_align.records import BadInput, DataReport, Finding, counted, rows_text


def units(responses: datasets.Dataset) -> list[list[int]]:
    """Positions of the responses of each unit (a pair: chosen, rejected; or a single one), in order."""
    positions: dict[int, list[int]] = {}
    for position, pair in enumerate(responses["pair_id"]):
        positions.setdefault(pair, []).append(position)
    return list(positions.values())


def response_ids(responses: datasets.Dataset) -> list[tuple[int, str]]:
    """(row, side) of every response; of pairs the side is "chosen" or "rejected", of others "up" or "down"."""
    pair_ids = responses["pair_id"][:]
    paired = {one for one, other in pairwise(pair_ids) if one == other}
    words = {(True, True): "chosen", (True, False): "rejected", (False, True): "up", (False, False): "down"}
    columns = zip(responses["row"], pair_ids, responses["label"], strict=True)
    return [(row, words[pair in paired, label]) for row, pair, label in columns]


def for_pairs(responses: datasets.Dataset, report: DataReport) -> datasets.Dataset:
    """The responses a pairwise loss can use: whole pairs; single ones are left out and counted.

    Raises:
        BadInput: If there is no pair.
    """
    paired = sorted(position for unit in units(responses) if len(unit) == 2 for position in unit)
    if not paired:
        raise BadInput(
            f"{report.source} holds {len(responses):,} single responses and no pair, but this loss compares the two "
            "responses of a pair. Train on it with --loss_type bnf, kto, nll_pll or sft"
        )
    rows = responses["row"][:]
    for position in sorted({*range(len(rows))} - {*paired}):
        report.drop(Reason("single_response"), rows[position])
    report.ups = report.downs = 0
    return responses.select(paired)


def for_one_label(responses: datasets.Dataset, report: DataReport, up: bool) -> datasets.Dataset:
    """The responses of one label, for losses that train on it alone: of a pair one; the others are left out, counted.

    Raises:
        BadInput: If there is none.
    """
    kept, other, side, others_loss = ("up", "down", "chosen", "npo") if up else ("down", "up", "rejected", "sft")
    wanted, rows = np.asarray(responses["label"]) == up, responses["row"][:]
    if not wanted.any():
        raise BadInput(
            f"{report.source} holds {len(rows):,} {other}s and no {kept}, but this loss trains on {kept}s alone. "
            f"Train on {other}s alone with --loss_type {others_loss}"
        )
    for unit in units(responses):
        if not wanted[unit].any():
            report.drop(Reason("other_label", kept=kept), rows[unit[0]])
    if report.pairs:
        report.notes.append(
            f"of {counted(report.pairs, 'pair')} only the {side} answers are used, and count as {kept}s"
        )
    count = int(wanted.sum())
    report.pairs, report.ups, report.downs = 0, count * up, count * (not up)
    return responses.select(np.flatnonzero(wanted))


# KTO's KL term


def kl_rows(responses: datasets.Dataset, max_length: int | None) -> datasets.Dataset:
    """The rows that KTO's z0 is measured on: each prompt with a completion of another one, as `kl_donors` deals them.

    Nothing is drawn: the same responses, in file order, make the same rows, whose reference is cached like any other.
    A step takes the rows of its own responses, so its donors are as random a sample of all answers as the step is. A
    completion that `tokenize` has cut is taken as it was cut, where TRL takes the uncut one; no row keeps more than
    `max_length` tokens. All columns but `input_ids`, `completion_mask` and `end` are those of the prompt's response.
    """
    columns = Responses(responses)
    made: dict[str, list] = {"input_ids": [], "completion_mask": [], "end": []}
    for row, donor in enumerate(kl_donors(responses["prompt_id"][:]).tolist()):
        start, taken = int(columns.mask(row).argmax()), int(columns.mask(donor).argmax())
        tokens = np.concatenate([columns.tokens(row)[:start], columns.tokens(donor)[taken:]])[:max_length]
        mask = np.concatenate([np.zeros(start, dtype=bool), columns.mask(donor)[taken:]])[:max_length]
        end = int(columns.ends[donor]) - taken + start
        made["input_ids"].append(tokens)
        made["completion_mask"].append(mask)
        made["end"].append(end if columns.ends[donor] >= 0 and end < len(tokens) else -1)
    kept = {name: responses[name][:] for name in ("label", "pair_id", "prompt_id", "row")}
    return datasets.Dataset.from_dict({**made, **kept}, features=responses.features)


def kl_donors(prompt_ids: ArrayLike) -> np.ndarray:
    """(n,) which response gives each prompt its completion: every one once, and never to its own prompt.

    The responses are put in order of their prompts, each prompt where it first occurs, and rotated by as many as the
    most frequent prompt has. So nothing meets its own prompt, unless one has more than half of all responses: then
    as few do as can be, 2 x its responses - all. Where all prompts differ this is the rotation by one that TRL makes
    when its batch is the whole file (`add_kl_completion_ids` of trl 1.16, kto_trainer.py); of pairs each chosen answer
    comes from a chosen one, and each rejected from a rejected one.

    Example:
        >>> kl_donors([0, 0, 1, 1, 2]).tolist()
        [3, 4, 0, 1, 2]
    """
    _, first, which, counts = np.unique(prompt_ids, return_index=True, return_inverse=True, return_counts=True)
    order = np.argsort(first[which], kind="stable")
    donors = np.empty_like(order)
    donors[order] = np.roll(order, max(1, min(counts.max(), len(order) - counts.max())))
    return donors


def own_kl_rows(responses: datasets.Dataset) -> Finding | None:
    """The rows that `kl_rows` cannot give the completion of another prompt, because one prompt has most of them."""
    prompts, rows = np.asarray(responses["prompt_id"]), responses["row"][:]
    own = np.flatnonzero(prompts == prompts[kl_donors(prompts)])
    if not len(own):
        return None
    most = int(np.bincount(prompts).max())
    text = (
        f"{len(own):,} of {len(prompts):,} prompts get another of their own completions where KTO's z0 wants those of "
        f"other prompts, because one prompt has {most:,} of all responses: {rows_text([rows[at] for at in own])}. z0 "
        "is then measured on what is trained; add rows of other prompts, or take --loss_type bnf, which has no z0"
    )
    return Finding("own_kl_rows", text, [rows[at] for at in own])
