"""The games of Arena-Hard: what was judged, of whom, against whom, and what counts."""

from __future__ import annotations

from typing import NamedTuple

from bnf_align.evaluation.ratings import Battle
from bnf_align.evaluation.tasks.arena_hard_verdict import labels, outcome
from bnf_align.evaluation.tasks.one_model import one_model
from bnf_align.records import BadInput

BASELINE = "gpt-4-0314"
"""The model that v0.1 compares with."""


class Game(NamedTuple):
    """One question to the judge."""

    question: str
    model: str
    baseline: str
    judge: str | None
    number: int
    """1: the baseline is assistant A; 2: the model is."""
    judgment: str | None
    label: str | None

    def dropped(self) -> str | None:
        """Why the game does not count; None where it does."""
        if self.label is None:
            if self.judgment is None:
                return "no judgment"
            return "several verdicts that differ" if labels(self.judgment) else "no verdict in the judgment"
        return None if outcome(self.label, self.number) else "a label that the judge was not offered"

    def battle(self) -> Battle | None:
        """The battle it is; None where it does not count."""
        found = self.label and outcome(self.label, self.number)
        return Battle(self.question, self.model, self.baseline, *found) if found else None


class Answer(NamedTuple):
    """A model's answer to one question."""

    question: str
    model: str
    text: str
    tokens: int | None
    """As the file records them."""
    own_tokens: bool = False
    """Whether they are the model's own, as in our files; published counts are cl100k's."""


class Judged(NamedTuple):
    """What a file holds."""

    games: list[Game]
    battles: list[Battle]
    answers: list[Answer]

    def sides(self, model: str | None = None) -> tuple[str, str]:
        """The model to score and its baseline.

        Raises:
            BadInput: If several models could be meant, or `model` is none of them, or met several baselines.
        """
        pairs = {(game.model, game.baseline) for game in self.games}
        pairs |= oriented({battle[1:3] for battle in self.battles})
        pairs = pairs or {(answer.model, BASELINE) for answer in self.answers}
        model = one_model((name for name, _ in pairs), model)
        baselines = sorted(baseline for name, baseline in pairs if name == model)
        if len(baselines) > 1:
            raise BadInput(
                f"{model} was compared with {' and with '.join(baselines)}. A win rate is against one baseline: put "
                "the judgments of each into a file of its own."
            )
        return model, baselines[0]

    def of_model(self, model: str) -> list[Answer]:
        """The answers of `model`, named with or without its owner.

        Raises:
            BadInput: If there are none.
        """
        name = one_model((answer.model for answer in self.answers), model)
        return [answer for answer in self.answers if answer.model == name]

    def battles_of(self, model: str) -> list[Battle]:
        """The battles of `model`, those of its games that have a verdict included."""
        judged = [battle for game in self.games if game.model == model and (battle := game.battle())]
        return judged + [battle for battle in self.battles if model in battle[1:3]]


def oriented(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """(model, baseline) of battles that stand as (model_a, model_b).

    The baseline is gpt-4-0314 where it took part, else the one that met everyone, else model_a, as upstream writes it.
    """
    names = {name for pair in pairs for name in pair}
    everywhere = [name for name in names if all(name in pair for pair in pairs)]
    baseline = BASELINE if BASELINE in names else everywhere[0] if len(everywhere) == 1 else None
    return {(a, b) if baseline == b else (b, a) for a, b in pairs}
