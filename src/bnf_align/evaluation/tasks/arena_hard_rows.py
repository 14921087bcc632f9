"""Files of Arena-Hard: questions, answers, judgments and battles, in every shape they are published in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from bnf_align.evaluation.ratings import read_battles
from bnf_align.evaluation.task import Row
from bnf_align.evaluation.tasks.arena_hard_games import BASELINE, Answer, Game, Judged
from bnf_align.evaluation.tasks.arena_hard_verdict import verdict
from bnf_align.evaluation.tasks.one_model import model_of
from bnf_align.records import BadInput, rows_text


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


def read_questions(rows: Iterable[Row]) -> Iterator[Row]:
    """Items (`id`, `question`, `category`, `cluster`) from rows of v0.1 (`turns`) or of later versions (`prompt`).

    Raises:
        BadInput: If a row has no id or no text.
    """
    for number, row in enumerate(rows):
        turns = row.get("turns")
        text = turns[0]["content"] if turns else row.get("prompt", row.get("question"))
        name = next((row[key] for key in ("question_id", "uid", "id") if key in row), None)
        if name is None or not isinstance(text, str):
            raise BadInput(
                f"Row {number} is no question of Arena-Hard: it needs `question_id` (or `uid`) and a text in `turns` "
                f"(or `prompt`), and has {', '.join(row)}. Give the benchmark's question file with --data FILE."
            )
        yield {"id": str(name), "question": text, "category": row.get("category"), "cluster": row.get("cluster")}


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
