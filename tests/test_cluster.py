"""A real Ray cluster of two workers: the rows are those of one process, whoever dies on the way."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from functools import partial

import numpy as np
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
from bnf_align.construct.scorers.batches import Limits
from bnf_align.construct.scorers.reward_model import RewardModel
from bnf_align.engines import LocalEngine, Request, Sampling
from bnf_align.records import BadInput
from bnf_align.training.cache import read_shards
from runs import pairs, singles
from tiny_models import llama3_tokenizer
from tiny_nets import SIZES, tiny_llama

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'bnf-align[ray]'")

SAMPLING = Sampling(temperature=0.8, n=2, max_new_tokens=100, seed=3)
BATCHES = {"dtype": "float32", "batch_rows": 6, "batch_tokens": 2**14}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    network = tiny_llama(len(llama3_tokenizer()))
    network.generation_config.eos_token_id = 7
    network.save_pretrained(folder)
    llama3_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cluster(model):
    """Two workers. They compute with one thread each, as the tests do."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=100 * 2**20,
        logging_level="error",
    )
    yield Cluster(workers=2)
    ray.shutdown()


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


def workers() -> set[int]:
    """Processes of the pool. Those of another cluster on this machine are no descendants of this process."""
    found = set()
    for process in psutil.Process().children(recursive=True):
        try:
            if "MapWorker" in " ".join(process.cmdline()):
                found.add(process.pid)
        except psutil.Error:
            continue
    return found


class Killer(threading.Thread):
    """Kills a worker once `partial` has a few rows, and notes which processes there ever were."""

    def __init__(self, partial):
        super().__init__(daemon=True)
        self.partial, self.killed, self.pids, self.over = partial, None, set(), threading.Event()

    def run(self):
        while not self.over.wait(0.2):
            alive = workers()
            self.pids |= alive
            if self.killed is None and len(alive) == 2 and rows_in(self.partial) >= 6:
                self.killed = min(alive)
                os.kill(self.killed, signal.SIGKILL)


def rows_in(path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_a_killed_worker_is_replaced_and_the_file_is_that_of_one_process(model, cluster, tmp_path):
    generate(prompts(), [Job(loading(model)(), SAMPLING)], tmp_path / "local.jsonl")
    killer = Killer(tmp_path / "cluster.jsonl.partial")
    killer.start()
    engine = Recorder(cluster, model)
    done = generate(prompts(), [Job(engine, SAMPLING)], tmp_path / "cluster.jsonl")
    killer.over.set()
    killer.join()
    assert killer.killed is not None
    assert len(killer.pids) == 3  # the one killed, the other, and the one that took its place
    assert (tmp_path / "cluster.jsonl").read_bytes() == (tmp_path / "local.jsonl").read_bytes()
    assert engine.seen == Counter(row["id"] for row in prompts())
    tokens = sum(
        one["tokens"] for line in done.path.read_text().splitlines() for one in json.loads(line)["candidates"]
    )
    assert engine.tokens == tokens
    cards = [json.loads((tmp_path / f"{name}.jsonl.card.json").read_text()) for name in ("local", "cluster")]
    assert cards[0] == cards[1]


def test_a_killed_driver_loses_nothing_that_had_arrived(model, cluster, tmp_path):
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in prompts()))
    out, whole = tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    flags = ["generate", "--prompts", str(tmp_path / "prompts.jsonl"), "--model", str(model), "--seed", "3", "-n", "2"]
    flags += ["--max-new-tokens", "100", "--batch-rows", "6", "--dtype", "float32"]
    shared = ["--engine", "ray", "--workers", "1", "--ray-address", ray.get_runtime_context().gcs_address]
    driver = subprocess.Popen([sys.executable, "-m", "bnf_align", *flags, *shared, "--out", str(out)])
    part = tmp_path / "out.jsonl.partial"
    while rows_in(part) < 6:
        assert driver.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    before = part.read_bytes().splitlines()[:-1]
    assert main([*flags, "--out", str(out)]) == 0  # what a cluster has begun one process may end
    assert main([*flags, "--out", str(whole)]) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert set(before) <= set(out.read_bytes().splitlines())


