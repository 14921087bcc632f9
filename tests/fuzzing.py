"""Sound inputs of every verb and reader, and how to spoil them: for `test_fuzz.py` and, for hours, `faults/fuzz.py`.

A target writes sound files into a folder, says which of them to spoil, and how to read them. Whatever is spoilt, the
only errors that may come out are `BadInput` and the exit statuses 0, 1 and 2.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import math
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from bnf_align.cli import arguments
from bnf_align.cli.main import main
from bnf_align.data.read import iter_rows
from bnf_align.data.rows import preference_rows
from bnf_align.feedback.review import read_tasks
from bnf_align.feedback.store import Store, thumb
from bnf_align.records import BadInput
from bnf_align.reference.cache import ReferenceCache
from bnf_align.sources import Options, import_rows
from bnf_align.training.checkpoints import date_of_the_run, latest_checkpoint
from rows import assistant, user
from runs import pairs, singles

MODULES = [import_module(path.stem) for path in sorted(Path(__file__).parent.glob("exports_*.py"))]
EXPORTS = {name: export for module in MODULES for name, export in module.EXPORTS.items()}
OPTIONS = {name: options for module in MODULES for name, options in getattr(module, "OPTIONS", {}).items()}
THUMBS = [("Why?", "Because.", True), ("Why?", "No idea.", False), ("Who?", "You.", False), ("How?", "So.", True)]

PARTS = [
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.0, 10**400, 2**63, 1e308, math.nan, math.inf, "", " ", "x", "true"),
    *("\ud800", "\x1b[2J", "\0", "1e5", "2024-01-01", "x" * 5000, "user", "assistant", "[]", "{", "é", "../x", "up"),
    *([], {}, [[]], [None], {"": None}, [1, "x"], {"a": {"b": []}}, {"content": 1, "role": "user"}, [{"role": 1}]),
]
"""What takes the place of a part of a sound JSON value."""
WORDS = [str(part).encode("utf-8", "surrogatepass") for part in PARTS if isinstance(part, str | int)]
WORDS += [
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r",
    b"\n\n",
    b'"',
    b",",
    b"[" * 3000,
    b"{",
    b"}",
    b": ",
    b"- &a [*a]",
    b"\t",
]
VALUES = [
    "",
    "-1",
    "0",
    "1",
    "0.5",
    "nan",
    "inf",
    "1e400",
    "9" * 30,
    "x",
    "\x1b[2J",
    "a=b",
    "=",
    "{",
    "[]",
    "{}",
    "null",
]
VALUES += ["true", "../x", "\udcff", "a,b", "é", "[[", "'", "rows.jsonl", "a=up", "-x"]
"""What follows a flag."""


class Target(NamedTuple):
    """An input to spoil."""

    prepare: Callable[[Path], list[Path]]
    """Writes sound files; returns those to spoil."""
    read: Callable[[Path, list[Path], Random], object]
    """Reads them."""


# ----------------------------------------------------------------------------------------------------- how to spoil


def spoil(path: Path, chance: Random) -> None:
    """Change a file in one to three places."""
    data = path.read_bytes()
    packed = path.suffix == ".gz" and chance.random() < 0.8
    data = gzip.decompress(data) if packed else data
    for _ in range(chance.randint(1, 3)):
        whole = None if chance.random() < 0.4 else _values(data, path.name)
        data = _bytes(data, chance) if whole is None else _written(_changed(whole, chance), path.name)
    path.write_bytes(gzip.compress(data) if packed else data)


def _values(data: bytes, name: str) -> Any:
    """What a sound file of JSON, JSON Lines or YAML holds; None where it is something else by now."""
    try:
        if name.endswith((".jsonl", ".jsonl.gz", ".partial")):
            return [json.loads(line) for line in data.splitlines() if line.strip()]
        return yaml.safe_load(data) if name.endswith(".yaml") else json.loads(data)
    except (ValueError, RecursionError, yaml.YAMLError):
        return None


def _written(value: Any, name: str) -> bytes:
    if name.endswith((".jsonl", ".jsonl.gz", ".partial")) and isinstance(value, list):
        return b"".join(json.dumps(row).encode() + b"\n" for row in value)
    return json.dumps(value).encode()


def _changed(value: Any, chance: Random) -> Any:
    """`value` with one part replaced, taken out, doubled, renamed or wrapped."""
    if not isinstance(value, dict | list) or not value or chance.random() < 0.15:
        return chance.choice(PARTS) if chance.random() < 0.5 else [value, value] if chance.random() < 0.5 else [value]
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key = chance.choice(list(keys))
    if chance.random() < 0.7:
        changed = value.copy()
        changed[key] = _changed(value[key], chance)
        return changed
    if isinstance(value, list):
        return value[:key] + value[key + 1 :] if chance.random() < 0.5 else [*value[:key], value[key], *value[key:]]
    if chance.random() < 0.5:
        return {name: part for name, part in value.items() if name != key}
    return {(f"{name}x" if name == key else name): part for name, part in value.items()}


def _bytes(data: bytes, chance: Random) -> bytes:
    at, until = sorted(chance.randrange(len(data) + 1) for _ in range(2))
    kind = chance.randrange(5)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + data[until:]
    if kind == 2:
        return data[:at] + data[at:until] * 2 + data[until:]
    if kind == 3:
        return data[:at] + chance.choice(WORDS) + data[at:]
    return data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]


# ---------------------------------------------------------------------------------------------------------- targets


def lines(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def one_json(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def verb(*argv: str) -> Callable[[Path, list[Path], Random], object]:
    """Runs `bnf-align` in the folder of the files."""

    def read(folder: Path, files: list[Path], chance: Random) -> int:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            try:
                status = main([*argv])
            except SystemExit as end:  # of argparse
                status = int(end.code or 0)
        assert status in (0, 1, 2), status
        return status

    return read


CHATS = [
    {"prompt": [user("Hi")], "completion": [assistant("Hello")], "label": True},
    {"prompt": [user("Hi")], "chosen": [assistant("Hello")], "rejected": [assistant("What?")]},
    {"messages": [user("Hi"), assistant("Hello")], "label": False},
    {"question": "2+2?", "answer": "4", "rating": 1},
]
SCORED = [
    {
        "id": str(n),
        "prompt": f"q{n}",
        "answer": "4",
        "candidates": [{"text": "4"}, {"text": "5"}],
        "scores": [1.0, 0.0],
    }
    for n in range(4)
]
RUN = {
    "model": "a/model",
    "loss_type": "bnf",
    "arguments": {"output_dir": "out", "learning_rate": 1e-6, "batch_size": 8},
    "devices": 8,
    "train_seconds": 900.0,
    "peak_memory_bytes": 2**30,
    "seed": 1,
    "plan": None,
    "metrics": {"loss": 0.5},
    "data": {"train": {"rows": 9, "dropped": {}}},
}
RESULT = {
    "task": "gsm8k",
    "version": 1,
    "model": "a",
    "metrics": {"accuracy": 50.0},
    "items": [{"id": "1", "score": 1.0}, {"id": "2", "score": 0.0}],
    "notes": [],
    "provenance": {"model": "a", "template": "ours:0", "seed": 0},
}
RANKING = {"task": "wild_bench", "models": {"a": {"metrics": {"wb_elo": 1000.0}}, "b": {"metrics": {"wb_elo": 9.0}}}}
RECIPE = {"model_name_or_path": "nowhere", "dataset_name": "rows.jsonl", "output_dir": "out", "learning_rate": 1e-6}
CONSTRUCT = {
    "folder": "made",
    "generate": {"prompts": "rows.jsonl", "model": "./nowhere", "n": 4},
    "score": {"scorer": "verifier"},
    "select": {"bnf": {"pairing_ratio": 0.5}},
    "train": {"bnf": {"model_name_or_path": "./nowhere"}},
}
COMPARE = {
    "model": "./nowhere",
    "data": "rows.jsonl",
    "out": "out",
    "seeds": [0, 1],
    "grid": {"batch_size": [4]},
    "methods": {"bnf": {"learning_rate": [1e-3]}, "dpo": {"learning_rate": [1e-3], "beta": [0.1]}},
    "evaluations": {"gsm8k": {"test": "rows.jsonl"}},
    "settings": {"max_length": 64, "use_cpu": True},
}


def rows_of(folder: Path, files: list[Path], chance: Random) -> object:
    rows, _ = preference_rows(iter_rows(files[0], options=Options()), source="fuzz")
    return list(rows)


def parquet(folder: Path) -> list[Path]:
    pq.write_table(pa.Table.from_pylist(singles(4)), folder / "rows.parquet")
    return [folder / "rows.parquet"]


def table(folder: Path) -> list[Path]:
    (folder / "rows.csv").write_text('prompt,completion,label\n"a ""b"" c",d,true\ne,"f\ng",false\n')
    return [folder / "rows.csv"]


def gz(folder: Path) -> list[Path]:
    path = folder / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(json.dumps(row).encode() + b"\n" for row in CHATS)))
    return [path]


def export_of(name: str) -> Callable[[Path], list[Path]]:
    def prepare(folder: Path) -> list[Path]:
        EXPORTS[name](THUMBS, folder)
        return sorted(path for path in folder.rglob("*") if path.is_file())

    return prepare


def importing(name: str) -> Callable[[Path, list[Path], Random], object]:
    def read(folder: Path, files: list[Path], chance: Random) -> object:
        if chance.random() < 0.5:
            return list(import_rows(chance.choice([name, "auto"]), [folder], OPTIONS.get(name))[0])
        return list(iter_rows(folder, options=Options()))

    return read


def recipe(folder: Path, files: list[Path], chance: Random) -> object:
    return arguments.parse(["--config", str(files[0])])


def store(folder: Path) -> list[Path]:
    path = folder / "feedback.jsonl"
    for n in range(3):
        Store(path).append(thumb([user(str(n))], "a", True, user="Ann"))
    return [path]


def tasks(folder: Path, files: list[Path], chance: Random) -> object:
    return read_tasks(files[0], chance.random() < 0.5)


def journal(folder: Path) -> list[Path]:
    lines(folder / "candidates.jsonl", [{k: v for k, v in row.items() if k != "scores"} for row in SCORED])
    verb("score", str(folder / "candidates.jsonl"), "--scorer", "verifier", "--out", str(folder / "out.jsonl"))(
        folder, [], Random()
    )
    (folder / "out.jsonl").rename(folder / "out.jsonl.partial")
    return [folder / "out.jsonl.partial", folder / "out.jsonl.card.json", folder / "candidates.jsonl"]


def cache(folder: Path) -> list[Path]:
    written = ReferenceCache(folder / "cache", {"weights": "w"})
    written.write({bytes([n]) * 16: np.array([-1.0, -2.0], np.float32) for n in range(3)})
    return sorted(written.folder.iterdir())


def read_cache(folder: Path, files: list[Path], chance: Random) -> object:
    ReferenceCache(folder / "cache", {"weights": "w"}).read([bytes([1]) * 16])
    kind = chance.choice(["ls", "verify", "gc"])
    return verb("reference", kind, "--ref_cache_dir", str(folder / "cache"))(folder, files, chance)


def checkpoint(folder: Path) -> list[Path]:
    import torch
    from safetensors.torch import save_file

    path = folder / "checkpoint-2"
    path.mkdir()
    save_file({"a": torch.zeros(3)}, path / "model.safetensors")
    torch.save({"step": 2}, path / "optimizer.pt")
    files = [one_json(path / "trainer_state.json", {"global_step": 2, "log_history": []})]
    files += [one_json(path / "bnf_align.json", {"examples": "x", "date that the chat template writes": "2026-01-01"})]
    index = {"weight_map": {"a": "model.safetensors"}}
    return [*files, one_json(path / "model.safetensors.index.json", index), *path.glob("*t*s"), path / "optimizer.pt"]


class Resumes(NamedTuple):
    resume_from_checkpoint: str
    output_dir: str
    template_date: None = None


def resume(folder: Path, files: list[Path], chance: Random) -> object:
    return latest_checkpoint(folder), date_of_the_run(Resumes("latest", str(folder)))


def report(folder: Path) -> list[Path]:
    found = [one_json(folder / "result.json", RESULT), one_json(folder / "ranking.json", RANKING)]
    (folder / "run").mkdir()
    return [*found, one_json(folder / "run" / "run.json", RUN)]


def answers(folder: Path) -> list[Path]:
    gold = [{"id": str(n), "question": "2+2?", "answer": "#### 4"} for n in range(3)]
    said = [{"id": str(n), "prompt": "2+2?", "output": ["It is 4."], "generator": "a"} for n in range(3)]
    return [lines(folder / "items.jsonl", gold), lines(folder / "answers.jsonl", said)]


def in_folder(argv: Callable[[Path], list[str]]) -> Callable[[Path, list[Path], Random], object]:
    return lambda folder, files, chance: verb(*argv(folder))(folder, files, chance)


TARGETS: dict[str, Target] = {
    "rows .jsonl": Target(lambda f: [lines(f / "rows.jsonl", [*pairs(2), *singles(3)])], rows_of),
    "rows .json": Target(lambda f: [one_json(f / "rows.json", CHATS)], rows_of),
    "rows .csv": Target(table, rows_of),
    "rows .jsonl.gz": Target(gz, rows_of),
    "rows .parquet": Target(parquet, rows_of),
    **{f"import {name}": Target(export_of(name), importing(name)) for name in EXPORTS},
    "doctor": Target(
        lambda f: [lines(f / "rows.jsonl", CHATS[:3] * 3)], in_folder(lambda f: ["doctor", str(f / "rows.jsonl")])
    ),
    "train --config": Target(lambda f: [one_json(f / "recipe.yaml", RECIPE)], recipe),
    "construct --config": Target(
        lambda f: [one_json(f / "made.yaml", CONSTRUCT)],
        in_folder(lambda f: ["construct", "--config", str(f / "made.yaml"), "--folder", str(f / "made")]),
    ),
    "compare --config": Target(
        lambda f: [one_json(f / "compare.yaml", COMPARE)],
        in_folder(lambda f: ["compare", "--config", str(f / "compare.yaml"), "--out", str(f / "out")]),
    ),
    "select": Target(
        lambda f: [lines(f / "scored.jsonl", SCORED)],
        in_folder(lambda f: ["select", str(f / "scored.jsonl"), "--out", str(f / "out.jsonl")]),
    ),
    "score, resumed": Target(
        journal,
        in_folder(
            lambda f: ["score", str(f / "candidates.jsonl"), "--scorer", "verifier", "--out", str(f / "out.jsonl")]
        ),
    ),
    "eval score": Target(
        answers,
        in_folder(
            lambda f: ["eval", "score", str(f / "answers.jsonl"), "--task", "gsm8k", "--data", str(f / "items.jsonl")]
        ),
    ),
    "report": Target(report, in_folder(lambda f: ["report", str(f)])),
    "collect, store": Target(
        store,
        in_folder(lambda f: ["collect", "--store", str(f / "feedback.jsonl"), "--delete-user", "Ann"]),
    ),
    "collect --review": Target(
        lambda f: [lines(f / "rows.jsonl", [*CHATS[:2], {"prompt": "p", "candidates": ["a", "b"]}])], tasks
    ),
    "reference cache": Target(cache, read_cache),
    "checkpoint": Target(checkpoint, resume),
}


# ------------------------------------------------------------------------------------------------------------ flags

SOUND = {
    "doctor": ["rows.jsonl"],
    "import": ["auto", "rows.jsonl", "--out", "new.jsonl"],
    "select": ["scored.jsonl", "--out", "new.jsonl"],
    "score": ["candidates.jsonl", "--scorer", "verifier", "--out", "new.jsonl"],
    "generate": ["--prompts", "rows.jsonl", "--model", "./nowhere", "--out", "new.jsonl"],
    "eval": ["score", "answers.jsonl", "--task", "gsm8k", "--data", "items.jsonl"],
    "report": ["result.json"],
    "plan": ["--model_name_or_path", "./nowhere", "--dataset_name", "rows.jsonl", "--output_dir", "out"],
    "reference": ["ls", "--ref_cache_dir", "cache"],
    "compare": ["--config", "compare.yaml"],
    "construct": ["--config", "made.yaml"],
    "analyze": [],
    "collect": ["--delete-user", "Ann"],
    "train": ["--model_name_or_path", "./nowhere", "--dataset_name", "rows.jsonl", "--output_dir", "out"],
}
"""Verb -> flags that are sound with the files of `with_all_files`, or lack a model alone."""
NEVER = {
    "--engine",
    "--ray-address",
    "--ray_address",
    "--workers",
    "--host",
    "--port",
    "--url",
    "--help",
    "--help-all",
}


def with_all_files(folder: Path) -> list[Path]:
    lines(folder / "rows.jsonl", CHATS)
    lines(folder / "scored.jsonl", SCORED)
    lines(folder / "candidates.jsonl", SCORED)
    answers(folder)
    report(folder)
    store(folder)
    one_json(folder / "compare.yaml", COMPARE)
    one_json(folder / "made.yaml", CONSTRUCT)
    return []


def flags_of(name: str) -> list[str]:
    """The flags in a verb's help."""
    said = io.StringIO()
    argv = [name, "--help-all" if name == "train" else "--help"]
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        main([name, "score", "--help"] if name == "eval" else argv)
    return sorted(set(re.findall(r"(?<![\w-])--[a-z][\w-]+", said.getvalue())) - NEVER)


def with_flags(name: str) -> Callable[[Path, list[Path], Random], object]:
    flags: list[str] = []

    def read(folder: Path, files: list[Path], chance: Random) -> object:
        flags[:] = flags or flags_of(name)
        argv = [*SOUND[name]]
        for _ in range(chance.randint(1, 3)):
            argv += [chance.choice(flags), *(chance.choice(VALUES) for _ in range(chance.randrange(3)))]
        if chance.random() < 0.2:
            del argv[chance.randrange(len(argv))]
        with contextlib.chdir(folder):
            return verb(name, *argv)(folder, files, chance)

    return read


TARGETS |= {f"flags of {name}": Target(with_all_files, with_flags(name)) for name in SOUND}


def outcome(name: str, folder: Path, chance: Random) -> str:
    """Spoil and read the target `name` in an empty `folder`: "read" or "refused"; anything else is raised."""
    target = TARGETS[name]
    files = target.prepare(folder)
    for path in [path for path in files if chance.random() < 0.7] or files[:1]:
        spoil(path, chance)
    try:
        found = target.read(folder, files, chance)
    except BadInput:
        return "refused"
    return "refused" if found == 2 else "read"
