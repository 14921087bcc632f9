"""Oracles: the paper's formulas as printed, slow and obvious. Nothing here imports bnf_align."""
