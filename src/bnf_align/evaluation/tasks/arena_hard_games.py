"""What was judged in Arena-Hard: verdicts, games and battles, from every shape of file they are published in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from bnf_align.evaluation.ratings import Battle, read_battles
from bnf_align.evaluation.task import Row, model_of, one_model
from bnf_align.records import BadInput, rows_text
from bnf_align.thoughts import without_thoughts

# lmarena/arena-hard-auto d99b139, config/judge_config.yaml, `regex_pattern`. Version 2.0 has other rules.
LABEL = re.compile(r"\[\[([AB<>=]+)\]\]")

MUCH = 3
"""Battles that a verdict of "much better" stands for."""

# Assistant A's score and weight, see `Battle`. The pattern also lets `A<B`, `A>>A` or `B=A` pass: the five labels the
# judge was offered count, as upstream, the others drop their game.
OUTCOMES = {"A>>B": (1.0, MUCH), "A>B": (1.0, 1), "A=B": (0.5, 1), "B>A": (0.0, 1), "B>>A": (0.0, MUCH)}


def labels(judgment: str) -> set[str]:
    """The different labels in a judge's text; what it thinks before it speaks does not count."""
    return set(LABEL.findall(without_thoughts(judgment)))


def verdict(judgment: str) -> str | None:
    """The label that a judge's text decides on; None where it has none, or several that differ.

    Args:
        judgment: The judge's own turns and nothing else: a prompt quotes the answers, and an answer may hold a label.
    """
    found = labels(judgment)
    return found.pop() if len(found) == 1 else None


def outcome(label: str, game: int) -> tuple[float, int] | None:
    """Score and weight of the model, which is B in game 1 and A in game 2; None for a label that was not offered."""
    of_a = OUTCOMES.get(label)
    return of_a if of_a is None or game == 2 else (1 - of_a[0], of_a[1])


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


def read(rows: Sequence[Row]) -> Judged:
    """Sort the rows of a file by what they are.

    Raises:
        BadInput: If a row is none of a judgment, a battle and an answer.
    """
    found = Judged([], [], [])
    battles, unknown = [], []
    for number, row in enumerate(rows):
        try:
            if _question(row) is None:
                unknown.append(number)
            elif is_battle(row):
                battles.append({**row, "question_id": _question(row)})
            elif games := _games(row):
                found.games.extend(games)
                if {"tokens", "token_len"} & row.keys():  # a judgment may carry the count of the answer it is about
                    found.answers.append(_answer(row, ""))
            elif (answer := read_answer(row)) is not None:
                found.answers.append(answer)
            else:
                unknown.append(number)
        except (AttributeError, IndexError, KeyError, TypeError):  # other benchmarks have `choices` of another form
            unknown.append(number)
    if unknown or not rows:
        raise BadInput(
            f"{rows_text(unknown)} are no judgment, battle or answer of Arena-Hard"
            f"{'; the first has ' + ', '.join(rows[unknown[0]]) if unknown else ''}. A judgment has `question_id`, "
            "`model` and `games` (or `game` and `judgment`), a battle `question_id`, `model_a`, `model_b` and "
            "`winner`. Give such a file, or name the task it belongs to with --task."
        )
    found.battles.extend(read_battles(battles))
    return found


def is_battle(row: Row) -> bool:
    """Whether a row is a battle, as upstream writes them."""
    return {"winner", "model_a", "model_b"} <= row.keys()


def read_answer(row: Row) -> Answer | None:
    """An answer row of ours (`output`), of v0.1 (`choices`), of later versions (`messages`) or of the data folder."""
    if "choices" in row:
        turn = row["choices"][0]["turns"][0]
        return _answer({**row, **turn}, turn["content"])
    if "messages" in row:
        return _answer(row, row["messages"][-1]["content"])
    output = row.get("output", row.get("answer"))
    return None if output is None else _answer(row, "".join(output[:1]) if isinstance(output, list) else output)


def _answer(row: Row, content: Any) -> Answer:
    about = row.get("conv_metadata") or row.get("metadata") or {}
    published = row.get("token_len", about.get("token_len"))
    own = published is None and row.get("tokens") is not None
    tokens = row["tokens"] if own else published
    if not isinstance(tokens, int | None):
        raise TypeError("a number of tokens")
    return Answer(_question(row), model_of(row), _text(content), tokens, own)


def _games(row: Row) -> list[Game]:
    """The games of a judgment row: upstream's holds both, ours and the data folder's one each."""
    if isinstance(row.get("games"), list):
        return [_game(row, number, game or {}) for number, game in enumerate(row["games"], 1)]
    if "judgment" not in row or row.get("game") not in (1, 2):
        return []
    # A recorded verdict beside the text, where there is one, is not looked at.
    return [_game(row, row["game"], {"judgment": row["judgment"]})]


def _game(row: Row, number: int, game: Row) -> Game:
    text = _text(game.get("judgment"))
    # `score` speaks only where a file has left the judge's text out.
    label = game.get("score") if text is None else verdict(text)
    baseline = str(row.get("baseline") or BASELINE)
    return Game(_question(row), model_of(row), baseline, row.get("judge"), number, text, label)


def _question(row: Row) -> Any:
    """Whose question it is: `id` is that of the judgment where a judgment of ours has one."""
    return next((str(row[key]) for key in ("item", "question_id", "uid", "id") if key in row), None)


def _text(content: Any) -> Any:
    """A text, which later versions of the benchmark put into an object."""
    return content.get("answer") if isinstance(content, dict) else content
