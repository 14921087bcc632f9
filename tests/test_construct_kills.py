"""generate, score and select, each killed ten times at random moments: no row is lost, doubled or changed."""

import json
import random
import time
from pathlib import Path

import pytest

from bnf_align.cli.main import main
from bnf_align.journal import read_jsonl
from construct_runs import (
    COUNT,
    FORK,
    KILLS,
    at,
    bytes_of,
    chosen,
    files,
    generate,
    in_process,
    killed,
    killed_ten_times,
    lines_of,
    reward,
    rows_of,
    write_jobs,
)
from model_server import ModelServer, prompt_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_jobs(tmp_path_factory.mktemp("construct"))


def check_rows(out: Path, finished: set[bytes]) -> set[bytes]:
    """The rows on disk: each id once, and every one that was there before as it was."""
    lines = [line for file in (out.with_name(f"{out.name}.partial"), out) for line in lines_of(file)]
    ids = [json.loads(line)["id"] for line in set(lines)]  # a kill within `finish` leaves a row in both files
    assert len(ids) == len(set(ids)), "a row was made twice"
    assert finished <= set(lines), "a row was lost or changed"
    return set(lines)


def resumed(argv: list[str], out: Path, whole: Path, count: int) -> None:
    """Kill `argv` ten times, and let it end: byte for byte as `whole`."""
    finished: set[bytes] = set()
    for hit in killed_ten_times(argv, out, bytes_of(whole)):
        finished = check_rows(out, finished)
        if not hit:
            assert out.read_bytes() == whole.read_bytes()
            for file in rows_of(out):
                file.unlink()
            finished = set()
    assert main(argv) == 0
    assert files(out) == files(whole)
    assert len(list(read_jsonl(out))) == count


@pytest.mark.slow
def test_candidates_are_those_of_an_uninterrupted_run(folder, tmp_path):
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    assert main(in_process(folder, whole)) == 0
    resumed(in_process(folder, broken), broken, whole, COUNT)


@pytest.mark.slow
def test_candidates_of_several_jobs_are_those_of_an_uninterrupted_run(folder, tmp_path):
    heats = ["--temperature", "0.5", "1.0"]
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    assert main(in_process(folder, whole, *heats)) == 0
    command = in_process(folder, broken, *heats)
    for hit in killed_ten_times(command, broken, 2 * bytes_of(whole)):  # the parts, and then their rows together
        assert len(lines_of(broken)) in (0, COUNT)
        if not hit:
            assert broken.read_bytes() == whole.read_bytes()
            for file in rows_of(broken):
                file.unlink()
    assert main(command) == 0
    assert files(broken) == files(whole)


@pytest.mark.slow
def test_scores_are_those_of_an_uninterrupted_run(folder, tmp_path):
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    assert main(reward(folder, whole)) == 0
    resumed(reward(folder, broken), broken, whole, 40)
    assert [row["id"] for row in read_jsonl(broken)] == [f"c{i}" for i in range(40)]


@pytest.mark.slow
def test_rows_that_a_url_has_answered_stay_as_they_are(folder, tmp_path):
    chance = random.Random(0)

    def text(body):  # never the same twice
        return f"{prompt_of(body)} {chance.random()}"

    out = tmp_path / "out.jsonl"
    finished: set[bytes] = set()
    runs = 1
    with ModelServer(answer=text, delay=0.02, failures=0.1) as server:
        flags = generate(folder, out, "--model", "a-model", "--url", server.url, "--concurrency", "4")
        size = COUNT * 600
        for hit in killed_ten_times(flags, out, size):
            finished = check_rows(out, finished)
            if not hit:
                out.unlink()
                finished, runs = set(), runs + 1
        assert main(flags) == 0
        asked = server.served.total()
    assert finished <= set(out.read_bytes().splitlines())
    assert len(list(read_jsonl(out))) == COUNT
    # 48 texts; at each of the kills at most four prompts of four texts were under way and are asked again.
    assert asked <= runs * 4 * COUNT + KILLS * 16


@pytest.mark.slow
def test_a_judge_is_asked_nothing_twice(folder, tmp_path, capsys):
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
        partial = tmp_path / "broken.jsonl.partial"
        for rows in (3, 20):
            assert killed(flags("broken.jsonl"), at(lambda rows=rows: len(lines_of(partial)) >= rows, 0.0))
        assert main(flags("broken.jsonl")) == 0
        assert (tmp_path / "broken.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
        assert server.served.total() - asked <= 160 + 2 * 4
        server._failure = lambda prompt, attempt: "400" if "Say 7\n" in prompt else None
        assert main([*flags("missing.jsonl"), "--pairs"]) == 1
    assert "1 row without any yet: run the same command again" in capsys.readouterr().out


def selection(out: Path) -> dict[str, object]:
    """All files of a selection, the command in its card apart."""
    card = json.loads(out.with_name(f"{out.name}.card.json").read_text())
    del card["command"]
    return {**files(out), "card": card, "text": out.with_name(f"{out.name}.card.md").read_text()}


@pytest.mark.slow
def test_a_selection_is_there_with_all_its_files_or_not_at_all(folder, tmp_path, monkeypatch):
    """Two settings by turns on one `--out`, so that rows of the one beside test rows of the other would show."""
    whole, broken = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"], tmp_path / "broken.jsonl"
    expected = []
    for seed, out in enumerate(whole):
        process = FORK.Process(target=main, args=(chosen(folder, out, seed),))
        began = time.monotonic()
        process.start()
        process.join()
        duration = time.monotonic() - began
        expected.append(selection(out))
    chance = random.Random(seed := random.randrange(10**6))
    print(f"seed {seed}")
    hits = 0
    for run in range(6 * KILLS):
        began = time.monotonic()
        until = began + chance.random() * duration
        hit = killed(chosen(folder, broken, run % 2), lambda until=until: time.monotonic() >= until)
        if not hit:  # the machine is less busy than it was
            duration = time.monotonic() - began
        there = selection(broken) if broken.exists() else None
        assert there in [None, *expected]
        hits += hit and there != expected[run % 2]  # a process that has finished and only has to end is no hit
        if hits == KILLS:
            break
    assert hits == KILLS, f"{hits} kills hit"
    monkeypatch.setattr("bnf_align.outputs.LEFT_BEHIND", 0)  # else what the killed ones left would stay for an hour
    for seed in (0, 1):
        assert main(chosen(folder, broken, seed)) == 0
        assert selection(broken) == expected[seed]
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".broken")]
