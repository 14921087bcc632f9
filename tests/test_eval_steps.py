"""A tiny model goes through run, judge and score for every task; killed in each step, it ends with the same files."""

import json
import multiprocessing
import time

import pytest

from bnf_align.cli.main import main
from bnf_align.records import BadInput
from model_server import Instead, ModelServer, prompt_of
from tiny_models import chatml_tokenizer
from tiny_nets import tiny_llama

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    [f"bnf_align.{name}" for name in ("analysis", "endpoint", "engines.local", "evaluation.run", "training.model")]
)
COUNT = 10
TASKS = ("gsm8k", "math_l5", "crux", "mmlu_redux", "ifeval", "arena_hard", "wild_bench", "held_out")


def rows_of(task: str) -> list[dict]:
    numbers = range(COUNT)
    if task == "crux":
        return [
            {"id": f"sample_{i}", "code": "def f(x): return x", "input": f"{i}", "output": f"{i}"} for i in numbers
        ]
    if task == "mmlu_redux":
        choices = ["one", "two", "three", "four"]
        return [
            {"id": f"m{i}", "question": f"Which is {i}?", "choices": choices, "correct_answer": choices[i % 4]}
            for i in numbers
        ]
    if task == "ifeval":
        asked = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
        return [{"key": i, "prompt": f"Write {i} lines.", **asked} for i in numbers]
    if task == "arena_hard":
        return [{"question_id": f"a{i}", "turns": [{"content": f"Write {i} lines."}]} for i in numbers]
    if task == "wild_bench":
        return [
            {
                "session_id": f"w{i}",
                "conversation_input": [{"role": "user", "content": f"Tell me about {i}."}],
                "checklist": ["Is it about the number?"],
                "primary_tag": "Math",
                "secondary_tags": [],
            }
            for i in numbers
        ]
    if task == "held_out":
        return [{"prompt": f"Add {i}", "chosen": " yes" * (1 + i % 3), "rejected": " no" * 2} for i in numbers]
    return [{"question": f"What is {i} + 1?", "answer": f"#### {i + 1}", "id": f"{task}-{i}"} for i in numbers]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("model")
    tiny_llama(300, max_position_embeddings=4096).save_pretrained(folder)
    chatml_tokenizer().save_pretrained(folder)
    return str(folder)


def items_file(folder, task):
    path = folder / f"{task}_items.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_of(task)))
    return str(path)


def run_flags(folder, task, model, out) -> list[str]:
    flags = ["--model", model, "--data", items_file(folder, task), "--out", str(out)]
    if task == "held_out":
        return ["eval", "held_out", *flags, "--batch-tokens", "120"]
    return [
        "eval",
        "run",
        "--task",
        task,
        *flags,
        "--batch-rows",
        "1",
        "--max-new-tokens",
        "48",
        "--batch-tokens",
        "120",
    ]


def verdict(body) -> str:
    """A judge that is neither always the same nor random."""
    if "response_format" in body:
        return json.dumps({"strengths": "short", "weaknesses": "wrong", "score": str(1 + len(prompt_of(body)) % 10)})
    return f"I would say so. My verdict: [[{('A>B', 'B>>A', 'A=B')[len(prompt_of(body)) % 3]}]]"


