"""What a comparison is told: one mapping, with everything that is wrong in it said at once, before the first run."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from peft import PeftConfig

from bnf_align.compare.evaluations import BASE, Evaluation
from bnf_align.compare.rows import faults_of, split
from bnf_align.config import PreferenceConfig
from bnf_align.losses import LOSSES
from bnf_align.models import load_tokenizer
from bnf_align.records import BadInput, counted

TUNABLE = (
    *("learning_rate", "batch_size", "warmup_steps", "lr_scheduler_type", "weight_decay", "max_grad_norm"),
    *("optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon"),
)
"""What a grid may vary beside an objective's hyper-parameters: nothing that changes rows or tokens."""

ELSEWHERE = {
    **dict.fromkeys(("learning_rate", "batch_size", "per_device_train_batch_size"), "grid"),
    **dict.fromkeys(("loss_type", "loss_kwargs"), "methods"),
    **dict.fromkeys(("seed", "data_seed"), "seeds"),
    **dict.fromkeys(("output_dir", "ref_cache_dir"), "out"),
    "model_name_or_path": "model",
    "eval_fraction": "validation and test",
}
"""Settings of `train` that other keys of a comparison say."""

QUIET = {"report_to": "none", "save_strategy": "no", "disable_tqdm": True}

Settings = tuple[dict[str, Any], dict[str, Any], PeftConfig | None]
"""Of `PreferenceConfig`, of `models.load`, and the adapter to train."""


class Method(NamedTuple):
    """An objective and the settings that are tried for it."""

    loss_type: str
    grid: list[dict[str, Any]]


@dataclass(frozen=True)
class Plan:
    """A comparison, checked."""

    model: str
    data: str
    out: str
    methods: dict[str, Method]
    split: str = "train"
    validation: float = 0.15
    """Share of the prompts that settings are chosen by."""
    test: float = 0.25
    """Share of the prompts that is reported."""
    split_seed: int = 0
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the order of the rows, and of a fresh adapter's weights."""
    tuning_seeds: int = 1
    """How many of the seeds every point of a grid is trained with."""
    choose_by: str = "held_out"
    """The evaluation whose first measure chooses, on the validation split."""
    processes: int = 1
    evaluations: dict[str, Evaluation] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    adapter: PeftConfig | None = None

    def config(self, loss_type: str, point: Mapping[str, Any], **given: Any) -> PreferenceConfig:
        """The settings of one run: `point` sets hyper-parameters of the objective and settings of training."""
        own = {name: value for name, value in point.items() if name in LOSSES[loss_type].hyperparameters}
        others = {name: value for name, value in point.items() if name not in own}
        cache = str(Path(self.out) / "reference")
        given = {"output_dir": self.out, "ref_cache_dir": cache, "loss_kwargs": own or None} | given
        settings: dict[str, Any] = {**QUIET, **self.settings, **others, **given}
        config = PreferenceConfig(**settings, loss_type=loss_type)
        config.step_size(config.world_size)
        return config


def as_given(settings: Mapping[str, Any]) -> Settings:
    """Settings of `PreferenceConfig` that have their types already."""
    return dict(settings), {}, None


