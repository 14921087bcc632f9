"""Items in, answers out: a JSONL file that a killed run goes on with, and that says what it was made with."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from bnf_align.engines import Engine, Generation, Request, Sampling, asked_with
from bnf_align.evaluation.task import Row, Task
from bnf_align.journal import Journal
from bnf_align.judge.wording import wording
from bnf_align.records import BadInput

logger = logging.getLogger(__name__)


class Progress(NamedTuple):
    """What a step has done."""

    path: Path
    """The finished file, or the part that a rerun goes on with."""
    done: int
    """Rows there."""
    missing: int
    """Rows that are still to be asked for: the endpoint failed. A rerun asks for these alone."""


def run(
    task: Task,
    items: Sequence[Row],
    engine: Engine,
    out: str | Path,
    *,
    sampling: Sampling | None = None,
    template: str | None = None,
    about: Mapping[str, Any] | None = None,
) -> Progress:
    """Ask `engine` every item that `out` has no answer to yet.

    Args:
        task: The benchmark.
        items: Its items, all of them on a rerun too: the batches follow from them.
        engine: What answers.
        out: The file of answers; a row is the item, `output`, `finish_reason`, `tokens` and `model`.
        sampling: How to draw; greedy decoding by default.
        template: The wording of the prompt, instead of ours.
        about: What is worth knowing beside the answers, such as the command.

    Raises:
        BadInput: If `out` was begun with another model, wording or sampling, or with other items under the same ids.
    """
    sampling = sampling or Sampling()
    card = {
        "task": task.name,
        "version": task.version,
        "model": engine.name,
        "weights": engine.weights,
        "template": wording(template, task.template),
        "sampling": asdict(sampling),
    } | asked_with(engine)
    by_id = {str(item["id"]): item for item in items}
    requests = [Request(name, task.prompt(item, template)) for name, item in by_id.items()]
    with Journal(out, card=card, about=about) as journal:
        _same_items(out, journal.rows(), by_id)
        finished = journal.done & by_id.keys()
        with tqdm(total=len(requests), initial=len(finished), desc=f"{task.name} answers", unit="item") as bar:
            for batch in engine.generate(requests, sampling, finished):
                bar.update(journal.append(_answer(by_id[one.id], one, engine.name) for one in batch))
        missing = len(by_id.keys() - journal.done)
        path = journal.finish(by_id) if not missing else journal.partial
    if missing:
        logger.warning(
            f"{missing:,} of {len(by_id):,} items have no answer yet. The same command asks for them again."
        )
    return Progress(Path(path), len(by_id) - missing, missing)


def answered(engine: Engine, requests: Sequence[Request], sampling: Sampling) -> list[Generation]:
    """The answers to `requests`, in their order."""
    found = {one.id: one for batch in engine.generate(requests, sampling) for one in batch}
    return [found[request.id] for request in requests]


def _same_items(out: str | Path, answered: Mapping[str, Row], by_id: Mapping[str, Row]) -> None:
    """Another question under the same id must not get the old one's answer."""
    shared = [name for name in answered if name in by_id]
    other = [name for name in shared if any(answered[name].get(k) != v for k, v in by_id[name].items() if k != "id")]
    if other:
        raise BadInput(
            f"{out} has answers to other items under {len(other):,} of the same ids, the first {other[0]!r}: another "
            "--data. Give another --out."
        )


def _answer(item: Row, generation: Generation, model: str) -> Row:
    return {
        **item,
        "id": generation.id,
        "model": model,
        "output": generation.texts[0],
        "finish_reason": generation.finish_reasons[0],
        "tokens": generation.tokens[0],
    }
