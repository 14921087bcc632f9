"""The log-likelihood and the logit of every scored token under a method's model and its reference, resumable.

OUT/reference.jsonl       a line for each different response: `id` (the hash of its tokens), `logps`, `logits`
OUT/methods/NAME.jsonl    a line for each response of a method: `id`, `item`, `side`, `model`, `key` (its line in
                          reference.jsonl), `tokens`; `logps`, `ref_logps`, `logits`, `ref_logits`, a number for each
                          scored token; and the measures of `shifts`
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from bnf_align.data.micro_batches import batches
from bnf_align.fingerprint import weights_hash
from bnf_align.head import HeadCall, ask, attach
from bnf_align.head.attach import Implementation
from bnf_align.journal import Journal

Model = PreTrainedModel | PeftModel

VERSION = 1
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
    """Write the rows of every method; one model is in memory at a time, and the reference reads nothing twice.

    Args:
        methods: The methods; several may share one `Answers`.
        load_reference: The model that all of them were trained from.
        out: The folder of the rows.
        head: As in training. The fused one keeps logits in float32; a model's own are rounded to its dtype, in
            bfloat16 to 1/16 for a logit of 10, which is more than many shifts.
        max_tokens: Padded tokens of one forward pass.
        about: What is worth knowing beside the rows, such as the command.

    Returns:
        Name of the method -> its file.

    Raises:
        BadInput: If rows on disk were made with other weights, responses or settings.
    """
    folder = Path(out)
    run = _Run(head, max_tokens, about)
    reference, made_with = run.reference(load_reference, [method.answers for method in methods], folder)
    paths = {}
    for method in methods:
        paths[method.name] = run.method(method, reference, made_with, folder / "methods" / f"{method.name}.jsonl")
    return paths


@dataclass(frozen=True)
class _Run:
    """What the passes of all models have in common."""

    head: Implementation
    max_tokens: int
    about: Mapping[str, Any] | None

    def reference(
        self, load: Callable[[], Model], answers: Sequence[Answers], folder: Path
    ) -> tuple[dict[str, TokenScores], dict[str, Any]]:
        """Key of a response -> its scores under the reference; and what they were made with."""
        model, card = self._loaded(load)
        keys = dict.fromkeys(key for one in answers for key in one.keys)
        with Journal(folder / "reference.jsonl", card=card, about=self.about) as journal:
            for one in answers:
                if journal.done.issuperset(one.keys):  # the responses of another method are these
                    continue
                rows = [{"id": key} for key in one.keys]
                self._score(model, one, journal, rows, lambda row, scores: row | _written(scores), "reference")
            scored = journal.rows()
            journal.finish(keys)
        return {key: _read(scored[key]) for key in keys}, card

    def method(
        self, method: Method, reference: Mapping[str, TokenScores], made_with: Mapping[str, Any], out: Path
    ) -> Path:
        """Write the rows of `method`."""
        model, card = self._loaded(method.load)
        card |= {"responses": method.answers.digest, "reference": made_with}
        answers = method.answers
        rows = [
            {"id": name, "item": item, "side": side, "model": method.name, "key": key}
            for name, (item, side), key in zip(answers.ids, answers.names, answers.keys, strict=True)
        ]

        def measured(row: Row, scores: TokenScores) -> Row:
            # From the numbers as they are written, so that the measures can be had again from the file.
            written, ref = _written(scores), reference[row["key"]]
            found = {"tokens": len(ref.logps), **written, **_written(ref, "ref_")}
            return row | found | shifts(_read(written), ref)

        with Journal(out, card=card, about=self.about) as journal:
            self._score(model, answers, journal, rows, measured, method.name)
            return journal.finish(answers.ids)

    def _loaded(self, load: Callable[[], Model]) -> tuple[Model, dict[str, Any]]:
        gc.collect()  # an attached head ties a model to itself, and the next one may need its memory
        model = load()
        model.eval()
        card = {
            "version": VERSION,
            "weights": weights_hash(model),
            "dtype": str(next(model.parameters()).dtype),
            "head": self.head,
        }
        attach(model, self.head)
        return model, card

    def _score(
        self,
        model: Model,
        answers: Answers,
        journal: Journal,
        rows: Sequence[Row],
        finished: Callable[[Row, TokenScores], Row],
        name: str,
    ) -> None:
        """Append `finished(row, scores)` for what the journal lacks; a batch once begun is done again as a whole."""
        with tqdm(total=len(rows), desc=f"{name}: responses", unit="row") as bar:
            for batch in batches(answers.responses.lengths, self.max_tokens):
                if not {rows[number]["id"] for number in batch} <= journal.done:
                    scored = zip(batch, token_scores(model, answers, batch), strict=True)
                    journal.append([finished(rows[number], scores) for number, scores in scored])
                bar.update(len(batch))


@torch.no_grad()
def token_scores(model: Model, answers: Answers, rows: Sequence[int]) -> list[TokenScores]:
    """Log-likelihoods and logits of the responses numbered `rows`, in one forward pass of a model with a head call."""
    device = cast(PreTrainedModel, model).device
    batch = answers.responses.collate(rows, answers.pad_token_id)
    batch = {name: values.to(device) for name, values in batch.items()}
    call = HeadCall(batch, logits=True)
    ask(model, batch, call)
    ends = call.completions.length.cumsum(0).tolist()[:-1]
    columns = [values[call.mask].cpu().numpy() for values in (call.completions.logps, call.logits)]
    return [TokenScores(*scores) for scores in zip(*(np.split(column, ends) for column in columns), strict=True)]


def _written(scores: TokenScores, prefix: str = "") -> Row:
    """As it stands in a row: nine digits, which are all that float32 has."""
    columns: Iterable[tuple[str, np.ndarray]] = scores._asdict().items()
    return {prefix + name: [float(f"{value:.9g}") for value in values] for name, values in columns}


def _read(row: Row) -> TokenScores:
    return TokenScores(np.array(row["logps"]), np.array(row["logits"]))
