"""Disks that fill up or may only be read, and processes that die: a message, nothing half-written, and it goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from test_kills import comparison, folder, remover, rows_and_card, stored, training, weights  # noqa: F401

from bnf_align.reference.cache import namespaces
from construct_runs import FORK, chosen, in_process, reward

pytestmark = pytest.mark.faults
SOURCE = Path(__file__).parents[2] / "src"


def mount(*options: str) -> bool:
    return subprocess.run(["mount", *options], capture_output=True).returncode == 0


@pytest.fixture
def disk(tmp_path) -> Iterator[Path]:
    """A file system of its own, of 64 MB."""
    path = tmp_path / "disk"
    path.mkdir()
    if not mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(path)):
        pytest.skip("needs the right to mount a tmpfs")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=True)


def ran(argv: list[str]) -> tuple[int, str]:
    """Exit status and errors of the command in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-m", "bnf_align", *argv], env=environment, capture_output=True, text=True, timeout=600
    )
    return done.returncode, done.stderr


Job = tuple[list[str], Callable[[], Any], Callable[[], None]]


def job(name: str, folder: Path, disk: Path) -> Job:  # noqa: F811
    """The command, what it makes, and how to remove it."""
    out, rows = disk / "out", disk / "out.jsonl"
    if name == "train":
        return training(folder, out), weights(out), remover(out, disk / "cache")
    if name == "reference build":
        argv = ["reference", "build", *training(folder, out, f"--dataset_name={folder / 'many.jsonl'}")[1:]]
        return argv, lambda: stored(disk / "cache"), remover(disk / "cache", out)
    if name == "compare":
        (folder / "compare.yaml").write_text(yaml.safe_dump(comparison(folder, out)))

        def found_methods() -> Any:
            methods = json.loads((out / "compare.json").read_text())["methods"]
            return {name: {k: v for k, v in of.items() if k != "seconds"} for name, of in methods.items()}

        return ["compare", "--config", str(folder / "compare.yaml")], found_methods, remover(out)
    if name == "import":
        argv = ["import", "table", str(folder / "table.jsonl"), "--out", str(rows), "--map", "prompt=question"]
        argv += ["completion=answer", "label=thumb", "--label_map", "up=up", "down=down"]
        return argv, rows.read_bytes, remover(rows, disk / ".out")
    commands = {"generate": in_process, "score": reward, "select": chosen}
    found = rows_and_card(rows) if name != "select" else rows.read_bytes
    return commands[name](folder, rows), found, remover(rows, disk / ".out")


JOBS = ["train", "reference build", "generate", "score", "select", "import", "compare"]


def used(path: Path) -> int:
    found = os.statvfs(path)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


