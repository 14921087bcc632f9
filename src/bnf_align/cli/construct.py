"""`bnf-align construct`: a whole data set from one YAML file: generate, score, select, and train if it says so."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from bnf_align.cli.recipe import read_recipe
from bnf_align.records import BadInput

STEPS = ("generate", "score", "select", "train")
EPILOG = """The file has `folder`, and per step the flags of its verb, without dashes; `select` and `train` hold a name
for each set. Run the same command again after a kill: what `generate` and `score` have done stays, `select` and
`train` begin anew; `resume_from_checkpoint: latest` among its settings lets a training that was killed go on."""


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status of the first step that is not done, or 0."""
    parser = argparse.ArgumentParser(prog="bnf-align construct", description=__doc__, epilog=EPILOG)
    parser.add_argument("--config", required=True, help="a YAML file such as those in recipes/data")
    parser.add_argument("--folder", help="where everything goes, over the file's own `folder`")
    arguments = parser.parse_args(argv)
    for verb, words in plan(read_config(Path(arguments.config)), arguments.folder):
        print(f"bnf-align {verb} {' '.join(words)}", flush=True)
        status = import_module(f"bnf_align.cli.{verb}").main(words)
        if status:
            return int(status)
    return 0


def read_config(path: Path) -> dict[str, Any]:
    """The YAML file as a mapping.

    Raises:
        BadInput: If it is none, or has steps that do not exist, or what a later step could not read.
    """
    config = read_recipe(path)
    if unknown := set(config) - {"folder", *STEPS}:
        raise BadInput(f"--config {path}: {', '.join(sorted(unknown))}: known are folder, {', '.join(STEPS)}.")

    def settings(name: str, found: Any) -> Mapping[str, Any]:
        if not isinstance(found, Mapping) or not found:
            raise BadInput(f"--config {path}: `{name}` holds no settings. Give it some, or leave it out.")
        return found

    flags_of = {step: settings(step, config[step]) for step in STEPS[:2] if step in config}
    for step in (step for step in ("select", "train") if step in config):
        sets = settings(step, config[step]).items()
        if odd := [name for name, _ in sets if re.match(r"\.|.*[/\0]", name)]:
            raise BadInput(
                f"--config {path}: {odd[0]!r} is no name of a set: a file is called by it. Leave out . and /."
            )
        # All settings of a selection have defaults; a model to train has none.
        flags_of |= {f"{step}.{name}": settings(f"{step}.{name}", one) for name, one in sets if one or step == "train"}
    if named := [name for name, found in flags_of.items() if "out" in found]:
        raise BadInput(f"--config {path}: `{named[0]}` has `out`, but `folder` and the names of the sets say that.")
    if other := [name for name in config.get("train", {}) if name not in config.get("select", {name: None})]:
        raise BadInput(f"--config {path}: `train.{other[0]}` is trained on a set that `select` does not name.")
    return config


def plan(config: Mapping[str, Any], folder: str | None = None) -> Iterator[tuple[str, list[str]]]:
    """The steps of a configuration, verb and command line, in their order; each reads what the one before it wrote."""
    home = Path(folder or config.get("folder", "data"))
    candidates, scored = str(home / "candidates.jsonl"), str(home / "scored.jsonl")
    if "generate" in config:
        yield "generate", [*flags(config["generate"]), "--out", candidates]
    if "score" in config:
        yield "score", [candidates, *flags(config["score"]), "--out", scored]
    for name, settings in config.get("select", {}).items():
        yield "select", [scored, *flags(settings or {}), "--out", str(home / f"{name}.jsonl")]
    for name, settings in config.get("train", {}).items():
        where = ["--dataset_name", str(home / f"{name}.jsonl"), "--output_dir", str(home / f"model-{name}")]
        yield "train", [*where, *flags(settings)]


def flags(settings: Mapping[str, Any]) -> list[str]:
    """A mapping as a command line: true is a flag alone, false and null are none, a list is several values."""
    argv: list[str] = []
    for name, value in settings.items():
        if value is None or value is False:
            continue
        argv.append(f"-{name}" if len(name) == 1 else f"--{name}")
        if value is not True:
            argv += [str(one) for one in (value if isinstance(value, list) else [value])]
    return argv
