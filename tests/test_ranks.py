"""Ranks as printed in the paper's tables."""

import re

import pytest

from bnf_align.evaluation.ranks import average_rank, competition_ranks, half_up, rank_table

COLUMNS = ("WB Elo", "WB Score", "AH LC", "AH WR", "GSM8K", "MATH", "CRUX", "MMLU")

# The paper's Table 4: value (rank), ..., average rank.
TABLE_4 = {
    "Meta-Llama-3-8B-Instruct": """
        Base    1131 (8) 29.2 (8) 33.9 (8) 36.1 (8) 78.5 (3)  6.8 (7) 38.1 (3) 62.4 (3) 6.00
        SLiC-HF 1142 (6) 33.2 (7) 49.1 (6) 46.3 (6) 66.6 (7)  8.3 (6) 33.9 (6) 61.4 (4) 6.00
        DPO     1155 (1) 39.5 (1) 60.4 (1) 62.2 (1) 70.5 (6)  8.5 (5) 31.8 (8) 56.4 (7) 3.75
        IPO     1146 (5) 36.1 (5) 50.1 (4) 51.3 (4) 79.9 (1)  9.2 (4) 39.2 (1) 59.8 (6) 3.75
        KTO     1139 (7) 34.7 (6) 45.4 (7) 45.8 (7) 78.8 (2) 10.0 (1) 38.9 (2) 63.7 (1) 4.13
        ORPO    1149 (3) 36.2 (4) 49.6 (5) 49.2 (5) 74.8 (5)  9.3 (2) 34.5 (5) 63.5 (2) 3.88
        SimPO   1149 (3) 37.2 (3) 52.2 (3) 52.5 (2) 56.6 (8)  6.0 (8) 32.6 (7) 55.0 (8) 5.25
        BNF     1153 (2) 37.5 (2) 54.8 (2) 52.1 (3) 77.0 (4)  9.3 (2) 35.4 (4) 61.4 (4) 2.88
    """,
    "Mistral-7B-Instruct-v0.2": """
        Base    1098 (8) 25.6 (8) 19.2 (8) 18.9 (8) 42.7 (2) 3.9 (1) 25.1 (2) 53.0 (3) 5.00
        SLiC-HF 1130 (3) 31.2 (2) 28.9 (5) 31.0 (4) 43.6 (1) 2.6 (6) 24.3 (3) 52.1 (6) 3.75
        DPO     1127 (5) 29.7 (6) 29.8 (4) 30.4 (5) 42.2 (4) 3.1 (3) 22.3 (7) 53.2 (2) 4.50
        IPO     1121 (7) 26.9 (7) 25.4 (7) 26.1 (7) 35.8 (7) 3.6 (2) 28.3 (1) 50.7 (8) 5.75
        KTO     1126 (6) 30.2 (5) 27.8 (6) 27.7 (6) 42.6 (3) 2.9 (4) 23.3 (6) 52.8 (4) 5.00
        ORPO    1130 (3) 30.8 (4) 33.4 (3) 34.4 (3) 36.9 (6) 2.9 (4) 23.6 (5) 51.8 (7) 4.38
        SimPO   1133 (1) 32.0 (1) 36.0 (1) 36.6 (1) 33.7 (8) 2.2 (8) 21.4 (8) 52.2 (5) 4.13
        BNF     1131 (2) 31.1 (3) 35.2 (2) 34.5 (2) 39.7 (5) 2.6 (6) 24.3 (3) 54.8 (1) 3.00
    """,
    "Gemma-2-9b-It": """
        Base  1160 (4) 42.7 (4) 54.9 (4) 54.5 (4) 87.9 (3) 19.9 (3) 44.6 (2) 72.7 (2) 3.25
        DPO   1181 (2) 53.2 (2) 77.3 (2) 81.3 (1) 88.5 (1) 20.2 (2) 44.3 (3) 72.8 (1) 1.75
        SimPO 1181 (2) 53.3 (1) 72.6 (3) 75.4 (3) 87.7 (4) 18.2 (4) 41.4 (4) 72.6 (4) 3.13
        BNF   1186 (1) 53.2 (2) 77.5 (1) 80.8 (2) 88.0 (2) 21.8 (1) 45.3 (1) 72.7 (2) 1.50
    """,
}

# The paper's Table 6, whose last average is printed as 2.5.
TABLE_6 = """
    Base 1131 (5) 29.2 (5) 33.9 (5) 36.1 (5) 78.5 (2)  6.8 (5) 38.1 (1) 62.4 (1) 3.63
    0%   1146 (4) 36.0 (4) 49.3 (4) 48.4 (4) 80.1 (1)  9.4 (2) 35.6 (4) 62.2 (2) 3.13
    25%  1148 (2) 36.2 (3) 51.5 (3) 49.7 (3) 77.9 (3)  9.3 (3) 36.7 (3) 61.8 (3) 2.88
    50%  1148 (2) 36.7 (2) 53.5 (2) 51.4 (2) 76.4 (5) 10.0 (1) 37.9 (2) 61.2 (5) 2.63
    100% 1153 (1) 37.5 (1) 54.8 (1) 52.1 (1) 77.0 (4)  9.3 (3) 35.4 (5) 61.4 (4) 2.50
"""


def printed(text):
    """Row -> column -> value, row -> column -> rank, row -> average as printed."""
    values, ranks, averages = {}, {}, {}
    for line in text.strip().splitlines():
        row = line.split()[0]
        cells = re.findall(r"([\d.]+) \((\d)\)", line)
        values[row] = {column: float(value) for column, (value, _) in zip(COLUMNS, cells, strict=True)}
        ranks[row] = {column: int(rank) for column, (_, rank) in zip(COLUMNS, cells, strict=True)}
        averages[row] = line.split()[-1]
    return values, ranks, averages


@pytest.mark.parametrize("text", [*TABLE_4.values(), TABLE_6], ids=[*TABLE_4, "Table 6"])
def test_every_printed_rank_and_average_rank_comes_out(text):
    values, ranks, averages = printed(text)
    assert rank_table(values) == ranks
    assert {row: half_up(average_rank(of_row), 2) for row, of_row in rank_table(values).items()} == averages


def test_table_4_has_160_ranks_and_20_averages():
    tables = [printed(text) for text in TABLE_4.values()]
    assert sum(len(of_row) for _, ranks, _ in tables for of_row in ranks.values()) == 160
    assert sum(len(averages) for *_, averages in tables) == 20


def test_ties_share_the_best_rank_and_leave_a_gap():
    assert competition_ranks([3, 5, 3, 1, 5, 4]) == [4, 1, 4, 6, 1, 3]


def test_a_column_may_have_its_best_at_the_bottom():
    assert competition_ranks([3, 5, 3, 1], lower_is_better=True) == [2, 4, 2, 1]


def test_a_missing_number_has_no_rank_and_its_row_no_average():
    ranks = rank_table({"a": {"x": 1, "y": 2}, "b": {"x": 3}, "c": {"x": 2, "y": None}, "d": {"y": 9}})
    assert ranks["a"] == {"x": 3, "y": 2}
    assert ranks["b"] == {"x": 1, "y": None}
    assert ranks["d"] == {"x": None, "y": 1}
    assert [average_rank(of_row) for of_row in ranks.values()] == [2.5, None, None, None]


@pytest.mark.parametrize(("value", "text"), [(3.125, "3.13"), (2.875, "2.88"), (2.5, "2.50"), (6, "6.00")])
def test_halves_are_rounded_up_as_the_paper_does(value, text):
    assert half_up(value, 2) == text
