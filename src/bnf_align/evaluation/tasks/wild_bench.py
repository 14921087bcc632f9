"""WildBench v2: 1,024 hard tasks of real users, graded by a judge with a checklist for each task.

Protocol: allenai/WildBench d6b8dca. `WildBench` grades each output by itself (WB-Score); `WildBenchPairs` compares it
with a reference's (WB-Reward). Either scores the files of both.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bnf_align.evaluation.task import (
    UNNAMED,
    EvalResult,
    Hub,
    JudgedTask,
    Message,
    Metrics,
    Question,
    Row,
    model_of,
    one_judge,
    one_model,
)
from bnf_align.evaluation.tasks import wild_bench_scores as scores
from bnf_align.evaluation.tasks.wild_bench_wording import PAIR_TEMPLATE, SCORE_TEMPLATE
from bnf_align.judge.wording import check_places, fill
from bnf_align.records import BadInput, rows_text

SPEAKERS = {"user": "USER", "assistant": "ASSISTANT"}


@dataclass(frozen=True)
class WildBench(JudgedTask):
    """WB-Score."""

    name = "wild_bench"
    version = 1
    hub = Hub("allenai/WildBench", "v2", "test", "7c05c1b4550282b2ed6a2e6ac5db069f1e07df5c")
    template = "{user_query}"
    judge = "gpt-4o-2024-05-13"
    judge_template = SCORE_TEMPLATE
    judge_tokens = 1024
    judge_json = True

    def items(self, rows: Iterable[Row]) -> list[Row]:
        """Items (`id`, `conversation_input`, `checklist`, `primary_tag`, `secondary_tags`, `intent`) from v2's rows.

        Raises:
            BadInput: If a row has no id, or no conversation that ends with the user.
        """
        items = []
        for number, row in enumerate(rows):
            name = scores.session(row)
            turns = [{"role": turn["role"], "content": turn["content"]} for turn in row.get("conversation_input", [])]
            if name is None or not turns or turns[-1]["role"] != "user":
                raise BadInput(
                    f"Row {number} is no task of WildBench: it needs `session_id` and a `conversation_input` that "
                    f"ends with a turn of the user, and has {', '.join(row)}. Give rows of the v2 data set with "
                    "--data FILE."
                )
            about = {name: row.get(name) for name in ("primary_tag", "intent")}
            lists = {name: list(row.get(name) or []) for name in ("checklist", "secondary_tags")}
            items.append({"id": name, "conversation_input": turns, **lists, **about})
        return items

    def fields(self, item: Row) -> dict[str, str]:
        """`history`, `user_query` and `checklist` as upstream's src/eval.py writes them into its template."""
        *before, last = item["conversation_input"]
        said = [(SPEAKERS[turn["role"]], turn["content"]) for turn in before if turn["role"] in SPEAKERS]
        return {
            "history": "".join(f"{speaker}: {text}\n\n" for speaker, text in said),
            "user_query": last["content"],
            "checklist": "".join(f"- {point}\n" for point in item["checklist"]),
        }

    def prompt(self, item: Row, template: str | None = None) -> list[Message]:
        """The conversation; its last turn is the query, in the wording of `template` where there is one."""
        *history, _ = item["conversation_input"]
        return [*history, {"role": "user", "content": fill(template or self.template, self.fields(item))}]

    def questions(
        self, item: Row, answer: str, baseline: str | None = None, template: str | None = None
    ) -> list[Question]:
        """One question; with an answer of a `baseline`, that of `WildBenchPairs`."""
        if baseline is not None:
            return WildBenchPairs().questions(item, answer, baseline, template)
        wording = check_places(template or self.judge_template, ("user_query", "model_output"))
        text = fill(wording, {**self.fields(item), "model_output": answer})
        length, truncated = scores.output_length(answer)
        row = {**_about(item), "output_chars_stripped": length, "truncated": truncated}
        return [Question(item["id"], [{"role": "user", "content": text}], row)]

    def score(
        self,
        rows: Sequence[Row],
        *,
        model: str | None = None,
        tags: scores.Tags | None = None,
        data: Sequence[Row] = (),
        answers: Sequence[Row] = (),
        length_margin: int = 500,
        **_: Any,
    ) -> EvalResult:
        """WB-Score, WB-Reward or both, as the rows have it.

        Args:
            rows: Judgments; answers alone give the length.
            model: Which model, where the rows speak of several.
            tags: Session id -> task tags, for rows that do not bring them.
            data: The task's items, which have the tags too.
            answers: What was judged, for rows that do not bring the lengths.
            length_margin: K of WB-Reward, in characters; -1 turns the rule off.

        Returns:
            `wb_score` (the reported one, weighted over task groups; None without tags), `wb_score_plain`,
            `average_length` in characters, `total`; for pairs `wb_reward`, `wb_reward_macro`, `pairs`. WB-Elo depends
            on a pool of models, so `rank` gives it.

        Raises:
            BadInput: If rows are of no known shape, or speak of several models and `model` is none of them.
        """
        _check(rows)
        pairs = [row for row in rows if scores.is_pair(row)]
        alone = [row for row in rows if not scores.is_pair(row)]
        name = one_model({model_of(row) for row in alone}.union(*map(scores.pair_models, pairs)), model)
        scored = [scores.read_scored(row) for row in alone if model_of(row) == name]
        compared = [scores.read_pair(row, name) for row in pairs if name in scores.pair_models(row)]
        nothing: Metrics = dict.fromkeys(("wb_score", "wb_score_plain", "average_length"))
        result = EvalResult(self.name, self.version, nothing)
        table = scores.tag_table(tags if tags is not None else data)
        if scored:
            scores.add_scores(result, scores.with_lengths(scored, answers, name), table)
        if compared:
            scores.add_rewards(result, compared, table, length_margin)
        judge = one_judge(row.judge for row in scored) or one_judge(row.judge for row in compared)
        result.provenance = {"model": model if name == UNNAMED else name, "judge": judge}
        return result


