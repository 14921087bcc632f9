"""The tiny world: two skills whose answers can be checked, their prompts, and demonstrations that contain slips.

`math` is the skill that gets preference data. `sort` never does: what it loses is the alignment tax. A demonstration
of `math` slips now and then, so a model trained on them knows the way (its most likely answer is right) and still
errs when it samples: the state of a real model before alignment, and one that feedback on its own answers can mend.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from random import Random

from bnf_align.records import PreferenceRow

NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Jana", "Kim", "Leo")
THINGS = ("apples", "books", "coins", "eggs", "kites", "pears", "rings", "shells")
SIGNS = {"gets": "+", "loses": "-"}
CHANGES = 3
HIGHEST_TOTAL = 20
LARGEST_SLIP = 3
SLIP_PROBABILITY = 0.25
LETTERS = 6

# Up to where a chain gets that slips at every change: every number of the world is one token.
NUMBERS = range(HIGHEST_TOTAL + CHANGES * LARGEST_SLIP + 1)
WORDS = (*map(str, NUMBERS), *string.ascii_lowercase, *NAMES, *THINGS, *SIGNS, *SIGNS.values(), *"=;?", "has", "sort")
"""Every word of the world; the tokenizer's vocabulary."""


@dataclass(frozen=True)
class Skill:
    """A kind of task: where its prompts come from, how it is demonstrated and what counts as right."""

    name: str
    draw: Callable[[Random], str]
    """A new prompt."""
    demonstrate: Callable[[str, Random], str]
    """Prompt -> a completion, which begins with a space: prompt + completion is the text."""
    is_right: Callable[[str, str], bool]
    """The verifier: (prompt, completion) -> whether the completion's final answer is right."""


def draw_math(random: Random) -> str:
    """A prompt such as "Ann has 7 apples gets 5 loses 3 gets 8 ?", with every total in 0..20."""
    total = random.randint(1, 9)
    words = [random.choice(NAMES), "has", str(total), random.choice(THINGS)]
    for _ in range(CHANGES):
        change = random.choice([n for n in range(-9, 10) if n != 0 and 0 <= total + n <= HIGHEST_TOTAL])
        words += ["gets" if change > 0 else "loses", str(abs(change))]
        total += change
    return " ".join([*words, "?"])


def math_chain(prompt: str, slips: tuple[int, ...] = (0,) * CHANGES) -> str:
    """The worked answer to a prompt of `draw_math`: " 7 + 5 = 12 ; 12 - 3 = 9 ; 9 + 8 = 17 ; 17 apples".

    `slips` are what each step's result is too high by. The next step goes on from the wrong result. Slips are never
    below 0, so no total is, and two slips cannot cancel out.
    """
    _, _, start, thing, *changes, _ = prompt.split()
    total, words = int(start), []
    for verb, amount, slip in zip(changes[::2], changes[1::2], slips, strict=True):
        result = total + int(f"{SIGNS[verb]}{amount}") + slip
        words += [str(total), SIGNS[verb], amount, "=", str(result), ";"]
        total = result
    return " " + " ".join([*words, str(total), thing])


def demonstrate_math(prompt: str, random: Random) -> str:
    """A worked answer in which each step is off by 1..3 with probability 0.25, and the error goes on."""
    steps = range(CHANGES)
    slips = (random.randint(1, LARGEST_SLIP) if random.random() < SLIP_PROBABILITY else 0 for _ in steps)
    return math_chain(prompt, tuple(slips))


def math_is_right(prompt: str, completion: str) -> bool:
    """Whether the completion ends with the right number of the right things; the steps are not read."""
    return completion.split()[-2:] == math_chain(prompt).split()[-2:]


def draw_sort(random: Random) -> str:
    """A prompt such as "sort k b z a q m ?"."""
    return " ".join(["sort", *random.sample(string.ascii_lowercase, LETTERS), "?"])


def sorted_letters(prompt: str) -> str:
    """The answer to a prompt of `draw_sort`."""
    return " " + " ".join(sorted(prompt.split()[1:-1]))


def sort_is_right(prompt: str, completion: str) -> bool:
    """Whether the completion is the letters of the prompt in order and nothing else."""
    return completion.split() == sorted_letters(prompt).split()


MATH = Skill("math", draw_math, demonstrate_math, math_is_right)
SORT = Skill("sort", draw_sort, lambda prompt, random: sorted_letters(prompt), sort_is_right)


def is_right(row: Mapping[str, str], text: str) -> bool:
    """The verifier of the row's `skill`, as `bnf-align score --rule` calls it."""
    skill = {MATH.name: MATH, SORT.name: SORT}[row["skill"]]
    return skill.is_right(row["prompt"], text)


def draw_prompts(skill: Skill, count: int, seed: str, avoid: Container[str] = ()) -> list[str]:
    """`count` different prompts of a skill, none of them in `avoid`; the same seed draws the same prompts."""
    random = Random(seed)
    prompts: dict[str, None] = {}
    while len(prompts) < count:
        prompt = skill.draw(random)
        if prompt not in avoid:
            prompts[prompt] = None
    return list(prompts)


def demonstrations(count: int, seed: str, avoid: Container[str] = (), math_share: float = 0.7) -> list[PreferenceRow]:
    """`count` demonstrations of both skills, mixed, as `prompt, completion, label` rows with a thumbs up each.

    The same seed draws the same rows, none with a prompt in `avoid`; `math_share` of them, about, are of `math`.
    """
    random = Random(seed)
    rows: list[PreferenceRow] = []
    while len(rows) < count:
        skill = MATH if random.random() < math_share else SORT
        prompt = skill.draw(random)
        if prompt not in avoid:
            rows.append({"prompt": prompt, "completion": skill.demonstrate(prompt, random), "label": True})
    return rows
