"""The log-probabilities of a user's own held-out responses under a model, one row each, resumable."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import xxhash
from peft import PeftModel
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bnf_align.data.micro_batches import batches
from bnf_align.data.pairing import response_ids
from bnf_align.data.responses import Responses
from bnf_align.data.rows import preference_rows
from bnf_align.data.tokenize import tokenize_rows
from bnf_align.evaluation.run import Progress
from bnf_align.fingerprint import weights_hash
from bnf_align.journal import Journal
from bnf_align.logps import completion_logps

logger = logging.getLogger(__name__)


def measure(
    rows: Iterable[Mapping[str, Any]],
    model: PreTrainedModel | PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    out: str | Path,
    *,
    name: str,
    max_tokens: int = 8192,
    max_length: int | None = 4096,
    merge_system_prompt: bool = False,
    score_thoughts: bool = True,
    about: Mapping[str, Any] | None = None,
    **row_options: Any,
) -> Progress:
    """Write `id, item, side, logp, tokens, model` for every response of `rows`, read and tokenised as in training.

    Args:
        rows: Raw preference rows, pairs or thumbs.
        model: What is measured; it is put in evaluation mode.
        tokenizer: Its tokenizer, with a padding token.
        out: The file; one begun with another model or other rows is refused.
        name: The model's name.
        max_tokens: Padded tokens of one forward pass.
        max_length: As in training.
        merge_system_prompt: As in training.
        score_thoughts: As in training.
        about: What is worth knowing beside the numbers.
        row_options: `column_map`, `label_map`, ... of `preference_rows`.
    """
    checked, report = preference_rows(rows, source="held-out rows", **row_options)
    dataset = tokenize_rows(
        checked,
        tokenizer,
        report,
        max_length=max_length,
        merge_system_prompt=merge_system_prompt,
        score_thoughts=score_thoughts,
    )
    logger.warning("\n".join(report.lines()))
    responses, names = Responses(dataset), response_ids(dataset)
    ids = [f"{item}/{side}" for item, side in names]
    model.eval()
    data = xxhash.xxh3_128(responses.ids.tobytes() + responses.masks.tobytes()).hexdigest()
    card = {"task": "held_out", "model": name, "weights": weights_hash(model), "max_length": max_length, "data": data}
    bar = tqdm(total=len(names), desc="held-out responses", unit="row")
    with bar, Journal(out, card=card, about=about) as journal:
        for batch in batches(responses.lengths, max_tokens):
            if not {ids[row] for row in batch} <= journal.done:
                tensors = responses.collate(batch, tokenizer.pad_token_id).items()
                with torch.no_grad():
                    found = completion_logps(model, {key: value.to(model.device) for key, value in tensors})
                logps, tokens = found.logp.tolist(), found.length.tolist()
                journal.append(
                    {"id": ids[row], "item": names[row][0], "side": names[row][1], "model": name}
                    | {"logp": logps[i], "tokens": int(tokens[i])}
                    for i, row in enumerate(batch)
                )
            bar.update(len(batch))
        path = journal.finish(ids)
    return Progress(Path(path), len(names), 0)
