"""A real Ray cluster of two workers: the rows are those of one process, whoever dies on the way."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from functools import partial

import psutil
import pytest
import torch
from transformers import LlamaConfig, LlamaForSequenceClassification

from bnf_align.cli.main import main
from bnf_align.cluster import Cluster
from bnf_align.construct.cluster import ClusterEngine, ClusterScorer, _Answers
from bnf_align.construct.generate import Job, generate
from bnf_align.construct.score import score
from bnf_align.construct.scorers import verifier
from bnf_align.construct.scorers.reward_model import RewardModel
from bnf_align.engines import Request, Sampling
from bnf_align.engines.local import Limits, LocalEngine
from bnf_align.records import BadInput
from tiny_models import llama3_tokenizer
from tiny_nets import SIZES, tiny_llama

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray[data]'")

SAMPLING = Sampling(temperature=0.8, n=2, max_new_tokens=100, seed=3)
BATCHES = {"dtype": "float32", "limits": Limits(6, 2**14)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    network = tiny_llama(len(llama3_tokenizer()))
    network.generation_config.eos_token_id = 7
    network.save_pretrained(folder)
    llama3_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def orphans() -> list[psutil.Process]:
    """What a killed driver has left; at the end of this file it must be gone, too."""
    return []


@pytest.fixture(scope="module")
def cluster(model, orphans):
    """Two workers. They compute with one thread each, as the tests do. None of Ray's processes is left over."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    others = processes_of_ray()  # of other tests: servers of forks, whose command lines name every package
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
        logging_level="error",
    )
    yield Cluster(workers=2)
    family = [process for process in processes_of_ray() if process not in others]
    ray.shutdown()
    assert family
    assert psutil.wait_procs(family + orphans, timeout=900)[1] == []


def prompts(count: int = 40) -> list[dict]:
    """Of many lengths; every id is a text, the answer travels along."""
    return [
        {"id": f"p{i}", "prompt": f"What is {i} + {i}? " * (1 + 7 * i % 5), "answer": str(2 * i)} for i in range(count)
    ]


def candidates(count: int = 30) -> list[dict]:
    return [
        {**row, "candidates": [{"text": f"It is {number + i % 3}. " * (1 + i % 4)} for number in range(1 + i % 3)]}
        for i, row in enumerate(prompts(count))
    ]


def loading(model) -> partial[LocalEngine]:
    """What a worker calls: it finds functions by name, and knows nothing of this file."""
    return partial(LocalEngine.load, str(model), name="tiny", **BATCHES)


class Recorder(ClusterEngine):
    """An engine on the cluster that counts what arrives."""

    def __init__(self, cluster, model):
        super().__init__(cluster, "tiny", loading(model))
        self.seen = Counter()

    def generate(self, *arguments):
        for batch in super().generate(*arguments):
            self.seen.update(one.id for one in batch)
            yield batch


def processes_of_ray(parent: int | None = None) -> list[psutil.Process]:
    """Those that descend from `parent`, this process by default: another cluster on this machine has none of them."""
    found = []
    for process in psutil.Process(parent).children(recursive=True):
        with suppress(psutil.Error):
            found += [process] if "ray" in " ".join(process.cmdline()) else []
    return found


def workers() -> set[int]:
    """Processes of the pool."""
    found = set()
    for process in processes_of_ray():
        with suppress(psutil.Error):
            found |= {process.pid} if "MapWorker" in " ".join(process.cmdline()) else set()
    return found


class Killer(threading.Thread):
    """Kills both workers once `partial` has a few rows, and notes which processes there ever were."""

    def __init__(self, partial):
        super().__init__(daemon=True)
        self.partial, self.killed, self.pids, self.over = partial, set(), set(), threading.Event()

    def run(self):
        while not self.over.wait(0.02):
            alive = workers()
            self.pids |= alive
            if not self.killed and len(alive) == 2 and rows_in(self.partial) >= 6:
                self.killed = alive
                for pid in alive:
                    os.kill(pid, signal.SIGKILL)


