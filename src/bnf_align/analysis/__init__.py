"""How far a method moved a model: Figures 1 to 4 of the paper for models and responses of one's own."""

from bnf_align.analysis.analyze import analyze
from bnf_align.analysis.answers import Answers, read_answers
from bnf_align.analysis.measure import Method, measure
from bnf_align.analysis.overlap import Pair, of_pairs
from bnf_align.analysis.plots import derivative_curve, figure_1, figure_2, figure_3, figure_4, figure_weights, save
from bnf_align.analysis.shifts import MEASURES, TokenScores, gini, shifts
from bnf_align.analysis.summary import summary
from bnf_align.analysis.table import SCHEMA, read_rows
from bnf_align.analysis.tokens import most_changed, weight_shares

__all__ = [
    "MEASURES",
    "SCHEMA",
    "Answers",
    "Method",
    "Pair",
    "TokenScores",
    "analyze",
    "derivative_curve",
    "figure_1",
    "figure_2",
    "figure_3",
    "figure_4",
    "figure_weights",
    "gini",
    "measure",
    "most_changed",
    "of_pairs",
    "read_answers",
    "read_rows",
    "save",
    "shifts",
    "summary",
    "weight_shares",
]
