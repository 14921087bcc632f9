"""What goes wrong around a run, seen through the command line; `make faults` does it again and again."""

import errno
import os
import signal
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bnf_align.cli import main as command
from bnf_align.cli.main import in_plain_words, main
from bnf_align.outputs import alone, replacing
from bnf_align.records import BadInput
from bnf_align.reference.cache import namespaces
from bnf_align.training.checkpoints import latest_checkpoint
from construct_runs import FORK, run, write
from runs import singles
from tiny_models import plain_tokenizer
from tiny_nets import tiny_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("faults")
    tokenizer = plain_tokenizer()
    tokenizer.save_pretrained(folder / "model")
    tiny_llama(len(tokenizer)).save_pretrained(folder / "model")
    write(folder / "rows.jsonl", singles(12))
    return folder


def training(folder: Path, out: Path, **more: object) -> list[str]:
    flags = {
        "model_name_or_path": folder / "model",
        "dataset_name": folder / "rows.jsonl",
        "output_dir": out,
        "ref_cache_dir": out.parent / "cache",
        "resume_from_checkpoint": "latest",
        "batch_size": 4,
        "learning_rate": 1e-3,
        "max_length": 128,
        "use_cpu": "true",
        "disable_tqdm": "true",
        "report_to": "none",
        **more,
    }
    return ["train", *(f"--{name}={value}" for name, value in flags.items())]


def until(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
def test_sigterm_leaves_a_checkpoint_from_which_the_run_ends_as_if_nothing_had_happened(folder, tmp_path):
    out, steps = tmp_path / "out", {"max_steps": 60, "save_steps": 25, "save_strategy": "steps"}
    process = FORK.Process(target=run, args=(training(folder, out, **steps),))
    process.start()
    until(lambda: (out / "checkpoint-25").exists())
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 143
    assert not (out / "model.safetensors").exists()
    left = latest_checkpoint(out)
    assert 25 <= int(left.rpartition("-")[2]) < 60
    assert main(training(folder, out, **steps)) == 0
    whole = tmp_path / "whole"
    assert main(training(folder, whole, **steps)) == 0
    ours, expected = (load_file(one / "model.safetensors") for one in (out, whole))
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


def test_sigterm_does_what_it_did_before_once_training_is_over(folder, tmp_path, capsys):
    before = signal.getsignal(signal.SIGTERM)
    assert main(training(folder, tmp_path / "out", max_steps=1, save_strategy="no")) == 0
    assert signal.getsignal(signal.SIGTERM) is before
    assert "SIGTERM" not in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_shard_is_said_computed_again_and_changes_no_weight(folder, tmp_path, damage, caplog):
    steps = {"max_steps": 2, "save_strategy": "no"}
    assert main(training(folder, tmp_path / "first", **steps)) == 0
    (shard,) = (tmp_path / "cache").glob("*/*.arrow")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data if damage == "flipped" else data[:-9])
    assert main(training(folder, tmp_path / "second", **steps)) == 0
    assert f"{shard} is damaged and ignored; its rows are computed again" in caplog.text
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second")]
    assert weights[0] == weights[1]
    (info,) = namespaces(tmp_path / "cache")
    assert (info.rows, info.damaged) == (12, [])


def test_of_two_runs_on_one_output_the_second_is_refused_and_touches_nothing(folder, tmp_path, capsys):
    out = tmp_path / "out"
    with alone(out):
        assert main(training(folder, out)) == 2
        assert list(out.iterdir()) == []
    assert "is being written by another run" in capsys.readouterr().err
    assert not out.exists()
    assert main(training(folder, out, max_steps=1, save_strategy="no")) == 0


def test_a_run_that_is_refused_leaves_no_folder(folder, tmp_path, capsys):
    write(tmp_path / "empty.jsonl", [])
    assert main(training(folder, tmp_path / "out", dataset_name=tmp_path / "empty.jsonl")) == 2
    assert not (tmp_path / "out").exists()


def test_a_clock_that_jumps_ahead_costs_the_writer_its_file_and_never_half_of_one(tmp_path, monkeypatch):
    """Another process takes the temporary file of this one for one that a kill has left an hour ago."""
    path = tmp_path / "rows.jsonl"
    path.write_text("old")
    now = time.time()

    def write_slowly() -> None:
        with replacing(path) as (mine,):
            mine.write_text("mine")
            monkeypatch.setattr("bnf_align.outputs.time.time", lambda: now + 2 * 3600)
            with replacing(path) as (theirs,):
                theirs.write_text("theirs")

    with pytest.raises(BadInput, match="cannot be written"):
        write_slowly()
    assert path.read_text() == "theirs"
    assert [one.name for one in tmp_path.iterdir()] == ["rows.jsonl"]


# ------------------------------------------------------------------------------------------- what no input is to blame


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "--max_tokens_per_micro_batch"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "--max_tokens_per_micro_batch"),
        (MemoryError(), "--max_tokens_per_micro_batch"),
        (OSError(errno.ENOSPC, "No space left on device", "out/x"), "out/x: No space left on device. Make room"),
        (OSError(errno.EROFS, "Read-only file system", "out"), "another folder"),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "Make room"),
        (BrokenProcessPool("A process was terminated abruptly"), "has died"),
    ],
)
def test_what_no_input_is_to_blame_for_is_one_message_with_what_mends_it(error, said, monkeypatch, capsys):
    from bnf_align.cli import train

    def fails(argv):
        raise error

    monkeypatch.setattr(train, "main", fails)
    assert main(["train"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("bnf-align train: ")
    assert said in message
    assert command.GO_ON["train"] in message


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), KeyError("x"), FileNotFoundError(2, "no", "x")])
def test_a_mistake_of_ours_is_not_dressed_up(error):
    assert in_plain_words(error, "train") is None
