"""How far a method moved a model: Figures 1, 3 and 4 of the paper for models and responses of one's own."""

from bnf_align.analysis.answers import Answers, read_answers
from bnf_align.analysis.curves import derivative_curve
from bnf_align.analysis.gini import gini
from bnf_align.analysis.measure import Method, measure
from bnf_align.analysis.plots import figure_1, figure_3, figure_4, save
from bnf_align.analysis.shifts import MEASURES, TokenScores, shifts
from bnf_align.analysis.summary import summary

__all__ = [
    "MEASURES",
    "Answers",
    "Method",
    "TokenScores",
    "derivative_curve",
    "figure_1",
    "figure_3",
    "figure_4",
    "gini",
    "measure",
    "read_answers",
    "save",
    "shifts",
    "summary",
]