class _Faults:
    """Everything that is wrong, each with its key and, where it is known, its line."""

    def __init__(self, lines: Mapping[tuple[str, ...], int]) -> None:
        self.lines = lines
        self.found: dict[str, int] = {}
        """Text -> line."""
        self.times = 0
        """How often one was met: that of a grid is met with each method, and is one text."""

    def add(self, text: str, *keys: str) -> None:
        line = next((self.lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in self.lines), None)
        place = f"line {line}, {'.'.join(keys)}" if line else ".".join(keys)
        self.found.setdefault(f"{place}: {text}", line or 0)
        self.times += 1

    def tried(self, keys: Sequence[str], attempt: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What `attempt` returns, or None where it fails in a way that a user can mend."""
        try:
            return attempt(*args, **kwargs)
        except (ValueError, TypeError, OverflowError) as error:
            self.add(" ".join(str(error).split()), *keys)


def read(
    found: Mapping[str, Any],
    lines: Mapping[tuple[str, ...], int] | None = None,
    settings: Callable[[Mapping[str, Any]], Settings] = as_given,
) -> Plan:
    """The comparison that a mapping describes; see docs/compare.md for its keys.

    `lines` are where keys stand, named from the outside in; `settings` reads the mapping of that name.

    Raises:
        BadInput: With every fault of the mapping, a line each.
    """
    faults = _Faults(lines or {})
    known = {one.name for one in fields(Plan)} - {"model_kwargs", "adapter"} | {"grid"}
    for name in [name for name in found if name not in known]:
        faults.add(f"no such key. Known are {', '.join(sorted(known))}.", name)
    for name in [name for name in ("model", "data", "out", "methods") if not found.get(name)]:
        faults.add("is missing, and a comparison needs it.", name)
    plain: dict[str, Any] = {"model": "", "data": "", "out": ""}
    plain |= {name: found[name] for name in found if name in ("model", "data", "out", "split")}
    for name in [name for name, value in plain.items() if not isinstance(value, str)]:
        faults.add(f"a text is needed, not {plain[name]!r}.", name)
    if isinstance(plain["out"], str) and Path(plain["out"]).is_file():
        faults.add(f"{plain['out']} is a file, and a folder is needed.", "out")
    before = {*faults.found}
    for name in ("validation", "test"):
        share = plain[name] = found.get(name, getattr(Plan, name))
        if not isinstance(share, float) or not 0 < share < 1:
            faults.add(f"a share of the prompts, above 0 and below 1, is needed, not {share!r}.", name)
    if (readable := not faults.found.keys() - before) and plain["validation"] + plain["test"] >= 1:
        faults.add(
            f"validation and test are {plain['validation'] + plain['test']:g} of the prompts: none to train on.",
            "test",
        )
        readable = False
    for name in ("split_seed", "tuning_seeds", "processes"):
        count = plain[name] = found.get(name, getattr(Plan, name))
        if not _whole(count) or count < (name != "split_seed"):
            faults.add(f"a whole number from {int(name != 'split_seed')} on is needed, not {count!r}.", name)
    seeds = found.get("seeds", list(Plan.seeds))
    whole = isinstance(seeds, list) and all(_whole(seed) and seed >= 0 for seed in seeds)
    if not whole or not seeds or len({*seeds}) < len(seeds):
        faults.add(f"a list of different whole numbers from 0 on is needed, not {seeds!r}.", "seeds")
    elif _whole(plain["tuning_seeds"]) and plain["tuning_seeds"] > len(seeds):
        faults.add(f"{plain['tuning_seeds']} of {len(seeds)} seeds cannot be had.", "tuning_seeds")
    parts = {name: found.get(name) or {} for name in ("settings", "grid", "methods", "evaluations")}
    for name in [name for name, part in parts.items() if not isinstance(part, Mapping)]:
        faults.add(f"NAME: VALUE lines are needed, not {parts[name]!r}.", name)
        parts[name] = {}
    for part in ("methods", "evaluations"):
        for name in [name for name in parts[part] if re.match(r"\.|.*[/\0]", str(name))]:
            faults.add("files are called by this name: leave out . at its beginning, and /.", part, name)
    own, model_kwargs, adapter = _settings(parts["settings"], settings, faults)
    base = Plan("", "", str(found.get("out", "out")), {}, settings=own)
    methods = {
        name: method
        for name, given in parts["methods"].items()
        if (method := _method(name, given, parts["grid"], base, faults))
    }
    if len({len(method.grid) for method in methods.values()}) > 1:
        sizes = ", ".join(f"{name} {len(method.grid)}" for name, method in methods.items())
        faults.add(
            f"the grids differ in size ({sizes}): whoever may try more often wins more often. Give every method the "
            "same number of points.",
            "methods",
        )
    evaluations = _evaluations(parts["evaluations"], faults)
    choose_by = found.get("choose_by", Plan.choose_by)
    if choose_by not in evaluations:
        faults.add(f"{choose_by!r} is none of the evaluations: {', '.join(evaluations)}.", "choose_by")
    elif choose_by != "held_out" and not evaluations[choose_by].validation:
        faults.add(
            "it is to choose, and has no items to choose by: give it `validation: FILE`.", "evaluations", choose_by
        )
    plan = Plan(
        **plain,
        methods=methods,
        seeds=tuple(seeds) if isinstance(seeds, list) else (),
        choose_by=choose_by,
        evaluations=evaluations,
        settings=own,
        model_kwargs=model_kwargs,
        adapter=adapter,
    )
    if plan.model:
        places = {name: model_kwargs[name] for name in ("revision", "trust_remote_code") if name in model_kwargs}
        faults.tried(("model",), load_tokenizer, plan.model, **places)
    if (
        readable
        and isinstance(plan.split_seed, int)
        and plan.data
        and (splits := faults.tried(("data",), split, plan))
    ):
        for text, *keys in faults_of(plan, splits):
            faults.add(text, *keys)
    if faults.found:
        listed = "\n".join(sorted(faults.found, key=faults.found.__getitem__))
        raise BadInput(f"The comparison has {counted(len(faults.found), 'fault')}, and nothing was run:\n{listed}")
    return plan


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _settings(given: Mapping[str, Any], read_settings: Callable[..., Settings], faults: _Faults) -> Settings:
    """The settings, each tried alone first, so that all that are wrong are named."""
    clean = {}
    for name, value in given.items():
        keys = ("settings", name)
        if name in ELSEWHERE:
            faults.add(f"this is said by `{ELSEWHERE[name]}`.", *keys)
            continue
        alone = faults.tried(keys, read_settings, {name: value})
        if alone and faults.tried(keys, Plan("", "", "out", {}, settings=alone[0]).config, "bnf", {}):
            clean[name] = value
    return faults.tried(("settings",), read_settings, clean) or as_given({})


def _method(name: str, given: Any, shared: Mapping[str, Any], base: Plan, faults: _Faults) -> Method | None:
    """A method with the points of its grid: what it says itself, and the shared grid for the rest."""
    at, before = ("methods", name), faults.times
    own = dict(given or {}) if isinstance(given, Mapping | None) else {}
    loss_type = own.pop("loss_type", name)
    if not isinstance(given, Mapping | None):
        faults.add(f"NAME: VALUE lines are needed, not {given!r}.", *at)
    elif name == BASE:
        faults.add("the model before training is compared anyway: leave it out.", *at)
    elif loss_type not in LOSSES:
        faults.add(f"{loss_type!r} is no objective. Choose one of {', '.join(LOSSES)}.", *at)
    if faults.times > before:
        return None
    takes, given = LOSSES[loss_type].hyperparameters, {**shared, **own}
    axes = {}
    for axis, values in given.items():
        where = (*at, axis) if axis in own else ("grid", axis)
        if axis not in TUNABLE and (axis not in takes or axis not in own):
            listed = f"{loss_type} takes {', '.join(takes) or 'no hyper-parameter'}; " if axis in own else ""
            faults.add(f"{listed}a grid may also vary {', '.join(TUNABLE)}.", *where)
        elif not isinstance(values, list) or not values or any(values.count(value) > 1 for value in values):
            faults.add(f"a list of different values is needed, not {values!r}.", *where)
        else:
            axes[axis] = values
    for axis in [axis for axis in ("learning_rate", "batch_size") if axis not in given]:
        faults.add(f"{axis} is in no grid: list what is tried.", *at)
    whole = faults.times == before
    points = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    for point in points:
        faults.tried(at, base.config, loss_type, point)
    return Method(loss_type, points) if whole else None


def _evaluations(given: Mapping[str, Any], faults: _Faults) -> dict[str, Evaluation]:
    found = {"held_out": Evaluation("held_out")}
    for name, options in given.items():
        options = options or {}
        known = {one.name for one in fields(Evaluation)} - {"name"}
        if not isinstance(options, Mapping) or (unknown := [option for option in options if option not in known]):
            what = ", ".join(unknown) if isinstance(options, Mapping) else repr(options)
            faults.add(f"{what}: known are {', '.join(sorted(known))}.", "evaluations", name)
        else:
            one = Evaluation(name, **options)
            found[name] = one
            faults.tried(("evaluations", name), one.check)
    return found
