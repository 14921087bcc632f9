"""Prompts in, texts out: a model in process (`local`), or any OpenAI-compatible URL (`url`)."""

from bnf_align.engines.request import Engine, Generation, Request, Sampling, asked_with

__all__ = ["Engine", "Generation", "Request", "Sampling", "asked_with"]
