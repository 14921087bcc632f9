"""Ranks as in the paper's Table 4: ties share the best rank, and a method's ranks are averaged over the columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import ROUND_HALF_UP, Decimal, localcontext


def competition_ranks(values: Sequence[float | None], lower_is_better: bool = False) -> list[int | None]:
    """The rank of each value: one more than the number of better ones, so that ties share the best rank.

    The paper ranks the printed values: round before ranking to get its ties.

    >>> competition_ranks([1149, 1155, 1149, None, 1131])
    [2, 1, 2, None, 4]
    """
    sign = 1 if lower_is_better else -1
    known = sorted(sign * value for value in values if value is not None)
    return [None if value is None else 1 + known.index(sign * value) for value in values]


def rank_table(rows: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, int | None]]:
    """Row -> column -> rank within the column, from row -> column -> value; a missing or None number has no rank."""
    columns = list(dict.fromkeys(column for values in rows.values() for column in values))
    ranks: dict[str, dict[str, int | None]] = {row: {} for row in rows}
    for column in columns:
        in_column = competition_ranks([values.get(column) for values in rows.values()])
        for row, rank in zip(rows, in_column, strict=True):
            ranks[row][column] = rank
    return ranks


def average_rank(ranks: Mapping[str, int | None]) -> float | None:
    """The mean over the columns; None where a rank is missing, for a mean over other columns is another number."""
    known = [rank for rank in ranks.values() if rank is not None]
    return sum(known) / len(ranks) if known and len(known) == len(ranks) else None


def half_up(value: float, digits: int) -> str:
    """`value` printed as the paper prints it: 3.125 as 3.13, where Python's formatting gives 3.12."""
    with localcontext(prec=400):  # as many digits as the largest number has
        return str(Decimal(repr(value)).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP))
