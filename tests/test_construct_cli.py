"""generate, score and select from the command line: killed at any moment they end with the same files."""

import gzip
import json
import multiprocessing
import os
import random
import threading
import time
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from bnf_align.cli.main import main
from bnf_align.data.rows import preference_rows
from bnf_align.engines import LocalEngine, Request, Sampling
from bnf_align.journal import read_jsonl
from model_server import ModelServer, prompt_of
from tiny_models import chatml_tokenizer
from tiny_nets import SIZES, tiny_llama

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    [f"bnf_align.construct.{name}" for name in ("dataset", "generate", "scorers.reward_model", "scorers.judge")]
    + ["bnf_align.engines.local", "bnf_align.endpoint"]
)
COUNT = 12


def write(path, rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, a reward model, prompts, and candidates that `score` takes some time for."""
    folder = tmp_path_factory.mktemp("construct")
    tiny_llama(300, max_position_embeddings=4096).save_pretrained(folder / "model")
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=300, num_labels=1, pad_token_id=256, **{**SIZES, "max_position_embeddings": 4096})
    LlamaForSequenceClassification(config).save_pretrained(folder / "reward")
    for name in ("model", "reward"):
        chatml_tokenizer().save_pretrained(folder / name)
    questions = [{"question": f"What is {i} + {i * i}?", "answer": f"#### {i + i * i}"} for i in range(COUNT)]
    write(folder / "prompts.jsonl", questions)
    rows = [
        {"id": f"c{i}", "prompt": f"Say {i}", "candidates": [{"text": f"{i} {j} " * (i + j)} for j in range(1, 5)]}
        for i in range(40)
    ]
    write(folder / "candidates.jsonl", rows)
    scored = [
        {
            "id": str(i),
            "prompt": f"prompt {i}",
            "candidates": [{"text": f"{w} {i} " * 20} for w in "abcde"],
            "scores": [(i * k) % 7 for k in range(1, 6)],
        }
        for i in range(3000)
    ]
    write(folder / "scored.jsonl", scored)
    return folder


def generate(folder, out, *more) -> list[str]:
    flags = ["generate", "--prompts", str(folder / "prompts.jsonl"), "--out", str(out), "--chat", "-n", "4"]
    return [*flags, "--max-new-tokens", "24", *more]


def in_process(folder, out, *more) -> list[str]:
    return generate(folder, out, "--model", str(folder / "model"), "--batch-rows", "8", *more)


def reward(folder, out) -> list[str]:
    flags = ["score", str(folder / "candidates.jsonl"), "--scorer", "reward_model", "--model", str(folder / "reward")]
    return [*flags, "--out", str(out), "--batch-rows", "8"]


def chosen(folder, out) -> list[str]:
    flags = ["select", str(folder / "scored.jsonl"), "--out", str(out), "--pairing-ratio", "0.5"]
    return [*flags, "--test-fraction", "0.2"]


def killed(argv: list[str], moment) -> bool:
    """Run `argv` and kill it as soon as `moment()` is true; whether it had not ended before."""
    process = FORK.Process(target=main, args=(argv,))
    process.start()
    deadline = time.monotonic() + 120
    while process.is_alive() and not moment():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    alive = process.is_alive()
    process.kill()
    process.join()
    return alive


def lines_of(path: Path) -> list[bytes]:
    """Whole lines of a file that may be cut short."""
    data = path.read_bytes() if path.exists() else b""
    return data[: data.rfind(b"\n") + 1].splitlines()


def after(path: Path, rows: int, pause: float):
    """True once `path` has so many rows, and a moment has passed."""
    since: list[float] = []

    def moment() -> bool:
        if len(lines_of(path)) >= rows:
            since.append(time.monotonic())
        return bool(since) and time.monotonic() - since[0] >= pause

    return moment


def files(path: Path) -> dict[str, bytes]:
    """The files that belong to an output, but for the command in their cards."""
    return {
        file.name.replace(path.stem, "out"): file.read_bytes()
        for file in path.parent.iterdir()
        if file.name.startswith(path.stem) and "card" not in file.name
    }


@pytest.mark.parametrize("several", [False, True])
def test_candidates_of_a_killed_run_end_as_those_of_an_uninterrupted_one(folder, tmp_path, several):
    more = ["--temperature", "0.5", "1.0"] if several else []
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    assert main(in_process(folder, whole, *more)) == 0
    chance = random.Random(several)
    partial = tmp_path / ("broken.jsonl.1.jsonl.partial" if several else "broken.jsonl.partial")
    kills = 0
    for rows in (1, 5, 9):
        kills += killed(in_process(folder, broken, *more), after(partial, rows, chance.random() / 50))
        assert not (lines := lines_of(broken)) or len(lines) == COUNT
    assert kills >= 2
    assert main(in_process(folder, broken, *more)) == 0
    assert files(broken) == files(whole)
    assert len(list(read_jsonl(broken))) == COUNT


def test_scores_of_a_killed_run_end_as_those_of_an_uninterrupted_one(folder, tmp_path, capsys):
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    assert main(reward(folder, whole)) == 0
    chance = random.Random(0)
    kills = 0
    for rows in (1, 12, 24):
        moment = after(tmp_path / "broken.jsonl.partial", rows, chance.random() / 50)
        kills += killed(reward(folder, broken), moment)
    assert kills >= 2
    assert main(reward(folder, broken)) == 0
    assert files(broken) == files(whole)
    rows = list(read_jsonl(broken))
    assert [row["id"] for row in rows] == [f"c{i}" for i in range(40)]
    assert all(len(row["scores"]) == 4 and None not in row["scores"] for row in rows)
    assert "160 candidates of 40 rows scored" in capsys.readouterr().out
    card = json.loads((tmp_path / "whole.jsonl.card.json").read_text())
    assert card["scorer"].startswith("reward_model:")
    assert len(card["weights"]) == 32


@pytest.mark.parametrize("command", [in_process, reward])
def test_a_batch_that_was_torn_apart_is_redone_and_its_finished_rows_stay(folder, tmp_path, command):
    """A power cut may leave some rows of a batch and half a line; here the kept rows are marked."""
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    assert main(command(folder, whole)) == 0
    lines = whole.read_bytes().splitlines(keepends=True)
    kept = [line.replace(b'"prompt": ', b'"prompt":  ') for line in lines[1::3]]
    (tmp_path / "broken.jsonl.partial").write_bytes(b"".join(kept) + lines[0][:25])
    (tmp_path / "broken.jsonl.card.json").write_bytes((tmp_path / "whole.jsonl.card.json").read_bytes())
    assert main(command(folder, broken)) == 0
    expected = list(lines)
    expected[1::3] = kept
    assert broken.read_bytes() == b"".join(expected)


def test_a_selection_that_is_killed_is_there_whole_or_not_at_all(folder, tmp_path):
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    assert main(chosen(folder, whole)) == 0
    expected = {name.replace("whole", "broken"): data for name, data in files(whole).items()}
    began = time.monotonic()
    process = FORK.Process(target=main, args=(chosen(folder, tmp_path / "timed.jsonl"),))
    process.start()
    process.join()
    length, chance = time.monotonic() - began, random.Random(0)
    for _ in range(4):
        until = time.monotonic() + length * chance.uniform(0.3, 1.0)
        killed(chosen(folder, broken), lambda until=until: time.monotonic() >= until)
        for name, data in files(broken).items():
            assert data == expected[name]
    assert main(chosen(folder, broken)) == 0
    assert files(broken) == expected
    assert not [path.name for path in tmp_path.iterdir() if path.name == ".broken.jsonl.tmp"]
    cards = [json.loads((tmp_path / f"{path.name}.card.json").read_text()) for path in (whole, broken)]
    for card in cards:
        del card["command"]
    assert cards[0] == cards[1]


def test_rows_that_a_url_has_answered_stay_as_they_are_through_kills(folder, tmp_path):
    chance = random.Random(0)

    def text(body):  # never the same twice
        return f"{prompt_of(body)} {chance.random()}"

    out = tmp_path / "out.jsonl"
    finished: set[bytes] = set()
    with ModelServer(answer=text, delay=0.02, failures=0.1) as server:
        flags = generate(folder, out, "--model", "a-model", "--url", server.url, "--concurrency", "4")
        for rows in (2, 6, 9):
            assert killed(flags, after(tmp_path / "out.jsonl.partial", rows, chance.random() / 50))
            lines = set(lines_of(tmp_path / "out.jsonl.partial"))
            assert finished <= lines
            finished = lines
        assert main(flags) == 0
        asked = server.served.total()
    assert finished <= set(out.read_bytes().splitlines())
    assert len(list(read_jsonl(out))) == COUNT
    # 48 texts; at each of the kills at most four prompts of four texts were under way and are asked again.
    assert asked <= 48 + 3 * 16


def test_a_judge_that_is_killed_is_asked_nothing_twice(folder, tmp_path, capsys):
    def grade(body):
        return json.dumps({"score": 1 + len(prompt_of(body)) % 10})

    with ModelServer(answer=grade, delay=0.005) as server:

        def flags(name):
            out, cache = str(tmp_path / name), str(tmp_path / f"{name} cache")
            judge = ["--scorer", "judge", "--model", "j", "--url", server.url, "--cache", cache, "--concurrency", "4"]
            return ["score", str(folder / "candidates.jsonl"), *judge, "--out", out]

        assert main(flags("whole.jsonl")) == 0
        asked = server.served.total()
        assert asked == 160
        for rows in (3, 20):
            assert killed(flags("broken.jsonl"), after(tmp_path / "broken.jsonl.partial", rows, 0.0))
        assert main(flags("broken.jsonl")) == 0
        assert (tmp_path / "broken.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
        assert server.served.total() - asked <= 160 + 2 * 4
        server._failure = lambda prompt, attempt: "400" if "Say 7\n" in prompt else None
        assert main([*flags("missing.jsonl"), "--pairs"]) == 1
    assert "1 rows have none yet: run the same command again" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------- the whole way


def test_prompts_become_a_set_that_train_reads(folder, tmp_path, capsys):
    candidates, scored, out = (tmp_path / f"{name}.jsonl" for name in ("candidates", "scored", "set"))
    assert main(in_process(folder, candidates)) == 0
    said = capsys.readouterr().out
    assert f"48 candidates to {COUNT} prompts" in said
    assert "ended by: " in said
    (tmp_path / "rule.py").write_text("def rule(row, text):\n    return len(text) % 5\n")
    where = Path.cwd()
    try:
        os.chdir(tmp_path)
        score = ["score", str(candidates), "--scorer", "verifier", "--rule", "rule:rule", "--out", str(scored)]
        assert main(score) == 0
    finally:
        os.chdir(where)
    assert main(["select", str(scored), "--out", str(out), "--json"]) == 0
    card = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows, report = preference_rows(read_jsonl(out), source=str(out))
    assert report.pairs == card["pairs"] == len(rows) > 6
    assert all(row["chosen_score"] > row["rejected_score"] for row in read_jsonl(out))
    assert all(row["prompt"][0]["role"] == "user" for row in rows)
    thumbs = tmp_path / "thumbs.jsonl"
    flags = ["--unpaired", "--top", "0.3", "--bottom", "0.3", "--balance"]
    assert main(["select", str(scored), "--out", str(thumbs), *flags]) == 0
    assert "The data card is in" in capsys.readouterr().out
    assert main(["doctor", str(thumbs)]) in (0, 1)
    assert main(["select", str(scored), "--out", str(thumbs), "--top", "0.3"]) == 2
    assert "--top is for --unpaired" in capsys.readouterr().err


def test_candidates_made_anew_do_not_keep_the_old_scores(folder, tmp_path, capsys):
    rows = list(read_jsonl(folder / "candidates.jsonl"))[:3]
    file, out = tmp_path / "c.jsonl", tmp_path / "s.jsonl"
    flags = ["score", write(file, rows), "--scorer", "verifier", "--rule", "exact", "--answer-column", "prompt"]
    assert main([*flags, "--out", str(out)]) == 0
    rows[1]["candidates"][0]["text"] = "another"
    write(file, rows)
    assert main([*flags, "--out", str(out)]) == 2
    assert "scored with other candidates" in capsys.readouterr().err


def test_another_reward_model_may_not_continue_a_file(folder, tmp_path, capsys):
    out = tmp_path / "s.jsonl"
    assert main(reward(folder, out)) == 0
    assert main([*reward(folder, out), "--max-length", "64"]) == 2
    assert "was begun with other settings (max_length:" in capsys.readouterr().err
    assert main(["score", str(folder / "candidates.jsonl"), "--scorer", "pairrm", "--out", str(out)]) == 2
    assert "needs --model" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ public data


def data(name: str) -> Path:
    where = os.environ.get("BNF_ALIGN_DATA")
    if not where:
        pytest.skip("needs the public data: set BNF_ALIGN_DATA to its folder")
    return Path(where) / name


def test_the_verifier_agrees_with_every_label_of_5276_solutions(tmp_path):
    with gzip.open(data("gsm8k/test.jsonl.gz"), "rt") as file:
        gold = {row["question"]: row["answer"] for row in map(json.loads, file)}
    solutions = list(read_jsonl(data("preference/gsm8k_model_solutions.unpaired.jsonl.gz")))
    assert len(solutions) == 5276
    by_prompt: dict[str, list] = {}
    for row in solutions:
        by_prompt.setdefault(row["prompt"], []).append(row)
    rows = [
        {
            "id": str(i),
            "prompt": prompt,
            "answer": gold[prompt],
            "candidates": [{"text": row["completion"]} for row in own],
            "labels": [row["label"] for row in own],
        }
        for i, (prompt, own) in enumerate(by_prompt.items())
    ]
    candidates, scored = tmp_path / "c.jsonl", tmp_path / "s.jsonl"
    write(candidates, rows)
    assert main(["score", str(candidates), "--scorer", "verifier", "--out", str(scored)]) == 0
    found = [
        (score, label) for row in read_jsonl(scored) for score, label in zip(row["scores"], row["labels"], strict=True)
    ]
    assert len(found) == 5276
    assert sum(score != label for score, label in found) == 0
    assert 0 < sum(label for _, label in found) < 5276


def test_gsm8k_questions_are_answered_by_a_served_tiny_model(folder, tmp_path):
    engine = LocalEngine.load(str(folder / "model"))
    one_at_a_time = threading.Lock()

    def answer(body):
        sampling = Sampling(body["temperature"], body["top_p"], body["max_tokens"], seed=body["seed"])
        with one_at_a_time:
            ((found,),) = engine.generate([Request("one", body["messages"])], sampling)
        return found.texts[0]

    out, scored = tmp_path / "c.jsonl", tmp_path / "s.jsonl"
    with ModelServer(answer=answer) as server:
        where = ["--prompts", str(data("gsm8k/train.jsonl.gz")), "--limit", "8", "--chat", "--out", str(out)]
        assert main(["generate", *where, "--model", "m", "--url", server.url, "--max-new-tokens", "16"]) == 0
    rows = list(read_jsonl(out))
    texts = [one["text"] for row in rows for one in row["candidates"]]
    assert (len(rows), len(texts)) == (8, 40)
    assert len(set(texts)) > 30  # a random model may end at once, twice
    assert main(["score", str(out), "--scorer", "verifier", "--out", str(scored)]) == 0
    assert {score for row in read_jsonl(scored) for score in row["scores"]} == {0.0}  # it has learned nothing


def test_gsm8k_questions_go_through_a_served_model_to_pairs(tmp_path):
    """A server that answers some right and some wrong, as a real model does: the pairs are right against wrong."""
    with gzip.open(data("gsm8k/train.jsonl.gz"), "rt") as file:
        gold = {row["question"]: row["answer"] for row in map(json.loads, file)}
    candidates, scored, out = (tmp_path / f"{name}.jsonl" for name in ("candidates", "scored", "set"))

    def answer(body):
        right = gold[prompt_of(body)]
        return right if body["seed"] % 3 == 0 else f"Let me see.\n#### {body['seed'] % 1000 + 0.5}"

    with ModelServer(answer=answer) as server:
        where = ["--prompts", str(data("gsm8k/train.jsonl.gz")), "--limit", "300", "--chat", "--out", str(candidates)]
        assert main(["generate", *where, "--model", "m", "--url", server.url, "--concurrency", "32"]) == 0
        assert server.served.total() == 1500
        assert {body["temperature"] for body in server.bodies} == {0.8}
    assert main(["score", str(candidates), "--scorer", "verifier", "--out", str(scored)]) == 0
    assert main(["select", str(scored), "--out", str(out)]) == 0
    rows = list(read_jsonl(out))
    # A prompt has a pair unless all five are right or all are wrong.
    assert abs(len(rows) / 300 - (1 - (1 / 3) ** 5 - (2 / 3) ** 5)) < 0.1
    for row in rows:
        assert row["chosen"][0]["content"] == gold[row["prompt"][0]["content"]]
        assert row["rejected"][0]["content"].startswith("Let me see.")
