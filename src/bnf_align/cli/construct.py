"""`bnf-align construct`: a whole data set from one YAML file: generate, score, select, and train if it says so."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

STEPS = ("generate", "score", "select", "train")
EPILOG = """The file has `folder`, and per step the flags of its verb, without dashes; `select` and `train` hold a name
for each set. A step that is finished is passed over, one that was killed goes on: run the same command again."""


class Step(NamedTuple):
    """One verb with its command line."""

    verb: str
    argv: list[str]


def main(argv: Sequence[str]) -> int:
    """Run the verb; returns the exit status of the first step that is not done, or 0."""
    parser = argparse.ArgumentParser(prog="bnf-align construct", description=__doc__, epilog=EPILOG)
    parser.add_argument("--config", required=True, help="a YAML file such as those in recipes/data")
    parser.add_argument("--folder", help="where everything goes, over the file's own `folder`")
    arguments = parser.parse_args(argv)
    for step in plan(read_config(Path(arguments.config)), arguments.folder):
        print(f"bnf-align {step.verb} {' '.join(step.argv)}", flush=True)
        status = import_module(f"bnf_align.cli.{step.verb}").main(step.argv)
        if status:
            return int(status)
    return 0


def read_config(path: Path) -> dict[str, Any]:
    """The YAML file as a mapping.

    Raises:
        BadInput: If it is none, or has steps that do not exist.
    """
    import yaml

    from bnf_align.records import BadInput

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BadInput(f"--config {path} cannot be read: {error}") from error
    unknown = set(config) - {"folder", *STEPS} if isinstance(config, dict) else {"no steps"}
    if unknown:
        raise BadInput(f"--config {path}: {', '.join(sorted(unknown))}: known are folder, {', '.join(STEPS)}.")
    return dict(config)


def plan(config: Mapping[str, Any], folder: str | None = None) -> Iterator[Step]:
    """The steps of a configuration, in their order; each reads what the one before it wrote."""
    home = Path(folder or config.get("folder", "data"))
    candidates, scored = str(home / "candidates.jsonl"), str(home / "scored.jsonl")
    if "generate" in config:
        yield Step("generate", [*flags(config["generate"]), "--out", candidates])
    if "score" in config:
        yield Step("score", [candidates, *flags(config["score"]), "--out", scored])
    sets = {name: str(home / f"{name}.jsonl") for name in config.get("select", {})}
    for name, out in sets.items():
        yield Step("select", [scored, *flags(config["select"][name] or {}), "--out", out])
    for name, settings in (config.get("train") or {}).items():
        where = ["--dataset_name", sets.get(name, name), "--output_dir", str(home / f"model-{name}")]
        yield Step("train", [*where, *flags(settings or {})])


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
