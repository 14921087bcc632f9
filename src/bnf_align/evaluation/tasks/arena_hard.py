"""Arena-Hard v0.1: 500 hard prompts of real users; a judge compares every answer with the baseline's, in both orders.

Protocol: lmarena/arena-hard-auto d99b139 (v0.1; version 2.0 of that repository has other rules).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import yaml

from bnf_align.evaluation.ratings import Battle, clustered_intervals, official_intervals, win_rates
from bnf_align.evaluation.task import UNNAMED, EvalResult, Hub, JudgedTask, Message, Metrics, Question, Row, one_judge
from bnf_align.evaluation.tasks.arena_hard_games import BASELINE, Answer, Game, labels, read
from bnf_align.judge.wording import check_places, fill, wording
from bnf_align.records import BadInput

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
        prompts = (prompts,) if isinstance(prompts, str) else tuple(prompts)
        found = Wording(config.get("system_prompt"), prompts, config.get("follow_up") or GO_ON)
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


@dataclass(frozen=True)
class ArenaHard(JudgedTask):
    """Win rate against gpt-4-0314."""

    name = "arena_hard"
    version = 1
    hub = Hub("lmarena-ai/arena-hard-auto-v0.1", None, "train", "2a69efe86cff85c593cfd4c2b4491c128e52c6f1")
    template = "{question}"
    judge = "gpt-4o-mini"
    judge_template = JUDGE_TEMPLATE
    judge_tokens = 4096

    def items(self, rows: Iterable[Row]) -> list[Row]:
        """Items (`id`, `question`, `category`, `cluster`) from rows of v0.1 (`turns`) or of later versions (`prompt`).

        Raises:
            BadInput: If a row has no id or no text.
        """
        items = []
        for number, row in enumerate(rows):
            turns = row.get("turns")
            text = turns[0]["content"] if turns else row.get("prompt", row.get("question"))
            name = next((row[key] for key in ("question_id", "uid", "id") if key in row), None)
            if name is None or not isinstance(text, str):
                raise BadInput(
                    f"Row {number} is no question of Arena-Hard: it needs `question_id` (or `uid`) and a text in "
                    f"`turns` (or `prompt`), and has {', '.join(row)}. Give the benchmark's question file with --data "
                    "FILE."
                )
            about = {key: row.get(key) for key in ("category", "cluster")}
            items.append({"id": str(name), "question": text, **about})
        return items

    def fields(self, item: Row) -> dict[str, str]:
        """`question`."""
        return {"question": item["question"]}

    def answers(self, rows: Iterable[Row]) -> dict[str, Row]:
        """Item id -> row with `model`, `output` and `tokens`, from answer files of any version."""
        return {
            one.question: {"id": one.question, "model": one.model, "output": one.text, "tokens": one.tokens}
            for one in read(list(rows)).answers
        }

    def questions(
        self, item: Row, answer: str, baseline: str | None = None, template: str | None = None
    ) -> list[Question]:
        """Two games: first the baseline is assistant A, then the model is.

        Raises:
            BadInput: If the baseline's answer is missing, or the template has no place for a text.
        """
        if baseline is None:
            raise BadInput(f"Arena-Hard compares with {BASELINE}: give that model's answers with --baseline FILE.")
        orders = enumerate([(baseline, answer), (answer, baseline)], 1)
        text = template or self.judge_template
        return [
            Question(
                f"{item['id']}#{game}", messages(text, item["question"], *order), {"item": item["id"], "game": game}
            )
            for game, order in orders
        ]

    def follow_up(self, question: Question, judgment: str, template: str | None = None) -> Question | None:
        """The second of two attempts, where a judgment has no label at all; labels that differ stay as they are."""
        if labels(judgment):
            return None
        asked = read_wording(template or self.judge_template).follow_up
        turns = [{"role": "assistant", "content": judgment}, {"role": "user", "content": asked}]
        row = question.row | {"attempts": 2, "follow_up": wording(asked, GO_ON)}
        return question._replace(messages=[*question.messages, *turns], row=row)

    def score(
        self, rows: Sequence[Row], *, model: str | None = None, answers: Sequence[Row] = (), **_: Any
    ) -> EvalResult:
        """Win rate of one model, with intervals.

        Args:
            rows: Judgments or battles; answers alone give the tokens.
            model: Which model, where the rows speak of several.
            answers: What was judged, for judgments that do not bring the tokens.

        Returns:
            `win_rate` in per cent; its 95 % interval `ci_low`, `ci_high` drawn by question, and the official one drawn
            by battle, `ci_official_low`, `ci_official_high`; `average_tokens` of an answer; `battles`, weighted;
            `total` questions. `win_rate_lc` and `win_rate_style` depend on a pool of models, so `rank` gives them.

        Raises:
            BadInput: If rows are of no known shape, or speak of several models and `model` is none of them.
        """
        found = read(rows)
        name, baseline = found.sides(model)
        games = [game for game in found.games if game.model == name]
        told = [answer for answer in found.answers if answer.model == name]
        told += read(answers).of_model(name) if answers else []
        battles = found.battles_of(name)
        result = EvalResult(self.name, self.version, items=_items(games, battles, name))
        for game in games:
            if reason := game.dropped():
                result.drop(reason, f"{game.question}#{game.number}")
        result.metrics = _metrics(battles, name, baseline) | {"average_tokens": _average_tokens(told)}
        result.notes = _notes(games, battles, told)
        result.provenance = {
            "model": model if name == UNNAMED else name,
            "baseline": baseline,
            "judge": one_judge(game.judge for game in games),
        }
        if again := sorted({str(row["follow_up"]) for row in rows if "follow_up" in row}):
            result.provenance["follow_up"] = ", ".join(again)
        return result


def _metrics(battles: Sequence[Battle], model: str, baseline: str) -> Metrics:
    names = ("win_rate", "ci_low", "ci_high", "ci_official_low", "ci_official_high", "win_rate_lc", "win_rate_style")
    metrics: Metrics = dict.fromkeys(names)
    if battles:
        metrics["win_rate"] = win_rates(battles, baseline)[model]
        metrics["ci_low"], metrics["ci_high"] = clustered_intervals(battles, baseline)[model]
        metrics["ci_official_low"], metrics["ci_official_high"] = official_intervals(battles, baseline)[model]
    metrics["battles"] = sum(battle.weight for battle in battles)
    metrics["total"] = len({battle.question for battle in battles})
    return metrics


def _average_tokens(answers: Sequence[Answer]) -> float | None:
    """Mean tokens of an answer; both games of a question carry the count of the same answer."""
    counts = {answer.question: answer.tokens for answer in answers}
    known = [count for count in counts.values() if count is not None]
    return sum(known) / len(known) if known and len(known) == len(counts) else None


def _items(games: Sequence[Game], battles: Sequence[Battle], model: str) -> list[Row]:
    """Per question its verdicts and the mean outcome, which a paired comparison of two models starts from."""
    items: dict[str, Row] = {}
    for game in games:
        item = items.setdefault(game.question, {"id": game.question, "verdicts": []})
        item["verdicts"].append(game.label)
    sums: dict[str, list[float]] = {}
    for battle in battles:
        won, weight = sums.setdefault(battle.question, [0.0, 0.0])
        score = battle.score if battle.model == model else 1 - battle.score
        sums[battle.question] = [won + battle.weight * score, weight + battle.weight]
    for question, (won, weight) in sums.items():
        items.setdefault(question, {"id": question}).update(score=won / weight, weight=int(weight))
    return list(items.values())


def _notes(games: Sequence[Game], battles: Sequence[Battle], answers: Sequence[Answer]) -> list[str]:
    notes = []
    if not battles and not games:
        notes.append("the rows are answers: the win rate needs their judgments (`bnf-align eval judge`)")
    if recorded := sum(game.judgment is None and game.label is not None for game in games):
        notes.append(f"{recorded:,} games have no text of the judge: the verdict recorded as `score` was taken")
    if (seen := len({(game.question, game.number) for game in games})) < len(games):
        notes.append(f"{len(games) - seen:,} games repeat a question in the same order, and count again")
    if any(answer.own_tokens for answer in answers):
        notes.append("average_tokens counts the model's own tokens; published counts are cl100k's")
    return notes
