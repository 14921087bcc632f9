"""WB-Score: every output graded by itself, from the rows of a file to the published numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bnf_align.evaluation.result import EvalResult
from bnf_align.evaluation.task import Row
from bnf_align.evaluation.tasks.one_model import model_of, one_model
from bnf_align.evaluation.tasks.wild_bench_items import item_groups, session, tags_of
from bnf_align.evaluation.wb_formulas import adjusted, category_scores, missing_groups, wb_score
from bnf_align.judge.reply import read_score, value_of

TRUNCATED = "... (truncated)"
"""How upstream ends an output that it has cut."""

VERDICTS = ("judgment", "judge_json", "parsed_result", "score")
"""Where a row may hold the judge's word, the judge's own text first."""


class Scored(NamedTuple):
    """One output and what the judge gave for it."""

    item: str | None
    model: str
    judge: str | None
    judged: bool
    score: float | None
    """None where the judge's word could not be read."""
    length: int | None
    """Characters of the stripped output."""
    truncated: bool
    tags: list[str] | None

    @property
    def whole(self) -> bool:
        """Whether the output is there and not cut: others count in the plain score alone."""
        return self.length != 0 and not self.truncated


def read_scored(row: Row) -> Scored:
    """A judgment row of ours, of upstream's score files or of the data folder; an answer row is not judged yet."""
    length, truncated = output_length(row.get("model_output", row.get("output")))
    if length is None:
        length, truncated = row.get("output_chars_stripped", row.get("output_chars")), bool(row.get("truncated"))
    return Scored(
        item=session(row),
        model=model_of(row),
        judge=row.get("judge"),
        judged=any(name in row for name in VERDICTS),
        score=read_score(_verdict(row)),
        length=length,
        truncated=truncated,
        tags=tags_of(row),
    )


def with_lengths(scored: Sequence[Scored], answers: Sequence[Row], model: str) -> list[Scored]:
    """`scored` with the lengths of `answers` where they have none.

    Raises:
        BadInput: If there are answers, but none of `model`.
    """
    name = one_model(map(model_of, answers), model) if answers else ""
    found = {one.item: one for one in map(read_scored, answers) if one.model == name}
    return [
        row._replace(length=found[row.item].length, truncated=found[row.item].truncated)
        if row.length is None and row.item in found
        else row
        for row in scored
    ]


def output_length(output: Any) -> tuple[int | None, bool]:
    """Characters of an output without the blanks around it, and whether it was cut."""
    text = output[0] if isinstance(output, list) and output else output
    return (len(text.strip()), text.strip().endswith(TRUNCATED)) if isinstance(text, str) else (None, False)


def _verdict(row: Row) -> Any:
    source = next((name for name in VERDICTS if row.get(name) is not None), None)
    if source is None or source == "score":
        return row.get("score")
    told = row[source]
    return told.get("score") if isinstance(told, Mapping) else value_of(told, "score")


def add_scores(result: EvalResult, rows: Sequence[Scored], tags: Mapping[str, Sequence[str]]) -> None:
    """Put WB-Score, its plain form and the average length into `result`, with what was left out.

    The plain score is over all judged outputs; the weighted one and the length leave empty and cut outputs out, as
    upstream's leaderboard/data_dir/_create_tables.py.
    """
    judged = [row for row in rows if row.score is not None]
    for row in rows:
        if row.judged and row.score is None:
            result.drop("the judge's reply has no score from 0 to 10 as its own key", str(row.item))
    if not any(row.judged for row in rows):
        result.notes.append("the rows are answers: their scores need a judge (`bnf-align eval judge`)")
    scores = [row.score for row in judged if row.score is not None]
    whole = [row for row in (judged or rows) if row.whole]
    lengths = [row.length for row in whole if row.length is not None]
    result.metrics |= {
        "wb_score": None,
        "wb_score_plain": adjusted(sum(scores) / len(scores)) if scores else None,
        "average_length": sum(lengths) / len(lengths) if lengths else None,
        "total": len(judged),
    }
    _add_weighted(result, [row for row in whole if row.score is not None], tags)
    result.items += [
        {"id": row.item, "score": row.score, "length": row.length} | ({"truncated": True} if row.truncated else {})
        for row in judged
    ]
    if (repeated := len(judged) - len({row.item for row in judged})) > 0:
        result.notes.append(f"{repeated:,} judgments repeat an item, and count again")


def _add_weighted(result: EvalResult, whole: Sequence[Scored], tags: Mapping[str, Sequence[str]]) -> None:
    known = {row.item: tags.get(str(row.item), row.tags) for row in whole}
    missing = [item for item, found in known.items() if not found]
    if not whole or missing:
        if whole:
            result.notes.append(
                f"wb_score is not measured: {len(missing):,} of {len(known):,} items have no task tags, which the v2 "
                "data set brings (--tags FILE)"
            )
        return
    groups = item_groups([str(row.item) for row in whole], {str(item): found or [] for item, found in known.items()})
    categories = category_scores([row.score or 0.0 for row in whole], groups)
    result.metrics["wb_score"] = wb_score(categories)
    result.metrics |= {f"wb_score/{name}": value for name, value in categories.items()}
    if absent := missing_groups(categories):
        result.notes.append(f"no item of {', '.join(absent)}: such a group counts as 0 in wb_score, as upstream")
