"""Candidates in, scores out: the same rows with a number for every candidate, resumable by id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bnf_align.construct.scorers.scorer import Row, Scorer
from bnf_align.journal import Journal, read_jsonl
from bnf_align.records import BadInput, counted, is_number, rows_text

OF_SCORERS = ("scores", "wins", "candidates_cut", "replies_unread")
"""Columns of scored rows; those of an earlier scorer must not pass for this one's."""


@dataclass(frozen=True)
class ScoreReport:
    """What a run of `score` has done."""

    path: Path
    rows: int
    missing: int
    """Rows without scores: the scorer's endpoint failed. The same command asks again."""
    candidates: int
    unscored: int
    """Candidates that the scorer had no answer to."""
    cut: int
    """Candidates that, with their prompt, are longer than the scorer reads."""
    unread: int = 0
    """Replies of a judge without a verdict."""
    scores: tuple[float, float, float] | None = None
    """The lowest, the mean and the highest score; None where there is none."""

    def lines(self) -> list[str]:
        """The counts in plain words."""
        lines = [f"{counted(self.candidates, 'candidate')} of {counted(self.rows, 'row')} scored in {self.path}"]
        if self.scores:
            low, mean, high = self.scores
            lines.append(f"  scores from {low:.4g} to {high:.4g}, {mean:.4g} on average")
        if self.unscored:
            lines.append(f"  {counted(self.unscored, 'candidate')} without a score: left out by `bnf-align select`")
        if self.cut:
            lines.append(f"  {counted(self.cut, 'candidate')} cut: with the prompt longer than --max-length")
        if self.unread:
            lines.append(f"  judge's replies without a verdict in their JSON: {self.unread:,}. Try another --model")
        if self.missing:
            lines.append(f"  {counted(self.missing, 'row')} without any yet: run the same command again")
        return lines


def read_candidates(path: str | Path) -> list[Row]:
    """Rows of `generate`, or of your own: `id`, `prompt`, and `candidates` as texts or as objects with `text`.

    Raises:
        BadInput: If a row has no prompt or no candidates, or two rows share an id.
    """
    rows = [{**row, "id": str(row.get("id", number))} for number, row in enumerate(read_jsonl(path))]
    if not rows:
        raise BadInput(f"{path} has no rows.")
    if bad := [number for number, row in enumerate(rows) if not _is_candidates(row)]:
        raise BadInput(
            f"{path}: {rows_text(bad)} of {len(rows):,} lack a `prompt` (a text or messages) or `candidates` (a list "
            "of texts, or of objects with a `text`). It reads what `bnf-align generate` writes."
        )
    ids = {row["id"] for row in rows}
    if len(ids) < len(rows):
        raise BadInput(
            f"{path}: {counted(len(rows) - len(ids), 'row')} with the id of an earlier one; scores are filed by id."
        )
    for row in rows:
        row["candidates"] = [one if isinstance(one, dict) else {"text": one} for one in row["candidates"]]
    return rows


def _is_candidates(row: Row) -> bool:
    candidates = row.get("candidates")
    if not isinstance(row.get("prompt"), str | list) or not isinstance(candidates, list):
        return False
    return bool(candidates) and all(
        isinstance(one.get("text") if isinstance(one, dict) else one, str) for one in candidates
    )


def is_scored(row: Row) -> bool:
    """Whether a row has one score, a number or null, for each of its candidates."""
    scores, candidates = row.get("scores"), row.get("candidates")
    if not (isinstance(scores, list) and isinstance(candidates, list) and len(scores) == len(candidates)):
        return False
    return all(value is None or isinstance(value, bool) or is_number(value) for value in scores)


def score(
    rows: Sequence[Row], scorer: Scorer, out: str | Path, *, about: Mapping[str, Any] | None = None
) -> ScoreReport:
    """Score every row that `out` does not have yet.

    Args:
        rows: Rows of `read_candidates`, all of them on a rerun too.
        scorer: What gives the numbers.
        out: The file of scored rows.
        about: What is worth knowing beside them, such as the command.

    Raises:
        BadInput: If `out` was begun with another scorer, or from rows that were other ones.
    """
    by_id = {row["id"]: {name: row[name] for name in row if name not in OF_SCORERS} for row in rows}
    with Journal(out, card=scorer.card, about=about) as journal:
        _refuse_other_rows(journal, by_id)
        finished = journal.done & by_id.keys()
        with tqdm(total=len(rows), initial=len(finished), desc=f"Scores by {scorer.name}", unit="row") as bar:
            for batch in scorer.score(rows, finished):
                bar.update(journal.append([{**by_id[one.id], "scores": one.scores, **one.columns} for one in batch]))
        report = _counted(journal, by_id.keys())
        if not report.missing:
            journal.finish(by_id)
    return report


def _counted(journal: Journal, ids: Collection[str]) -> ScoreReport:
    """What the journal has for `ids`."""
    counts: Counter[str] = Counter()
    scores: list[float] = []
    for row in (row for name, row in journal.read() if name in ids):
        counts["rows"] += 1
        counts["candidates"] += len(row["scores"])
        counts["unscored"] += row["scores"].count(None)
        scores += [score for score in row["scores"] if score is not None]
        counts["cut"] += row.get("candidates_cut", 0)
        counts["unread"] += row.get("replies_unread", 0)
    missing = len(ids) - counts["rows"]
    numbers = {name: counts[name] for name in ("rows", "candidates", "unscored", "cut", "unread")}
    spread = (min(scores), sum(score / len(scores) for score in scores), max(scores)) if scores else None
    return ScoreReport(path=journal.partial if missing else journal.path, missing=missing, scores=spread, **numbers)


def _refuse_other_rows(journal: Journal, by_id: Mapping[str, Row]) -> None:
    """Rows made anew under the same ids, or whose right answer was mended, must not keep their old scores."""
    others: dict[str, list[str]] = {}
    for name, row in journal.read():
        counts = [row.get(column, 0) for column in ("candidates_cut", "replies_unread")]
        if not (is_scored(row) and all(isinstance(count, int) for count in counts)):
            raise BadInput(f"{journal.path}: row {name!r} is not as `score` writes it. Give another --out.")
        new = by_id.get(name, row)
        names = (row.keys() | new.keys()) - set(OF_SCORERS)
        if differing := sorted(column for column in names if row.get(column) != new.get(column)):
            others[name] = differing
    if others:
        name, columns = next(iter(others.items()))
        raise BadInput(
            f"{counted(len(others), 'row')} of {journal.path}, scored when the columns were other ones: of the first, "
            f"{name!r}, {', '.join(columns)}. Their scores are not those of the rows here. Give another --out."
        )
