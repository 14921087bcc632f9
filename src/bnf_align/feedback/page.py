"""What the pages show, as HTML in which everything that people or models wrote is text."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

from bnf_align.feedback.review import Review
from bnf_align.feedback.talk import Talk


def read(name: str) -> str:
    """A file that lies beside this one."""
    return files("bnf_align.feedback").joinpath(name).read_text(encoding="utf-8")


# Gradio's own ways to show a text are of no use here: its chat window gives answers to the browser as HTML even where
# Markdown is off (6.31, `render_markdown=False`), and its HTML templates run what stands in ${...} inside a value. So
# the HTML is made here, where every text is escaped, and given to the browser as a whole.
_PAGES = Environment(
    autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(read)
)


def show_talk(talk: Talk, notice: str = "") -> str:
    """A conversation, with thumbs under every answer, or with pairs of answers; and what is being answered.

    Args:
        talk: The conversation.
        notice: What else the person should know.
    """
    return _page("talk.html", talk=talk, coming=talk.coming, notice=notice)


def show_review(review: Review, notice: str = "") -> str:
    """The task a person is at."""
    return _page("review.html", review=review, task=review.task, notice=notice)


def _page(name: str, **values: Any) -> str:
    page = _PAGES.get_template(name).render(values)
    return page.encode("utf-8", "replace").decode()  # half a surrogate pair would stop the whole answer