def rows_in(path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_killed_workers_are_replaced_and_the_file_is_that_of_one_process(model, cluster, tmp_path):
    generate(prompts(), [Job(loading(model)(), SAMPLING)], tmp_path / "local.jsonl")
    killer = Killer(tmp_path / "cluster.jsonl.partial")
    killer.start()
    engine = Recorder(cluster, model)
    done = generate(prompts(), [Job(engine, SAMPLING)], tmp_path / "cluster.jsonl")
    killer.over.set()
    killer.join()
    assert killer.killed
    assert killer.pids > killer.killed  # what took their places; with one left it alone might end the work
    assert (tmp_path / "cluster.jsonl").read_bytes() == (tmp_path / "local.jsonl").read_bytes()
    assert engine.seen == Counter(row["id"] for row in prompts())
    tokens = sum(
        one["tokens"] for line in done.path.read_text().splitlines() for one in json.loads(line)["candidates"]
    )
    assert engine.tokens == tokens
    cards = [json.loads((tmp_path / f"{name}.jsonl.card.json").read_text()) for name in ("local", "cluster")]
    assert cards[0] == cards[1]


@pytest.mark.slow
def test_a_killed_driver_leaves_no_process_and_the_same_command_asks_for_nothing_twice(
    model, cluster, orphans, tmp_path, monkeypatch
):
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts()))
    flags = ["generate", "--prompts", str(tmp_path / "prompts.jsonl"), "--model", str(model), "--seed", "3", "-n", "2"]
    flags += ["--max-new-tokens", "100", "--batch-rows", "6", "--dtype", "float32"]
    command = [*flags, "--engine", "ray", "--workers", "1", "--out", str(tmp_path / "out.jsonl")]
    driver = subprocess.Popen([sys.executable, "-m", "bnf_align", *command])  # it starts a Ray of its own
    part = tmp_path / "out.jsonl.partial"
    while rows_in(part) < 6:
        assert driver.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    family = {process: " ".join(process.cmdline()) for process in processes_of_ray(driver.pid)}
    driver.kill()
    driver.wait()
    assert any("MapWorker" in name for name in family.values())
    # Ray's agents, who hold nothing, look for their node for a minute or more.
    orphans += [process for process, name in family.items() if "Agent" in name]
    assert psutil.wait_procs(family.keys() - set(orphans), timeout=900)[1] == []

    before = {json.loads(line)["id"]: line for line in part.read_bytes().splitlines()}
    assert 6 <= len(before) < 40
    asked = []
    monkeypatch.setattr(Cluster, "map", recording(Cluster.map, asked))
    assert main(command) == 0
    assert sorted(asked) == sorted({row["id"] for row in prompts()} - before.keys())
    assert main([*flags, "--out", str(tmp_path / "whole.jsonl")]) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert set(before.values()) <= set((tmp_path / "out.jsonl").read_bytes().splitlines())


def recording(whole_map, asked: list[str]):
    """`Cluster.map`, which notes the ids of the requests it is given."""

    def map_(self, load, units, *arguments):
        asked.extend(request.id for unit in units for request in unit)
        return whole_map(self, load, units, *arguments)

    return map_


@pytest.fixture(scope="module")
def reward(tmp_path_factory) -> partial[RewardModel]:
    folder, tokenizer = tmp_path_factory.mktemp("reward"), llama3_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id, **SIZES)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return partial(RewardModel.load, str(folder), dtype="float32", limits=Limits(rows=7))


@pytest.mark.slow
def test_scores_are_those_of_one_process_and_rows_that_were_there_stay(cluster, reward, tmp_path):
    here, there = tmp_path / "local.jsonl", tmp_path / "cluster.jsonl"
    assert score(candidates(), reward(), here).rows == 30
    expected = [json.loads(line) for line in here.read_text().splitlines()]
    for row in expected[::3]:  # no scorer would give them
        row["scores"] = [99.0] * len(row["scores"])
    lines = [json.dumps(row) + "\n" for row in expected]
    there.with_name("cluster.jsonl.partial").write_text("".join(lines[::3]))
    there.with_name("cluster.jsonl.card.json").write_bytes(here.with_name("local.jsonl.card.json").read_bytes())
    assert score(candidates(), ClusterScorer(Cluster(workers=1), reward), there).rows == 30
    assert there.read_text() == "".join(lines)


@pytest.mark.parametrize("kind", ["reward model", "verifier"])
def test_each_planned_batch_of_rows_alone_gives_what_it_gives_within_the_job(kind, reward, monkeypatch):
    monkeypatch.setattr("bnf_align.construct.scorers.scorer.ROWS_AT_A_TIME", 7)
    scorer = reward() if kind == "reward model" else verifier.Verifier()
    rows = {row["id"]: row for row in candidates()}
    whole = [one for batch in scorer.score(list(rows.values())) for one in batch]
    plan = scorer.plan(list(rows.values()))
    assert len(plan) > 4
    assert [one for names in plan for batch in scorer.score([rows[name] for name in names]) for one in batch] == whole