@pytest.fixture(scope="module")
def reward(tmp_path_factory) -> partial[RewardModel]:
    folder, tokenizer = tmp_path_factory.mktemp("reward"), llama3_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id, **SIZES)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return partial(RewardModel.load, str(folder), dtype="float32", limits=Limits(rows=7))


def test_scores_are_those_of_one_process(cluster, reward, tmp_path):
    here, there = tmp_path / "local.jsonl", tmp_path / "cluster.jsonl"
    assert score(candidates(), reward(), here).rows == 30
    assert score(candidates(), ClusterScorer(Cluster(workers=1), reward), there).rows == 30
    assert there.read_bytes() == here.read_bytes()


@pytest.mark.parametrize("kind", ["reward model", "verifier"])
def test_each_planned_batch_of_rows_alone_gives_what_it_gives_within_the_job(kind, reward, monkeypatch):
    monkeypatch.setattr(verifier, "ROWS_AT_A_TIME", 7)
    scorer = reward() if kind == "reward model" else verifier.Verifier()
    rows = {row["id"]: row for row in candidates()}
    whole = [one for batch in scorer.score(list(rows.values())) for one in batch]
    plan = scorer.plan(list(rows.values()))
    assert len(plan) > 4
    assert [one for names in plan for batch in scorer.score([rows[name] for name in names]) for one in batch] == whole


def values(root) -> dict[bytes, bytes]:
    """Everything a cache holds, bit by bit; the namespace beside the key."""
    return {
        folder.name.encode() + key: np.asarray(logps, np.float32).tobytes()
        for folder in root.iterdir()
        for _, table in read_shards(folder)
        for key, logps in zip(table.column("key").to_pylist(), table.column("ref_logps").to_pylist(), strict=True)
    }


def test_the_reference_cache_is_that_of_one_process_to_the_last_bit(model, cluster, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in singles(40) + pairs(20)))
    flags = [
        "reference",
        "build",
        "--model_name_or_path",
        str(model),
        "--dataset_name",
        str(rows),
        "--use_cpu",
        "true",
    ]
    flags += ["--max_tokens_per_micro_batch", "200", "--eos_token", "<|eot_id|>", "--output_dir", str(tmp_path / "o")]
    assert main([*flags, "--ref_cache_dir", str(tmp_path / "local")]) == 0
    assert main([*flags, "--ref_cache_dir", str(tmp_path / "ray"), "--engine", "ray", "--workers", "2"]) == 0
    assert len(values(tmp_path / "local")) == 80
    assert values(tmp_path / "ray") == values(tmp_path / "local")


def test_what_a_user_can_mend_comes_home_from_a_worker_as_it_is(cluster):
    broken = partial(verifier.Verifier, "no such rule")
    with pytest.raises(BadInput, match="--rule no such rule"):
        cluster.ask(broken)
    with pytest.raises(BadInput, match="--rule no such rule"):
        list(cluster.map(broken, ["a unit"]))


def test_a_worker_with_other_weights_refuses_to_work(model):
    with pytest.raises(BadInput, match="another weights than the one that was asked first"):
        _Answers(loading(model), SAMPLING, "of another day")


def test_a_finished_job_asks_nobody(model, tmp_path):
    nowhere = Cluster("ray://nowhere:1")
    assert list(ClusterEngine(nowhere, "tiny", loading(model)).generate([Request("a", "b")], SAMPLING, {"a"})) == []


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
        (["--engine", "ray", "--workers", "0"], "at least one"),
    ],
)
def test_flags_that_contradict_each_other_are_refused(flags, message, tmp_path, capsys):
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n')
    given = ["--prompts", str(tmp_path / "p.jsonl"), "--model", "m", "--out", str(tmp_path / "out.jsonl")]
    assert main(["generate", *given, *flags]) == 2
    assert message in capsys.readouterr().err
