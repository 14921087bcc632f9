"""What a model says when it has thought: reasoning between `<think>` and `</think>` is no part of the answer."""

from __future__ import annotations

import re

MARK = re.compile(r"<(/?)(?:think|thinking|thought|reasoning)>|\[(/?)THINK\]")


def without_thoughts(text: str) -> str:
    """A reply without its reasoning; empty where the reasoning never ends.

    The first mark may be a closing one: many chat templates open the thought in the prompt.

    Example:
        >>> without_thoughts("<think>[[B>A]]?</think> [[A>B]]"), without_thoughts("2 + 2</think>4")
        (' [[A>B]]', '4')
    """
    said, begin, thinking = "", 0, False
    for number, mark in enumerate(MARK.finditer(text)):
        if mark[1] or mark[2]:
            if thinking or number == 0:
                begin, thinking = mark.end(), False
        elif not thinking:
            said, begin, thinking = said + text[begin : mark.start()], mark.end(), True
    return said if thinking else said + text[begin:]