@dataclass(frozen=True)
class WildBenchPairs(WildBench):
    """WB-Reward: the reference's output beside the model's, in an order drawn for each item or in both."""

    judge = "gpt-4-turbo-2024-04-09"
    judge_template = PAIR_TEMPLATE

    both_orders: bool = False
    """Ask twice, with the places exchanged; the leaderboard asked once."""
    seed: int = 42

    def questions(
        self, item: Row, answer: str, baseline: str | None = None, template: str | None = None
    ) -> list[Question]:
        """One question, or two: in game 1 the reference is response A, in game 2 the model is.

        Raises:
            BadInput: If the reference's answer is missing, or the template has no place for a text.
        """
        if baseline is None:
            raise BadInput("WB-Reward compares with a reference: give its answers with --baseline FILE.")
        wording = check_places(template or self.judge_template, ("user_query", "candidate_A", "candidate_B"))
        # Drawn from the item's id, so that a resumed run, or one over fewer items, asks the same.
        drawn = 1 + random.Random(f"{self.seed}:{item['id']}").randrange(2)
        about = {**_about(item), **scores.pair_lengths(answer, baseline)}
        asked = []
        for game in (1, 2) if self.both_orders else (drawn,):
            first, second = (baseline, answer) if game == 1 else (answer, baseline)
            shown = {"candidate_A": scores.shown_output(first), "candidate_B": scores.shown_output(second)}
            messages = [{"role": "user", "content": fill(wording, {**self.fields(item), **shown})}]
            asked.append(Question(f"{item['id']}#{game}", messages, {**about, "game": game}))
        return asked


def _about(item: Row) -> Row:
    """What a judgment carries of its item: with the tags in it, its file needs no other."""
    return {"item": item["id"], **{name: item[name] for name in ("primary_tag", "secondary_tags") if item.get(name)}}


def _check(rows: Sequence[Row]) -> None:
    """Refuse rows that say nothing of WildBench."""
    told = {*scores.VERDICTS, "model_outputs", "model_output", "output"}
    odd = [number for number, row in enumerate(rows) if not (told & row.keys() and _readable(row))]
    if odd or not rows:
        found = f"; the first has {', '.join(rows[odd[0]])}" if odd else ""
        raise BadInput(
            f"{rows_text(odd)} are no judgment or answer of WildBench{found}. A judgment has `session_id` and `score` "
            "(or `judgment`), a comparison `model_A`, `model_B` and `model_outputs`. Give such a file, or name the "
            "task it belongs to with --task."
        )


def _readable(row: Row) -> bool:
    """Whether a row has an item and, in every column that is looked at, what belongs there."""
    try:
        known = (
            [scores.read_pair(row, name) for name in scores.pair_models(row)]
            if scores.is_pair(row)
            else [scores.read_scored(row)]
        )
    except (AttributeError, KeyError, TypeError):
        return False
    return scores.session(row) is not None and all(isinstance(one.length, int | None) for one in known)