def killed(argv: list[str], partial, rows: int) -> None:
    """Run `argv` and kill it once `partial` has that many rows."""
    process = FORK.Process(target=main, args=(argv,))
    process.start()
    deadline = time.monotonic() + 600
    while not (partial.exists() and partial.read_bytes().count(b"\n") >= rows):
        assert process.is_alive(), "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.join()


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.slow
def test_answers_of_a_killed_run_end_as_those_of_an_uninterrupted_one(task, model, tmp_path, capsys):
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    assert main(run_flags(tmp_path, task, model, whole)) == 0
    for rows in (2, 5):
        killed(run_flags(tmp_path, task, model, broken), tmp_path / "broken.jsonl.partial", rows)
        assert not broken.exists()
    assert main(run_flags(tmp_path, task, model, broken)) == 0
    assert broken.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "broken.jsonl.partial").exists()
    capsys.readouterr()
    if task in ("arena_hard", "wild_bench"):
        return  # their numbers are those of judgments
    assert main(["eval", "score", str(broken), "--task", task, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"].get("total", result["metrics"].get("pairs")) == COUNT
    assert result["provenance"]["model"] == model


@pytest.mark.parametrize("task", ["arena_hard", "wild_bench"])
def test_judgments_of_a_killed_run_end_as_those_of_an_uninterrupted_one(task, model, tmp_path, capsys):
    answers, baseline = tmp_path / "answers.jsonl", tmp_path / "baseline.jsonl"
    ids = [next(iter(row.values())) for row in rows_of(task)]
    for path, text in ((answers, "an answer of the model"), (baseline, "of the baseline")):
        path.write_text(
            "".join(json.dumps({"id": i, "model": path.stem, "output": f"{text} {i}"}) + "\n" for i in ids)
        )
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"

    with ModelServer(answer=verdict, delay=0.02, failures=0.2) as server:

        def flags(out, cache) -> list[str]:
            flags = ["eval", "judge", str(answers), "--task", task, "--data", items_file(tmp_path, task)]
            flags += ["--out", str(out), "--url", server.url, "--cache", str(tmp_path / cache), "--concurrency", "2"]
            return flags + (["--baseline", str(baseline)] if task == "arena_hard" else [])

        assert main([*flags(whole, "cache"), "--dry-run"]) == 0
        assert server.received.total() == 0
        assert main(flags(whole, "cache")) == 0
        asked = server.served.total()
        killed(flags(broken, "other cache"), tmp_path / "broken.jsonl.partial", 3)
        assert main(flags(broken, "other cache")) == 0
        assert broken.read_bytes() == whole.read_bytes()
        assert server.served.total() <= 2 * asked + 2  # the calls that were on their way at the kill
        again = server.received.total()
        assert main(flags(tmp_path / "again.jsonl", "cache")) == 0
        assert server.received.total() == again  # a repeat costs nothing
    capsys.readouterr()
    assert main(["eval", "score", str(broken), "--task", task, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["metrics"]["total"] == COUNT
    assert result["provenance"]["judge"]
    assert result["provenance"]["template"].startswith("ours:")


@pytest.mark.parametrize(("task", "games"), [("arena_hard", 2), ("wild_bench", 1), ("pairs", 1)])
def test_what_the_judge_always_refuses_is_left_out_and_counted_on_request(task, games, tmp_path, capsys):
    """A content filter refuses one item: without the flag the file never ends, with it the item counts as dropped."""
    name = "wild_bench" if task == "pairs" else task
    files = {text: tmp_path / f"{text}.jsonl" for text in ("answers", "baseline")}
    for text, path in files.items():
        ids = [next(iter(row.values())) for row in rows_of(name)]
        rows = [{"id": i, "model": text, "output": f"{text} to {i}"} for i in ids]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "judgments.jsonl"

    def filtered(body) -> str:
        if f"answers to {name[0]}4" in prompt_of(body):
            raise Instead(400, "content_filter")
        return json.dumps({"reason": "x", "choice": "A+"}) if task == "pairs" else verdict(body)

    with ModelServer(answer=filtered) as server:
        flags = ["eval", "judge", str(files["answers"]), "--task", name, "--data", items_file(tmp_path, name)]
        flags += ["--out", str(out), "--url", server.url, "--cache", str(tmp_path / "cache")]
        flags += [] if task == "wild_bench" else ["--baseline", str(files["baseline"])]
        assert main(flags) == 1
        assert not out.exists()
        assert main([*flags, "--allow-missing"]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["judgment"] is None for row in rows].count(True) == games
    capsys.readouterr()
    assert main(["eval", "score", str(out), "--task", name, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert sum(map(len, result["dropped"].values())) == games
    assert result["metrics"]["pairs" if task == "pairs" else "total"] == COUNT - 1


def test_another_model_may_not_continue_a_file(tmp_path, capsys):
    """Other weights in the same folder are another model: its answers must not pass for finished ones."""
    folder, out = tmp_path / "model", tmp_path / "answers.jsonl"
    chatml_tokenizer().save_pretrained(folder)
    for seed, status in ((0, 0), (0, 0), (1, 2)):
        tiny_llama(300, seed=seed, max_position_embeddings=4096).save_pretrained(folder)
        assert main(run_flags(tmp_path, "gsm8k", str(folder), out)) == status
    assert "was begun with other settings (weights:" in capsys.readouterr().err


def test_an_answer_that_is_missing_is_not_scored_around(tmp_path):
    from bnf_align.evaluation.judging import questions
    from bnf_align.evaluation.tasks import TASKS

    task = TASKS["arena_hard"]
    items = task.items(rows_of("arena_hard"))
    rows = {item["id"]: {"output": "x"} for item in items[:-1]}
    with pytest.raises(BadInput, match="lack 1 of 10 items"):
        questions(task, items, rows, rows)


@pytest.mark.parametrize("task", ["gsm8k", "held_out"])
def test_other_items_under_the_same_ids_do_not_get_the_old_answers(task, model, tmp_path, capsys):
    flags = run_flags(tmp_path, task, model, tmp_path / "answers.jsonl")
    assert main(flags) == 0
    items = tmp_path / f"{task}_items.jsonl"
    items.write_text(items.read_text().replace("What is", "How much is").replace("Add", "Sum"))
    assert main(flags) == 2
    assert "Give another --out" in capsys.readouterr().err


def test_held_out_reads_what_train_reads(model, tmp_path, capsys):
    """Other names of columns, an export, another template: the same tokens as the same rows under our own names."""
    written = {}
    for name, flags in {
        "ours": [],
        "theirs": ["--map", "prompt=question", "chosen=good", "rejected=bad"],
        "cut": ["--max-length", "12"],
    }.items():
        names = ("question", "good", "bad") if name == "theirs" else ("prompt", "chosen", "rejected")
        rows = [dict(zip(names, row.values(), strict=True)) for row in rows_of("held_out")]
        data, out = tmp_path / f"{name}.jsonl", tmp_path / f"{name}.out.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert main(["eval", "held_out", "--model", model, "--data", str(data), "--out", str(out), *flags]) == 0
        written[name] = [(row["id"], row["tokens"]) for row in map(json.loads, out.read_text().splitlines())]
    assert written["theirs"] == written["ours"]
    assert sum(tokens for _, tokens in written["cut"]) < sum(tokens for _, tokens in written["ours"])
    assert main(["eval", "run", "--task", "held_out", "--model", model, "--data", str(data), "--out", "x.jsonl"]) == 2
    assert "bnf-align eval held_out --data" in capsys.readouterr().err
