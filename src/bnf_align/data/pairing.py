"""Which responses belong together: pairs, the halves a loss cannot use, and KTO's mismatched completions."""

from __future__ import annotations

from collections.abc import Callable

import datasets
import numpy as np

from bnf_align.data.responses import Responses
from bnf_align.records import BadInput, DataReport


def mismatched(responses: datasets.Dataset, max_length: int | None) -> datasets.Dataset:
    """KTO's mismatched responses: each prompt with the completion of the nearest response before it of another prompt.

    Made once, in file order, and going round the end: where prompts differ from row to row this is the rotation by
    one that TRL makes when its batch is the whole file (`add_kl_completion_ids` of trl 1.16, kto_trainer.py). Where
    answers to one prompt stand side by side, as the two of a pair do, a rotation by one would match what must not
    match. A completion that `tokenize` has cut is taken as it was cut, where TRL takes the uncut one.

    Args:
        responses: What `tokenize_rows` returned, in file order.
        max_length: Tokens kept of each, from the start; None for all.

    Returns:
        The same columns and as many rows; `label`, `pair_id` and `row` are those of the prompt's response.
    """
    columns = Responses(responses)
    bounds = list(zip(columns.starts[:-1], columns.starts[1:], strict=True))
    ids = [columns.ids[start:stop] for start, stop in bounds]
    masks = [columns.masks[start:stop] for start, stop in bounds]
    firsts = [int(mask.argmax()) for mask in masks]
    ends = responses["end"][:]
    prompts = [ids[i][: firsts[i]].tobytes() for i in range(len(ids))]
    made: dict[str, list] = {"input_ids": [], "completion_mask": [], "end": []}
    for i in range(len(ids)):
        other = _other_prompt(prompts, i)
        start, donor = firsts[i], firsts[other]
        tokens = np.concatenate([ids[i][:start], ids[other][donor:]])
        mask = np.concatenate([np.zeros(start, dtype=bool), masks[other][donor:]])
        made["input_ids"].append(tokens[:max_length])
        made["completion_mask"].append(mask[:max_length])
        end = ends[other] + start - donor if ends[other] >= 0 else -1
        made["end"].append(end if end < len(tokens[:max_length]) else -1)
    kept = {name: responses[name][:] for name in ("label", "pair_id", "row")}
    return datasets.Dataset.from_dict({**made, **kept}, features=responses.features)


def _other_prompt(prompts: list[bytes], i: int) -> int:
    """Position of the nearest response before i, round the end, with another prompt; i - 1 if there is none."""
    return next((i - back for back in range(1, len(prompts)) if prompts[i - back] != prompts[i]), i - 1)


def units(responses: datasets.Dataset) -> list[list[int]]:
    """Positions of the responses of each unit (a pair: chosen, rejected; or a single one), in order."""
    positions: dict[int, list[int]] = {}
    for position, pair in enumerate(responses["pair_id"]):
        positions.setdefault(pair, []).append(position)
    return list(positions.values())


def for_pairs(responses: datasets.Dataset, report: DataReport) -> datasets.Dataset:
    """The responses a pairwise loss can use: whole pairs; single ones are left out and counted.

    Raises:
        BadInput: If there is no pair.
    """
    paired = {position for unit in units(responses) if len(unit) == 2 for position in unit}
    if not paired:
        raise BadInput(
            f"{report.source} holds {len(responses):,} single responses and no pair, but this loss compares the two "
            "responses of a pair. Train on it with --loss_type bnf, kto, nll_pll or sft"
        )
    for position, row in enumerate(responses["row"]):
        if position not in paired:
            report.drop("a single response, and this loss compares pairs", row)
    report.ups = report.downs = 0
    return _kept(responses, lambda position: position in paired)


def for_ups(responses: datasets.Dataset, report: DataReport) -> datasets.Dataset:
    """The preferred responses, for `sft`: of a pair the chosen one; downs are left out and counted.

    Raises:
        BadInput: If there is none.
    """
    labels, rows = responses["label"][:], responses["row"][:]
    if not any(labels):
        raise BadInput(
            f"{report.source} holds {len(labels):,} downs and no up: --loss_type sft has nothing to imitate."
        )
    for unit in units(responses):
        if not any(labels[position] for position in unit):
            report.drop("a down, and sft imitates ups alone", rows[unit[0]])
    if report.pairs:
        report.notes.append(f"of {report.pairs:,} pairs only the chosen answers are used, and count as ups")
    report.pairs, report.ups, report.downs = 0, sum(labels), 0
    return _kept(responses, lambda position: labels[position])


def _kept(responses: datasets.Dataset, keep: Callable[[int], bool]) -> datasets.Dataset:
    return responses.select([position for position in range(len(responses)) if keep(position)])
