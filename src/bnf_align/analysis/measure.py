"""The log-likelihood and the logit of every scored token under a method's model and its reference, resumable.

OUT/reference.jsonl, OUT/methods/NAME.jsonl    what one model says of each different response: `id` (the hash of its
                                               tokens), `logps`, `logits`
OUT/methods/NAME.parquet                       a row for each response of a method, as `table.SCHEMA` says
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from peft import PeftModel
from tqdm import tqdm
from transformers import PreTrainedModel

from bnf_align.analysis.answers import Answers, Row
from bnf_align.analysis.shifts import TokenScores, shifts
from bnf_align.analysis.table import write_table
from bnf_align.data.micro_batches import batches
from bnf_align.fingerprint import namespace_of
from bnf_align.head import HeadCall, ask, attach
from bnf_align.head.attach import Implementation
from bnf_align.journal import Journal
from bnf_align.losses import bnf_weights

Model = PreTrainedModel | PeftModel

VERSION = 2
"""Raise it whenever a measure or a row changes its meaning."""


@dataclass(frozen=True)
class Method:
    """A method to look at: its name, its model, and the responses it is looked at on."""

    name: str
    load: Callable[[], Model]
    answers: Answers


def measure(
    methods: Sequence[Method],
    load_reference: Callable[[], Model],
    out: str | Path,
    *,
    head: Implementation = "fused",
    max_tokens: int = 8192,
    about: Mapping[str, Any] | None = None,
) -> dict[str, Path]:
    """Write the rows of every method; one model is in memory at a time, and none reads a response twice.

    What grows in memory with the number of responses are their token ids. Run again, it computes what is missing.

    Args:
        methods: The methods; several may share one `Answers`.
        load_reference: The model that all of them were trained from.
        out: The folder of the rows.
        head: As in training. The fused one keeps logits in float32; a model's own are rounded to its dtype, in
            bfloat16 to 1/16 for a logit of 10, which is more than many shifts.
        max_tokens: Padded tokens of one forward pass.
        about: What is worth knowing beside the rows, such as the command.

    Returns:
        Name of the method -> its Parquet file.

    Raises:
        BadInput: If rows on disk were made with other weights or settings.
    """
    folder = Path(out)

    def scored(load: Callable[[], Model], answers: Sequence[Answers], path: Path, name: str) -> Path:
        model = load()
        model.eval()
        device = cast(PreTrainedModel, model).device.type
        card = {"version": VERSION, **namespace_of(model, autocast=None, head=head, device=device)}
        attach(model, head)
        with Journal(path, card=card, about=about) as journal:
            for one in {id(one): one for one in answers}.values():
                _score(model, one, journal, max_tokens, name)
            return journal.finish(dict.fromkeys(key for one in answers for key in one.keys))

    reference = scored(load_reference, [method.answers for method in methods], folder / "reference.jsonl", "reference")
    paths = {}
    for method in methods:
        own = scored(method.load, [method.answers], folder / "methods" / f"{method.name}.jsonl", method.name)
        paths[method.name] = write_table(own.with_suffix(".parquet"), _rows(method.answers, own, reference))
    return paths


def _score(model: Model, answers: Answers, journal: Journal, max_tokens: int, name: str) -> None:
    """Append what the journal lacks; a batch once begun is done again as a whole."""
    with tqdm(total=len(answers.keys), desc=f"{name}: responses", unit="row") as bar:
        for batch in batches(answers.responses.lengths, max_tokens):
            if not {answers.keys[number] for number in batch} <= journal.done:
                scores = zip(batch, token_scores(model, answers, batch), strict=True)
                journal.append([_written(answers.keys[number], one) for number, one in scores])
            bar.update(len(batch))


def _rows(answers: Answers, own: Path, reference: Path) -> Iterator[Row]:
    """The rows of a method, one at a time: what both models say, and what follows from it."""
    with Journal(own) as policy_scores, Journal(reference) as reference_scores:
        for number, ((item, side), key) in enumerate(zip(answers.names, answers.keys, strict=True)):
            policy, ref = _read(policy_scores.row(key)), _read(reference_scores.row(key))
            yield {
                "id": f"{item}/{side}",
                "item": item,
                "side": side,
                "label": None if side == "answer" else bool(answers.responses.labels[number]),
                "prompt": answers.prompt(number),
                "token_ids": answers.scored(number),
                "pieces": answers.pieces(number),
                "tokens": len(policy.logps),
                "logps": policy.logps,
                "ref_logps": ref.logps,
                "logits": policy.logits,
                "ref_logits": ref.logits,
                "weights": bnf_weights(*(torch.from_numpy(one.logps)[None] for one in (policy, ref)))[0].numpy(),
                **shifts(policy, ref),
            }


@torch.no_grad()
def token_scores(model: Model, answers: Answers, rows: Sequence[int]) -> list[TokenScores]:
    """Log-likelihoods and logits of the responses numbered `rows`, in one forward pass of a model with a head call.

    Log-likelihoods are those of the model's own distribution, at temperature 1.
    """
    device = cast(PreTrainedModel, model).device
    batch = answers.responses.collate(rows, answers.tokenizer.pad_token_id)
    batch = {name: values.to(device) for name, values in batch.items()}
    call = HeadCall(batch, logits=True)
    ask(model, batch, call)
    ends = call.completions.length.cumsum(0).tolist()[:-1]
    columns = [values[call.mask].cpu().numpy() for values in (call.completions.logps, call.logits)]
    return [TokenScores(*scores) for scores in zip(*(np.split(column, ends) for column in columns), strict=True)]


def _written(key: str, scores: TokenScores) -> Row:
    """As it stands in a journal: nine digits, which are all that float32 has."""
    columns = {name: [float(f"{value:.9g}") for value in values] for name, values in scores._asdict().items()}
    return {"id": key, **columns}


def _read(row: Row) -> TokenScores:
    return TokenScores(np.array(row["logps"]), np.array(row["logits"]))