@pytest.mark.slow
def test_what_a_user_can_mend_comes_home_from_a_worker_as_it_is(cluster):
    broken = partial(verifier.Verifier, "no such rule")
    with pytest.raises(BadInput, match="--rule no such rule"):
        cluster.ask(broken)
    with pytest.raises(BadInput, match="--rule no such rule"):
        list(cluster.map(broken, ["a unit"]))


def until_it_ends(answers) -> tuple[set[int], str]:
    """The answers, and what the error says that comes after them."""
    arrived = set()
    try:
        for answer in answers:
            arrived.add(answer)
    except BadInput as error:
        return arrived, str(error)
    raise AssertionError("no error came")


@pytest.mark.slow
def test_a_unit_that_fails_is_named_and_the_answers_to_the_others_arrive(cluster, caplog):
    def load():  # workers get functions like this one as a whole
        return lambda unit: 12 // (unit - 3)

    arrived, message = until_it_ends(cluster.map(load, range(8), lambda unit: f"the row {unit}"))
    assert arrived == {12 // (unit - 3) for unit in range(8) if unit != 3}
    assert message.startswith("1 of 8 batches failed on the workers, the first with the row 3: ZeroDivisionError")
    assert "lambda unit" in caplog.text  # the worker's traceback


@pytest.mark.slow
def test_a_worker_that_spoils_what_it_is_given_ends_the_job(cluster, monkeypatch):
    monkeypatch.setattr("bnf_align.cluster.MOST_FAILURES", 2)
    arrived, message = until_it_ends(cluster.map(lambda: lambda unit: {}[unit], range(40)))
    assert not arrived
    assert message.startswith("3 of 40 batches failed")


@pytest.mark.slow
def test_a_load_that_kills_every_worker_is_said_in_plain_words(cluster):
    with pytest.raises(BadInput, match="The workers cannot start, or Ray has lost them"):
        cluster.ask(lambda: os._exit(1))


@pytest.mark.slow
def test_workers_compute_in_the_folder_of_who_asks(cluster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cluster.ask(os.getcwd) == str(tmp_path)
    monkeypatch.undo()
    assert cluster.ask(os.getcwd) == os.getcwd()


@pytest.mark.parametrize("verb", ["generate", "score"])
def test_without_ray_every_verb_says_what_to_install_before_it_loads_a_model(verb, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps(candidates(1)[0]) + "\n")
    out = ["--model", "nowhere", "--out", str(tmp_path / "out.jsonl")]
    flags = {
        "generate": ["--prompts", str(rows), *out],
        "score": [str(rows), "--scorer", "reward_model", *out],
    }
    assert main([verb, *flags[verb], "--engine", "ray"]) == 2
    assert "--engine ray needs Ray: pip install 'ray[data]'" in capsys.readouterr().err


def test_an_address_where_nobody_answers_is_said_at_once(monkeypatch):
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(BadInput, match=r"--ray-address localhost:1: no cluster can be joined there .*refused"):
        Cluster("localhost:1").ask(os.getcwd)


def test_a_worker_with_other_weights_refuses_to_work(model):
    with pytest.raises(BadInput, match="another weights than the one that was asked first"):
        _Answers(loading(model), SAMPLING, "of another day")


def test_a_finished_job_asks_nobody(model, tmp_path):
    nowhere = Cluster("ray://nowhere:1")
    assert list(ClusterEngine(nowhere, "tiny", loading(model)).generate([Request("a", "b")], SAMPLING, {"a"})) == []


@pytest.mark.slow
def test_ray_reports_no_usage(cluster):
    from ray._common.usage.usage_lib import usage_stats_enabled

    assert not usage_stats_enabled()


def test_each_planned_batch_alone_gives_what_it_gives_within_the_job(model):
    engine = loading(model)()
    requests = [Request(row["id"], row["prompt"]) for row in prompts(20)]
    whole = list(engine.generate(requests, SAMPLING))
    assert len(whole) > 5
    assert [list(engine.generate(batch, SAMPLING)) for batch in engine.plan(requests, SAMPLING)] == [
        [b] for b in whole
    ]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--engine", "ray", "--url", "http://localhost:1/v1"], "share the load without it"),
        (["--workers", "2"], "--workers is for --engine ray"),
        (["--concurrency", "5"], "--concurrency is for a served model, and no --url was given"),
        (["--request", "a=1"], "--request is for a served model"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(flags, message, tmp_path, capsys):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n')
    given = ["--prompts", str(tmp_path / "p.jsonl"), "--model", "m", "--out", str(tmp_path / "out.jsonl")]
    assert main(["generate", *given, *flags]) == 2
    assert message in capsys.readouterr().err