@pytest.mark.parametrize("name", JOBS)
def test_a_disk_that_is_full_in_the_middle_of_a_write_is_one_message_and_with_room_it_goes_on(
    name,
    folder,  # noqa: F811
    disk,
):
    argv, found, clear = job(name, folder, disk)
    empty = used(disk)
    status, said = ran(argv)
    assert status == 0, said
    expected, needed = found(), used(disk) - empty
    for share in (0.2, 0.5, 0.8):
        clear()
        for left in disk.iterdir():  # an empty folder, a temporary file of another name
            remover(left)()
        room = max(4096, int(needed * share) // 4096 * 4096)
        assert mount("-o", f"remount,size={empty + room}", str(disk))
        status, said = ran(argv)
        assert status == 2, said
        assert "Traceback" not in said
        assert "No space left" in said or "cannot be written" in said
        assert mount("-o", "remount,size=64m", str(disk))
        status, said = ran(argv)
        assert status == 0, said
        assert found() == expected
        assert not list(disk.rglob("*.tmp"))


@pytest.mark.parametrize("name", JOBS)
def test_a_folder_that_may_only_be_read_is_one_message(name, folder, disk):  # noqa: F811
    argv, _, _ = job(name, folder, disk)
    assert mount("-o", "remount,ro", str(disk))
    status, said = ran(argv)
    assert status == 2, said
    assert "Traceback" not in said
    assert f"bnf-align {argv[0]}: " in said
    assert "Read-only file system" in said or "cannot be written" in said


def test_a_cache_that_may_only_be_read_is_read(folder, disk):  # noqa: F811
    argv, _, _ = job("train", folder, disk)
    assert ran(argv)[0] == 0
    assert mount("-o", "remount,ro", str(disk))
    status, said = ran([*argv, f"--output_dir={folder / 'elsewhere'}"])
    assert status == 0, said


def test_two_runs_on_one_cache_at_once_store_what_one_stores(folder, tmp_path):  # noqa: F811
    def flags(cache: str) -> list[str]:
        more = [f"--dataset_name={folder / 'many.jsonl'}", f"--ref_cache_dir={tmp_path / cache}"]
        argv = ["reference", "build", *training(folder, tmp_path / "out", *more)[1:]]
        return [sys.executable, "-m", "bnf_align", *argv, "--max_tokens_per_micro_batch=256"]

    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    assert [one.wait() for one in [subprocess.Popen(flags("alone"), env=environment)]] == [0]
    both = [subprocess.Popen(flags("both"), env=environment) for _ in range(2)]
    assert [one.wait() for one in both] == [0, 0]
    (info,) = namespaces(tmp_path / "both")
    assert info.damaged == []
    values = {}
    for name in ("alone", "both"):
        (info,) = namespaces(tmp_path / name)
        from bnf_align.reference.cache import read_shards

        tables = [table for _, table in read_shards(info.folder)]
        rows = [pair for t in tables for pair in zip(*(t.column(c).to_pylist() for c in t.schema.names), strict=True)]
        values[name] = dict(rows)
        assert all(values[name][key] == value for key, value in rows)
    assert values["both"] == values["alone"]


# ---------------------------------------------------------------------------------------------- processes that die


def launched(folder: Path, out: Path, *more: str) -> subprocess.Popen:  # noqa: F811
    """Training by two processes, as a user starts them."""
    argv = training(folder, out, "--max_steps=5000", "--save_steps=1000", *more)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "bnf_align"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    return subprocess.Popen([*launcher, *argv], env=environment, stderr=subprocess.PIPE, text=True)


def ranks(launcher: subprocess.Popen) -> list[psutil.Process]:
    return [one for one in psutil.Process(launcher.pid).children() if "bnf_align" in " ".join(one.cmdline())]


def begun(out: Path, launcher: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not any(out.glob("checkpoint-*")):
        assert launcher.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_process_of_two_that_dies_ends_the_other_within_a_minute(folder, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    launcher = launched(folder, out, "--save_steps=50")
    begun(out, launcher)
    victim = ranks(launcher)[1]
    victim.kill()
    began = time.monotonic()
    _, said = launcher.communicate(timeout=60)
    print(f"{time.monotonic() - began:.1f} s after the kill")
    assert launcher.returncode != 0
    assert str(victim.pid) in said
    assert "Signal 9" in said


def test_sigterm_to_two_processes_leaves_one_checkpoint_of_both(folder, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    launcher = launched(folder, out, "--save_steps=50", "--save_total_limit=50")
    begun(out, launcher)
    for rank in ranks(launcher):
        rank.send_signal(signal.SIGTERM)
        time.sleep(0.05)  # the one hears of it some steps before the other
    _, said = launcher.communicate(timeout=120)
    assert "exitcode  : 143" in said
    steps = [int(path.name.partition("-")[2]) for path in out.glob("checkpoint-*")]
    last = out / f"checkpoint-{max(steps)}"
    assert {"rng_state_0.pth", "rng_state_1.pth", "trainer_state.json"} <= set(os.listdir(last))
    from bnf_align.training.checkpoints import damage

    assert damage(last) is None


def test_a_process_of_a_comparison_that_dies_ends_it_with_a_message(folder, tmp_path):  # noqa: F811
    out = tmp_path / "out"
    plan = {**comparison(folder, out), "processes": 2, "seeds": [0, 1, 2, 3]}
    (tmp_path / "compare.yaml").write_text(yaml.safe_dump(plan))
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    command = [sys.executable, "-m", "bnf_align", "compare", "--config", str(tmp_path / "compare.yaml")]
    run = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (out / "models").exists():
        assert run.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    workers = [one for one in psutil.Process(run.pid).children(recursive=True) if "spawn_main" in str(one.cmdline())]
    workers[0].kill()
    _, said = run.communicate(timeout=60)
    assert run.returncode == 2
    assert "Traceback" not in said
    assert "has died" in said
    assert subprocess.run(command, env=environment, capture_output=True).returncode == 0


def test_a_process_that_tokenises_and_dies_ends_the_run_with_the_flag_that_helps(folder, tmp_path):  # noqa: F811
    """Killed for memory, as the kernel does; the parent neither hangs nor trains on fewer rows."""
    process = FORK.Process(target=_tokenise_and_die, args=(str(folder), str(tmp_path)))
    process.start()
    process.join(timeout=60)
    assert process.exitcode == 2


def _tokenise_and_die(folder: str, out: str) -> None:  # noqa: F811
    from bnf_align.cli.main import main
    from bnf_align.data import tokenize

    parent, encoded = os.getpid(), tokenize._encoded

    def dies(*arguments: Any, **named: Any) -> Any:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return encoded(*arguments, **named)

    tokenize._encoded = dies
    argv = training(Path(folder), Path(out) / "out", "--dataset_num_proc=2", f"--dataset_name={folder}/many.jsonl")
    raise SystemExit(main(argv))
