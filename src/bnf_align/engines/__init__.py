"""Prompts in, texts out: a model in process, or any OpenAI-compatible URL."""

from typing import TYPE_CHECKING, Any

from bnf_align.engines.request import Engine, Generation, Request, Sampling, asked_with

if TYPE_CHECKING:
    from bnf_align.engines.local import LocalEngine
    from bnf_align.engines.url import UrlEngine

__all__ = ["Engine", "Generation", "LocalEngine", "Request", "Sampling", "UrlEngine", "asked_with"]


def __getattr__(name: str) -> Any:
    # On first use: the one imports torch, the other openai once it is asked, and help needs neither.
    if name == "LocalEngine":
        from bnf_align.engines.local import LocalEngine

        return LocalEngine
    if name == "UrlEngine":
        from bnf_align.engines.url import UrlEngine

        return UrlEngine
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
