"""Whose number it is: one model's, by one judge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bnf_align.records import BadInput

UNNAMED = "unknown model"

COLUMNS = ("model", "model_id", "model_test", "generator")


def model_of(row: Mapping[str, Any]) -> str:
    """The model a row speaks of, in whichever column its benchmark writes it."""
    return str(next((row[name] for name in COLUMNS if row.get(name)), UNNAMED))


def one_model(names: Iterable[str], model: str | None = None) -> str:
    """The model to score, as the rows write it: `model`, or the only one there is.

    A name fits with or without its owner (`google/gemma-7b-it`), and any name fits rows that have none.

    Raises:
        BadInput: If `model` is none of `names`, or there are several to choose from.
    """
    known = sorted(set(names))
    fitting = [name for name in known if model in (None, name, name.split("/")[-1]) or name == UNNAMED]
    if model in known or len(fitting) == 1:
        return model if model in known and model is not None else fitting[0]
    raise BadInput(
        f"A number is one model's, and the rows have {len(known):,}: {', '.join(known)}. "
        f"{'Choose one' if model is None else f'None is {model!r}: choose another'} with --model NAME."
    )


def one_judge(names: Iterable[str | None]) -> str | None:
    """Who judged, as far as the rows say so.

    Raises:
        BadInput: If several did.
    """
    known = sorted({str(name) for name in names if name})
    if len(known) > 1:
        raise BadInput(
            f"The rows were judged by {' and by '.join(known)}. Judges differ by more than models do, so a mean over "
            "both says nothing: put the judgments of each into a file of its own."
        )
    return known[0] if known else None
