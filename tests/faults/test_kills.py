"""Every long job, killed at random moments and run again: it ends as if nothing had happened (`make faults`).

FAULTS_KILLS says how often each job is killed, FAULTS_SEED when.
"""

import json
import os
import random
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bnf_align.cli.main import main
from bnf_align.journal import read_jsonl
from bnf_align.reference.cache import read_shards
from construct_runs import FORK, chosen, in_process, killed, reward, write, write_jobs
from model_server import ModelServer, prompt_of
from runs import pairs, singles
from tiny_models import plain_tokenizer
from tiny_nets import tiny_llama

pytestmark = pytest.mark.faults

KILLS = int(os.environ.get("FAULTS_KILLS", "3"))
SEED = int(os.environ.get("FAULTS_SEED", "0"))

FORK.set_forkserver_preload(
    [f"bnf_align.construct.{name}" for name in ("dataset", "generate", "scorers.reward_model", "scorers.judge")]
    + ["bnf_align.engines.local", "bnf_align.endpoint", "openai", "bnf_align.cli.train", "bnf_align.cli.arguments"]
    + ["bnf_align.training.trainer", "bnf_align.compare", "bnf_align.report", "bnf_align.sources.merge"]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Models, rows and prompts of all jobs."""
    folder = write_jobs(tmp_path_factory.mktemp("jobs"))
    tokenizer = plain_tokenizer()
    tokenizer.save_pretrained(folder / "plain")
    tiny_llama(len(tokenizer)).save_pretrained(folder / "plain")
    write(folder / "train.jsonl", [*pairs(6), *singles(12)])
    write(folder / "many.jsonl", [{**row, "prompt": f"{n} {row['prompt']}"} for n in range(20) for row in singles(30)])
    write(folder / "pairs.jsonl", [{**pairs(8)[n % 8], "prompt": f"say {n} "} for n in range(130)])
    table = [{"question": f"q {n}" * 9, "answer": f"a {n}" * 20, "thumb": ("up", "down")[n % 2]} for n in range(9000)]
    write(folder / "table.jsonl", table)
    return folder


def survive(argv: list[str], found: Callable[[], Any], clear: Callable[[], None], start=killed) -> None:
    """Kill `argv` KILLS times, each time going on where it was, and where it has ended beginning anew.

    Args:
        argv: The command.
        found: What it has made; whenever it ends this has to be what an uninterrupted run makes.
        clear: Removes all of it.
        start: Runs the command, and kills it as soon as it is told to; returns whether that ended it.
    """
    chance = random.Random(f"{SEED} {argv[0]} {start.__name__}")
    began = time.monotonic()
    assert not start(argv, lambda: False)
    duration = time.monotonic() - began
    expected = found()
    clear()
    hits = ended = 0
    while hits < KILLS:
        began = time.monotonic()
        until = began + chance.random() * duration
        if start(argv, lambda until=until: time.monotonic() >= until):
            hits += 1
        else:
            assert found() == expected
            clear()
            ended, duration = ended + 1, time.monotonic() - began
    assert not start(argv, lambda: False)
    assert found() == expected
    print(f"{hits} kills, {ended + 1} whole runs, each as the uninterrupted one ({duration:.1f} s)")


def remover(*paths: Path) -> Callable[[], None]:
    """Removes files and folders of these names, and files that begin with them."""

    def clear() -> None:
        import shutil

        for path in paths:
            for one in path.parent.glob(f"{path.name}*"):
                shutil.rmtree(one) if one.is_dir() else one.unlink()

    return clear


# ------------------------------------------------------------------------------------------------------- train


def training(folder: Path, out: Path, *more: str) -> list[str]:
    flags = {
        "model_name_or_path": folder / "plain",
        "dataset_name": folder / "train.jsonl",
        "output_dir": out,
        "ref_cache_dir": out.parent / "cache",
        "resume_from_checkpoint": "latest",
        "batch_size": 4,
        "max_steps": 8,
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 3,
        "learning_rate": 1e-3,
        "max_length": 128,
        "use_cpu": "true",
        "disable_tqdm": "true",
        "report_to": "none",
    }
    return ["train", *(f"--{name}={value}" for name, value in flags.items()), *more]


def weights(out: Path) -> Callable[[], Any]:
    return lambda: [(out / name).read_bytes() for name in os.listdir(out) if name.endswith("model.safetensors")]


def trains_as_if_nothing_had_happened(folder: Path, tmp_path: Path, *more: str, start=killed) -> None:
    out = tmp_path / "out"
    survive(training(folder, out, *more), weights(out), remover(out), start)


def test_train_ends_at_the_weights_of_an_uninterrupted_run_bit_for_bit(folder, tmp_path):
    trains_as_if_nothing_had_happened(folder, tmp_path)


def test_train_of_an_adapter(folder, tmp_path):
    lora = ["--use_peft", "--lora_r=4", "--lora_target_modules", "q_proj", "v_proj"]
    trains_as_if_nothing_had_happened(folder, tmp_path, *lora)


def _rank(argv: list[str], rank: int, port: int) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()} | {"MASTER_ADDR": "127.0.0.1"}
    raise SystemExit(main(argv))


def killed_together(argv: list[str], moment: Callable[[], bool]) -> bool:
    """`killed` for two processes that train together."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    processes = [FORK.Process(target=_rank, args=(argv, rank, port)) for rank in range(2)]
    for process in processes:
        process.start()
    while any(process.is_alive() for process in processes) and not moment():
        time.sleep(0.001)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
    # One may have ended by itself while the other still had to write the weights.
    codes = {process.exitcode for process in processes}
    assert codes <= {0, -9}, codes
    return -9 in codes


def test_train_of_two_processes(folder, tmp_path):
    trains_as_if_nothing_had_happened(folder, tmp_path, start=killed_together)


# --------------------------------------------------------------------------------------------------- the others


def stored(cache: Path) -> Any:
    """Key -> values of all shards, and that none is there twice."""
    rows = []
    for shard in cache.glob("*/*.arrow"):
        for path, table in read_shards(shard.parent):
            if path == shard:
                rows += zip(table.column("key").to_pylist(), table.column("ref_logps").to_pylist(), strict=True)
    assert len({key for key, _ in rows}) == len(rows), "a row is stored twice"
    return dict(rows)


def test_reference_build_stores_every_value_once(folder, tmp_path):
    more = ["--max_tokens_per_micro_batch=256", f"--dataset_name={folder / 'many.jsonl'}"]
    argv = ["reference", "build", *training(folder, tmp_path / "out", *more)[1:]]
    argv = [flag for flag in argv if "resume" not in flag]
    survive(argv, lambda: stored(tmp_path / "cache"), remover(tmp_path / "cache"))


def rows_and_card(out: Path) -> Callable[[], Any]:
    def found() -> Any:
        files = {path.name: path.read_bytes() for path in out.parent.glob(f"{out.name}*")}
        card = json.loads(files.pop(f"{out.name}.card.json", b"{}"))
        card.pop("about", None)
        return files, card, len({row["id"] for row in read_jsonl(out)})

    return found


def test_generate(folder, tmp_path):
    out = tmp_path / "out.jsonl"
    survive(in_process(folder, out), rows_and_card(out), remover(out))


def test_score(folder, tmp_path):
    out = tmp_path / "out.jsonl"
    survive(reward(folder, out), rows_and_card(out), remover(out))


def test_score_by_a_judge_who_is_paid_once_for_every_answer(folder, tmp_path):
    out, cache = tmp_path / "out.jsonl", tmp_path / "judge"
    with ModelServer(answer=lambda body: json.dumps({"score": 1 + len(prompt_of(body)) % 10}), delay=0.005) as server:
        argv = ["score", str(folder / "candidates.jsonl"), "--scorer", "judge", "--model", "j", "--url", server.url]
        argv += ["--cache", str(cache), "--concurrency", "4", "--out", str(out)]
        runs, clear = [], remover(out, cache)

        def cleared() -> None:
            runs.append(1)
            clear()

        survive(argv, rows_and_card(out), cleared)
        # 160 answers; at each kill at most four were on their way and are asked for again.
        assert server.served.total() <= (len(runs) + 1) * 160 + 4 * KILLS


def test_select(folder, tmp_path):
    out = tmp_path / "out.jsonl"

    def found() -> Any:
        card = json.loads(out.with_name(f"{out.name}.card.json").read_text())
        return card, {path.name: path.read_bytes() for path in tmp_path.glob("out*") if "card.json" not in path.name}

    survive(chosen(folder, out), found, remover(tmp_path / "out", tmp_path / ".out"))


def test_import(folder, tmp_path):
    out = tmp_path / "out.jsonl"
    argv = ["import", "table", str(folder / "table.jsonl"), "--out", str(out)]
    argv += ["--map", "prompt=question", "completion=answer", "label=thumb", "--label_map", "up=up", "down=down"]
    survive(argv, lambda: (out.read_bytes(), len(list(read_jsonl(out)))), remover(out, tmp_path / ".out"))


def test_collect(tmp_path):
    """What was acknowledged is there, and at most one act more: the loop of the default test, as often as asked."""
    import test_feedback

    test_feedback.kill_and_look(tmp_path, KILLS, random.Random(SEED))


def comparison(folder: Path, out: Path) -> dict[str, Any]:
    return {
        "model": str(folder / "plain"),
        "data": str(folder / "pairs.jsonl"),
        "out": str(out),
        "validation": 0.25,
        "test": 0.5,
        "seeds": [0, 1],
        "grid": {"batch_size": [4]},
        "methods": {"bnf": {"learning_rate": [1e-3]}, "dpo": {"learning_rate": [1e-3]}},
        "settings": {"max_length": 64, "use_cpu": True},
    }


def test_compare(folder, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(comparison(folder, out)))

    def found() -> Any:
        record = json.loads((out / "compare.json").read_text())
        for method in record["methods"].values():
            method.pop("seconds", None)
        rows = [row["id"] for row in read_jsonl(out / "runs.jsonl")]
        assert len(rows) == len({*rows})
        return record, sorted(rows)

    survive(["compare", "--config", str(tmp_path / "compare.yaml")], found, remover(out))
