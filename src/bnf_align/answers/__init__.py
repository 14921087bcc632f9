"""Text to answer to right or wrong: used by evaluation and by the making of data. No text is ever run as code."""

from bnf_align.answers.expressions import equivalent
from bnf_align.answers.extract import Extracted, extract, text_of
from bnf_align.answers.numbers import first_number, letter_of, picks, same_literal, same_number
from bnf_align.answers.solutions import final_answer, gold_expression, solves

__all__ = [
    "Extracted",
    "equivalent",
    "extract",
    "final_answer",
    "first_number",
    "gold_expression",
    "letter_of",
    "picks",
    "same_literal",
    "same_number",
    "solves",
    "text_of",
]
