"""Preference data from a model's own answers: generate, score, select."""
