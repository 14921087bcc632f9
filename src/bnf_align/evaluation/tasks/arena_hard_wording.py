"""What the judge of Arena-Hard is told, in our words or in those of a template."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import yaml

from bnf_align.evaluation.task import Message
from bnf_align.judge.wording import check_places, fill

# The form is that of upstream's config/judge_config.yaml, so that file can stand in for it as it is.
JUDGE_TEMPLATE = """\
system_prompt: |-
  You are an impartial judge. Two AI assistants, A and B, have answered the same prompt of a user. Decide whose
  answer serves the user better.

  Start by writing your own answer to the prompt, before you say anything about theirs.

  Then hold both answers against yours. Name every error you find and correct it.

  Ask of each answer whether it helps, whether it stays with what was asked, and whether it is brief. An answer helps
  when it is right, or does what it was told; where the prompt can be read in several ways, asking back helps more
  than guessing. Every part of it should bear on the prompt, and none should be padding.

  Where the prompt calls for invention, weigh how fresh each answer is. Last, say what either leaves out that the user
  would have needed.

  When you have given your reasons, close with one of these labels and no other:

  [[A>>B]] if A is much better
  [[A>B]] if A is a little better
  [[A=B]] if they are about equal
  [[B>A]] if B is a little better
  [[B>>A]] if B is much better

  A closing line may read: "So my decision is [[A=B]]".
prompt_template:
  - |-
    ### What the user wrote
    {question_1}

    ### Assistant A's answer begins
    {answer_1}
    ### Assistant A's answer ends

    ### Assistant B's answer begins
    {answer_2}
    ### Assistant B's answer ends
"""

GO_ON = "Your judgment has no verdict yet. Complete it, and close with one of the five labels."
"""What the second of two attempts asks, unless the template has a `follow_up`. Upstream's wording of it is part of
its code, not of its judge_config.yaml."""

NEEDED = ("question_1", "answer_1", "answer_2")


class Wording(NamedTuple):
    """A template, read."""

    system: str | None
    prompts: tuple[str, ...]
    """The user's turns, with placeholders."""
    follow_up: str = GO_ON


@lru_cache(maxsize=8)
def read_wording(template: str) -> Wording:
    """Read `template`: YAML with `system_prompt` and `prompt_template`, or the text of a single user turn.

    Raises:
        BadInput: If it has no place for the question or for an answer.
    """
    try:
        config = yaml.safe_load(template)
    except yaml.YAMLError:  # a text that is no YAML is a template all the same
        config = None
    if isinstance(config, dict) and "prompt_template" in config:
        prompts = config["prompt_template"]
        found = Wording(config.get("system_prompt"), tuple([prompts] if isinstance(prompts, str) else prompts))
        found = found._replace(follow_up=config.get("follow_up") or GO_ON)
    else:
        found = Wording(None, (template,))
    check_places("".join(found.prompts), NEEDED)
    return found


def messages(template: str, question: str, first: str, second: str) -> list[Message]:
    """The judge's messages about the answers `first` (assistant A) and `second` (assistant B)."""
    system, prompts, _ = read_wording(template)
    texts = {"question_1": question, "answer_1": first, "answer_2": second}
    told = [] if system is None else [{"role": "system", "content": system}]
    return told + [{"role": "user", "content": fill(prompt, texts)} for prompt in prompts]
