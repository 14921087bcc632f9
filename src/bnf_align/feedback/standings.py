"""How often each of two models was found the better one, for whoever runs the page."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bnf_align.feedback.store import Row
from bnf_align.records import counted
from bnf_align.stats import wilson


@dataclass
class Standing:
    """Two models, and what people said of their answers."""

    wins: dict[str, int]
    """Model -> comparisons that it won; the two of them."""
    ties: Counter[bool] = field(default_factory=Counter)
    """True: both were good, False: both were bad -> comparisons."""

    def __str__(self) -> str:
        """One sentence for each model, and one on ties."""
        decided, tied = sum(self.wins.values()), sum(self.ties.values())
        said = [f"{' against '.join(self.wins)}: {counted(decided + tied, 'comparison')}"]
        for model, won in self.wins.items():
            share = f"{model} won {won:,} of {decided:,}"
            if decided:
                low, high = wilson(won / decided, decided)
                share += f": {won / decided:.0%}, 95% interval {low:.0%} to {high:.0%}"
            said.append(share)
        said.append(f"left out: {counted(tied, 'tie')}, both good {self.ties[True]:,}, both bad {self.ties[False]:,}")
        return "\n    ".join(said)


def standings(rows: Sequence[Row]) -> list[Standing]:
    """What the rows of a store say of pairs of named models, those that were compared most first.

    A win is a pair with both models' names. A tie is two thumbs of one `item`, person and time. What names no model,
    or one against itself, is no comparison of two.
    """
    found: dict[tuple[str, str], Standing] = {}
    for models, verdict in _comparisons(rows):
        pair = min(models), max(models)
        standing = found.setdefault(pair, Standing(dict.fromkeys(pair, 0)))
        if verdict is None:
            standing.wins[models[0]] += 1
        else:
            standing.ties[verdict] += 1
    return sorted(found.values(), key=lambda one: -sum(one.wins.values()) - one.ties.total())


def _comparisons(rows: Sequence[Row]) -> Iterator[tuple[tuple[str, str], bool | None]]:
    """The two models of each comparison, the winner first, and what both of them were where neither won."""
    thumbs: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        if "chosen" in row:
            won, lost = _name(row, "model"), _name(row, "rejected_model")
            if won and lost and won != lost:
                yield (won, lost), None
        elif row.get("item") and "shown_first" in row:
            thumbs[row["item"], row.get("user"), row.get("created_at")].append(row)
    for tied in thumbs.values():
        names = {_name(row, "model") for row in tied} - {""}
        if len(tied) == len(names) == 2:
            yield (min(names), max(names)), bool(tied[0]["label"])


def _name(row: Row, field: str) -> str:
    return str(row.get(field) or "")
