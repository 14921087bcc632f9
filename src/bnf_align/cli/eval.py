"""`bnf-align eval run | judge | score | rank | held_out`: from answers to numbers, each step a JSONL file."""

from __future__ import annotations

import argparse
import json
import shlex
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from bnf_align.cli.flags import (
    RESUME,
    add_batch_flags,
    add_flag,
    add_model_flags,
    add_row_flags,
    add_url_flags,
    check_out,
    count,
    engine,
    key_variable,
    request_fields,
    row_options,
    text_of,
    where,
)
from bnf_align.records import BadInput, counted

TASKS = ("gsm8k", "math_l5", "crux", "mmlu_redux", "ifeval", "arena_hard", "wild_bench", "held_out")


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status: 0 done, 1 where something is still missing."""
    parser = argparse.ArgumentParser(prog="bnf-align eval", description=__doc__, epilog=RESUME)
    steps = parser.add_subparsers(dest="step", required=True)
    for add in (_run_flags, _judge_flags, _score_flags, _rank_flags, _held_out_flags):
        add(steps)
    arguments = parser.parse_args(argv)
    arguments.command = shlex.join(["bnf-align", "eval", *argv])
    return int(STEPS[arguments.step](arguments))


def _task_flags(parser: Any) -> None:
    add_flag(parser, "--task", required=True, choices=TASKS)
    add_flag(parser, "--data", help="a file of the task's items, instead of its data set on the hub")
    add_flag(parser, "--limit", type=count, help="the first so many items")


def _run_flags(steps: Any) -> None:
    parser = steps.add_parser("run", help="a model's answers", epilog=RESUME)
    _task_flags(parser)
    add_url_flags(parser)
    add_flag(parser, "--model", required=True, help="a folder or hub name; an adapter too; with --url its served name")
    add_flag(parser, "--out", required=True, help="the file of answers")
    add_flag(parser, "--template", help="a file with the wording of the prompt, instead of ours")
    add_batch_flags(parser)
    add_model_flags(parser)
    add_flag(parser, "--temperature", type=float, default=0.0, help="0 (default) is greedy, as published")
    add_flag(parser, "--seed", type=int, default=0)
    add_flag(parser, "--max-new-tokens", type=count, default=4096, help="the longest answer (default %(default)s)")


def _held_out_flags(steps: Any) -> None:
    parser = steps.add_parser(
        "held_out", help="log-probabilities of your own held-out rows, which train reads too", epilog=RESUME
    )
    add_flag(parser, "--data", required=True, help="preference rows, an export, folder or hub name, as in training")
    add_flag(parser, "--model", required=True, help="a folder or hub name; an adapter too")
    add_flag(parser, "--out", required=True, help="the file of log-probabilities, for `eval score --task held_out`")
    add_flag(parser, "--limit", type=count, help="the first so many rows")
    add_row_flags(parser)
    add_model_flags(parser)
    add_flag(parser, "--dtype", default="float32", choices=("float32", "bfloat16"), help="of the weights")
    add_flag(parser, "--batch-tokens", type=count, default=8192, help="padded tokens at a time (default %(default)s)")


def _judge_flags(steps: Any) -> None:
    parser = steps.add_parser("judge", help="a judge model reads the answers", epilog=RESUME)
    parser.add_argument("answers", help="the file that `eval run` wrote")
    _task_flags(parser)
    add_url_flags(parser)
    add_flag(parser, "--judge", help="the judge model; default: the paper's")
    add_flag(parser, "--out", required=True, help="the file of judgments")
    add_flag(parser, "--baseline", help="answers to compare with: arena_hard: of gpt-4-0314; wild_bench: WB-Reward")
    add_flag(parser, "--judge-template", help="a file with the wording of the question, instead of ours")
    add_flag(parser, "--cache", help="folder of judgments already paid for (default ~/.cache/bnf-align/judge)")
    add_flag(parser, "--prices", type=float, nargs=2, metavar=("IN", "OUT"), help="of a million tokens: cost, budget")
    add_flag(parser, "--budget", type=float, help="stop before it costs more; needs --prices")
    add_flag(parser, "--allow-missing", action="store_true", help="finish; what the judge does not answer is counted")
    add_flag(parser, "--dry-run", action="store_true", help="say what it would cost, and ask nothing")


def _score_flags(steps: Any) -> None:
    parser = steps.add_parser("score", help="numbers from answers or judgments: ours, and published files as they are")
    parser.add_argument("file", help=".jsonl, .json, .gz; ours, ZeroEval's, IFEval's, WildBench's or Arena-Hard's")
    add_flag(parser, "--task", required=True, choices=TASKS)
    add_flag(parser, "--data", help="a file of the task's items: gold answers, instructions, tags")
    add_flag(parser, "--model", help="which model, where the file has several")
    add_flag(parser, "--tags", help="wild_bench: a file of task tags per session")
    add_flag(parser, "--answers", help="a file with the answers that were judged: lengths and token counts")
    add_flag(parser, "--base", help="held_out: the file of the model before training")
    add_flag(parser, "--math-verify", action="store_true", help="a second opinion beside the published rule")
    add_flag(parser, "--json", action="store_true", help="one JSON object with the key metrics")


def _rank_flags(steps: Any) -> None:
    parser = steps.add_parser("rank", help="numbers that need several models: Elo, length and style control, ranks")
    parser.add_argument("files", nargs="+", help="judgments, one file a model or all in one")
    add_flag(parser, "--task", required=True, choices=TASKS)
    add_flag(parser, "--answers", help="folder of answer files, for lengths and style")
    add_flag(parser, "--anchors", help="wild_bench: a file of anchor Elos, model -> Elo")
    add_flag(parser, "--seed", type=int, default=42)
    add_flag(parser, "--json", action="store_true", help="one JSON object")


def _run(arguments: argparse.Namespace) -> int:
    from bnf_align.engines import Sampling
    from bnf_align.evaluation.items import load_items
    from bnf_align.evaluation.run import run
    from bnf_align.evaluation.tasks import TASKS as tasks

    if arguments.task == "held_out":
        raise BadInput("held_out is a step of its own: bnf-align eval held_out --data FILE --model MODEL --out OUT")
    check_out(arguments.out, arguments.data)
    task = tasks[arguments.task]
    items = load_items(task, arguments.data, arguments.limit)
    sampling = Sampling(
        temperature=arguments.temperature, seed=arguments.seed, max_new_tokens=arguments.max_new_tokens
    )
    model, template = engine(arguments, arguments.model), text_of(arguments.template)
    about = {"command": arguments.command}
    progress = run(task, items, model, arguments.out, sampling=sampling, template=template, about=about)
    print(f"{counted(progress.done, 'answer')} in {progress.path}")
    return 1 if progress.missing else 0


def _held_out(arguments: argparse.Namespace) -> int:
    from bnf_align.data.read import iter_rows
    from bnf_align.evaluation.held_out import measure
    from bnf_align.models import configured_tokenizer, load
    from bnf_align.sources import Options

    check_out(arguments.out, arguments.data)
    options = row_options(arguments)
    read = Options(label_map=options["label_map"], column_map=options["column_map"])
    rows = iter_rows(arguments.data, arguments.dataset_train_split, read)
    loaded = load(arguments.model, dtype=arguments.dtype, **where(arguments))
    progress = measure(
        rows if arguments.limit is None else islice(rows, arguments.limit),
        loaded.model,
        configured_tokenizer(loaded.tokenizer, arguments.chat_template_path, arguments.eos_token),
        arguments.out,
        name=arguments.model,
        max_tokens=arguments.batch_tokens,
        about={"command": arguments.command},
        **options,
    )
    print(f"{counted(progress.done, 'response')} in {progress.path}")
    return 0


def _judge(arguments: argparse.Namespace) -> int:
    from bnf_align.construct.scorers.load import judge_of
    from bnf_align.evaluation.items import load_items
    from bnf_align.evaluation.judging import answers_of, judge_answers, questions
    from bnf_align.evaluation.score import card_of
    from bnf_align.evaluation.task import JudgedTask
    from bnf_align.evaluation.tasks import TASKS as tasks
    from bnf_align.evaluation.tasks.wild_bench import WildBenchPairs

    task = WildBenchPairs() if arguments.task == "wild_bench" and arguments.baseline else tasks[arguments.task]
    if not isinstance(task, JudgedTask):
        raise BadInput(f"{task.name} has no judge: score its answers with `bnf-align eval score`.")
    check_out(arguments.out, arguments.answers, arguments.baseline, arguments.data)
    template = text_of(arguments.judge_template)
    model, answers = answers_of(task, arguments.answers)
    baseline = answers_of(task, arguments.baseline)[1] if arguments.baseline else None
    items = load_items(task, arguments.data, arguments.limit)
    asked = questions(task, items, answers, baseline, template)
    arguments.url = arguments.url or ["https://api.openai.com/v1"]
    arguments.request = request_fields(arguments)
    key_variable(arguments)
    judge = judge_of(arguments, arguments.judge or task.judge)
    if arguments.dry_run:
        pairs = [(question.id, question.messages) for question in asked]
        print("\n".join(judge.estimate(pairs, task.judge_tokens, json_mode=task.judge_json).lines()))
        return 0
    # The seed is that of the answers: a judge is asked at temperature 0.
    about = {"command": arguments.command, "seed": card_of(Path(arguments.answers)).get("seed")}
    progress = judge_answers(
        task,
        asked,
        judge,
        arguments.out,
        model=model,
        template=template,
        allow_missing=arguments.allow_missing,
        about=about,
    )
    print(f"{counted(progress.done, 'judgment')} in {progress.path}; {dict(judge.counts)}")
    return 1 if progress.missing else 0


def _score(arguments: argparse.Namespace) -> int:
    from bnf_align.evaluation.score import score_file

    names = ("data", "tags", "answers", "base", "math_verify")
    options = {name: getattr(arguments, name) for name in names if getattr(arguments, name)}
    return _show(score_file(arguments.file, arguments.task, arguments.model, **options), arguments)


def _rank(arguments: argparse.Namespace) -> int:
    from bnf_align.evaluation.rank import rank_files, read_anchors

    anchors = read_anchors(arguments.anchors) if arguments.anchors else None
    ranking = rank_files(
        arguments.files, arguments.task, answers=arguments.answers, anchors=anchors, seed=arguments.seed
    )
    return _show(ranking, arguments)


def _show(result: Any, arguments: argparse.Namespace) -> int:
    print(json.dumps(result.as_dict(), ensure_ascii=False) if arguments.json else "\n".join(result.lines()))
    return 0


STEPS = {"run": _run, "judge": _judge, "score": _score, "rank": _rank, "held_out": _held_out}
