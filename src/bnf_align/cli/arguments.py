"""The flags of a run: where the rows come from, the model, `PreferenceConfig`; from a recipe and the shell."""

from __future__ import annotations

import re
from argparse import ArgumentError, ArgumentParser
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from typing import Any, Literal, get_type_hints

import torch
from accelerate import PartialState
from peft import LoraConfig
from transformers import BitsAndBytesConfig, HfArgumentParser

from bnf_align.cli.flags import TWINS
from bnf_align.cli.recipe import read_recipe
from bnf_align.config import REFUSED, PreferenceConfig
from bnf_align.data.assignments import assignments
from bnf_align.data.labels import spelled
from bnf_align.data.read import iter_rows
from bnf_align.records import BadInput
from bnf_align.sources import ImportedRows, Options


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass
class DataArguments:
    """Where the rows come from."""

    dataset_name: str | None = _flag(
        None,
        "A .json, .jsonl, .csv or .parquet file (.gz too) or a folder, of rows or of an export that `bnf-align "
        "import` knows; or a hub name.",
    )
    dataset_train_split: str = _flag("train", "Split to train on, where there are splits.")
    dataset_test_split: str | None = _flag(None, "Split to evaluate on.")
    eval_dataset_name: str | None = _flag(None, "A file, folder or hub name of its own to evaluate on.")
    eval_task: str | None = _flag(None, "gsm8k, math_l5, crux, mmlu_redux or ifeval: answer it during training.")
    eval_task_data: str | None = _flag(None, "A file of its items, instead of its data set on the hub.")
    eval_task_items: int = _flag(50, "The first so many items, the same every time.")
    eval_task_steps: int = _flag(100, "Optimizer steps from one time to the next.")
    sample_prompts: str | None = _flag(
        None, "A file of prompts: answered before training and after it, into samples.jsonl of the output folder."
    )
    sample_tokens: int = _flag(256, "The longest of these answers, in tokens.")


@dataclass
class ModelArguments:
    """The model to train, and how. Names are those of TRL's `ModelConfig`."""

    model_name_or_path: str | None = _flag(
        None, "A folder, a hub name or a GGUF file: the model, or an adapter to continue."
    )
    model_revision: str = _flag("main", "Branch, tag or commit of a hub name, for the tokenizer too.")
    trust_remote_code: bool = _flag(False, "Run code that comes with the model. Only for models that you trust.")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = _flag(
        "float32", "Type of the weights; auto: the one they are stored in."
    )
    attn_implementation: str | None = _flag(None, "eager, sdpa, or flash_attention_2 where that is installed.")
    use_peft: bool = _flag(False, "Train a LoRA adapter instead of all weights.")
    lora_r: int = _flag(16, "Rank of the adapter.")
    lora_alpha: int = _flag(32, "Its scale: the update is multiplied by lora_alpha / lora_r.")
    lora_dropout: float = _flag(0.0, "Dropout before the adapter; off unless --disable_dropout false.")
    lora_target_modules: list[str] | None = _flag(None, "Modules that get one, or all-linear. Default: PEFT's.")
    lora_target_parameters: list[str] | None = _flag(None, "Parameters that get one, such as those of experts.")
    lora_modules_to_save: list[str] | None = _flag(None, "Modules to train whole beside the adapter.")
    lora_task_type: str = _flag("CAUSAL_LM", "PEFT's name of the task.")
    use_rslora: bool = _flag(False, "Scale by lora_alpha over the root of lora_r instead.")
    use_dora: bool = _flag(False, "DoRA: direction and magnitude of the weights apart.")
    load_in_8bit: bool = _flag(False, "Quantise the model under the adapter to 8 bits.")
    load_in_4bit: bool = _flag(False, "Quantise the model under the adapter to 4 bits (QLoRA).")
    bnb_4bit_quant_type: Literal["nf4", "fp4"] = _flag("nf4", "The 4-bit type.")
    use_bnb_nested_quant: bool = _flag(False, "Quantise the constants of the quantisation too.")
    bnb_4bit_quant_storage: str | None = _flag(None, "Type that 4-bit weights are stored in, for FSDP.")


Rows = Iterable[Mapping[str, Any]]
Arguments = tuple[DataArguments, PreferenceConfig, ModelArguments]


def parser() -> HfArgumentParser:
    """The parser of `train` and `reference build`."""
    return HfArgumentParser(_TYPES, prog="bnf-align train", allow_abbrev=False, exit_on_error=False)


_TYPES: Any = [DataArguments, PreferenceConfig, ModelArguments]
_NAMES = [one.name for kind in _TYPES for one in fields(kind) if one.init]


def parse(argv: Sequence[str]) -> Arguments:
    """Read `--config recipe.yaml` and the flags on top of it.

    Raises:
        BadInput: For an unknown flag or key, a value of the wrong type, or a missing model, data set or output folder.
    """
    recipes = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    recipes.add_argument("--config", action="append", default=[])
    flags = parser()
    try:
        own, given = recipes.parse_known_args(argv)
        if len(own.config) > 1:
            raise BadInput(f"--config is given {len(own.config)} times, and one recipe is read.")
        from_recipe = [flag for path in own.config for flag in _flags_of(read_recipe(path), f"--config {path}", flags)]
        # Under their long names, which are TRL's and those of recipes.
        parts = [word.partition("=") for word in given]
        said = [TWINS.get(name, name) + equals + value for name, equals, value in parts]
        names = [name.replace("-", "_") for name, *_ in parts]
        if twice := [name for name in ("map", "label_map", "role_map") if names.count(f"__{name}") > 1]:
            raise BadInput(f"--{twice[0]} is given twice, and the last would count alone: write all of it after one.")
        data, config, model, *unknown = flags.parse_args_into_dataclasses(
            [*from_recipe, *said], return_remaining_strings=True, look_for_args_file=False
        )
        if unknown[-1]:
            name = unknown[-1][0].partition("=")[0]
            near = get_close_matches(name, [*(f"--{one}" for one in _NAMES), *TWINS], n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise BadInput(f"{name} is no flag of this command.{hint} `bnf-align train --help-all` lists every flag.")
    except ArgumentError as error:
        raise BadInput(f"{error}. `bnf-align train --help-all` lists every flag.") from None
    except (ValueError, OverflowError) as error:
        raise error if isinstance(error, BadInput) else BadInput(str(error)) from None
    required = ((model, "model_name_or_path"), (data, "dataset_name"), (config, "output_dir"))
    if missing := [f"--{name}" for kind, name in required if not getattr(kind, name)]:
        raise BadInput(f"{' and '.join(missing)} must be given, on the command line or in the --config file.")
    if model.load_in_4bit and model.load_in_8bit:
        raise BadInput("--load_in_4bit and --load_in_8bit: choose one.")
    _refuse_idle(model, data, config)
    return data, config, model


ONLY_WITH = {
    "use_peft": tuple(
        one.name for one in fields(ModelArguments) if one.name.startswith(("lora_", "use_rs", "use_do"))
    ),
    "load_in_4bit": ("bnb_4bit_quant_type", "use_bnb_nested_quant", "bnb_4bit_quant_storage"),
    "eval_task": ("eval_task_data", "eval_task_items", "eval_task_steps"),
    "sample_prompts": ("sample_tokens",),
    "eval_strategy": ("load_best_model_at_end", "eval_delay", "metric_for_best_model", "greater_is_better"),
    "eval_strategy steps": ("eval_steps",),
    "save_strategy steps": ("save_steps",),
    "push_to_hub": tuple(
        one.name for one in fields(PreferenceConfig) if one.name.startswith("hub_") and one.name not in REFUSED
    ),
}
"""A flag, alone or with the value that counts -> those that change nothing without it."""


def _refuse_idle(*found: ModelArguments | DataArguments | PreferenceConfig) -> None:
    """Stop where a flag is given that nothing reads."""
    values = {one.name: (getattr(kind, one.name), one.default) for kind in found for one in fields(kind)}
    for needed, names in ONLY_WITH.items():
        flag, _, wanted = needed.partition(" ")
        current = values[flag][0]
        if current != wanted if wanted else current in (None, False, "", "no"):
            for name in names:
                value, default = values[name]
                if value != default:
                    given = f"--{name} {spelled(getattr(value, 'value', value))}"
                    raise BadInput(f"{given} changes nothing without --{needed}: give that too, or take --{name} out.")


def settings(found: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], LoraConfig | None]:
    """Settings of a run by their names: those of `PreferenceConfig`, of `models.load`, and the adapter.

    Raises:
        BadInput: For an unknown name, or a value of the wrong type.
    """
    flags = HfArgumentParser(_TYPES[1:], prog="settings", allow_abbrev=False, exit_on_error=False)
    try:
        config, model = flags.parse_args_into_dataclasses(
            _flags_of(found, "settings", flags), look_for_args_file=False
        )
    except (ArgumentError, OverflowError) as error:
        raise BadInput(str(error)) from None
    own = {one.name for one in fields(PreferenceConfig)}
    return {name: getattr(config, name) for name in found if name in own}, model_kwargs(model), adapter_config(model)


def _flags_of(recipe: Mapping[str, Any], where: str, flags: HfArgumentParser) -> list[str]:
    """What a recipe says, as the flags that say it; lists, mappings and nulls become defaults of `flags`.

    Raises:
        BadInput: For a key that is no flag, and for several values where one is taken.
    """
    kinds = {name: str(kind) for one in _TYPES for name, kind in get_type_hints(one).items()}
    if unknown := [name for name in recipe if name not in _NAMES]:
        advice = " Set variables of the environment in the shell." if "env" in unknown else ""
        raise BadInput(f"{where}: no such setting: {', '.join(unknown)}.{advice}")
    said = []
    for name, value in recipe.items():
        if value is None or isinstance(value, list | dict):
            form = "None" if value is None else type(value).__name__
            if form not in kinds[name]:
                raise BadInput(f"{where}: {name} takes one value, not {value}.")
            flags.set_defaults(**{name: [str(one) for one in value] if isinstance(value, list) else value})
        else:
            said.append(f"--{name}={str(value).lower() if isinstance(value, bool) else value}")
    return said


def load_rows(data: DataArguments, config: PreferenceConfig) -> tuple[Rows, Rows | None]:
    """Training and evaluation rows; None where the evaluation rows are not given on their own.

    An export that an importer knows for certain comes as the rows it gives.

    Raises:
        BadInput: If an evaluation schedule is set and there is nothing to evaluate on.
    """
    assert data.dataset_name is not None
    own = data.eval_dataset_name or data.dataset_test_split
    if config.eval_strategy != "no" and not own and not config.eval_fraction:
        raise BadInput("--eval_strategy needs rows to evaluate on: give --eval_fraction 0.05, for example.")
    options = Options(assignments("label_map", config.label_map), assignments("map", config.map))
    rows = _held(iter_rows(data.dataset_name, data.dataset_train_split, options))
    if not own:
        return rows, None
    source = data.eval_dataset_name or data.dataset_name
    return rows, _held(iter_rows(source, data.dataset_test_split or data.dataset_train_split, options))


def _held(rows: Rows) -> Rows:
    """Rows in memory, except those that can be read again and have a report of their own."""
    return rows if isinstance(rows, ImportedRows) else list(rows)


def model_kwargs(model: ModelArguments) -> dict[str, Any]:
    """What `models.load` takes, from the flags."""
    kwargs: dict[str, Any] = {
        "dtype": model.dtype,
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "trust_remote_code": model.trust_remote_code,
    }
    if model.load_in_4bit or model.load_in_8bit:
        kwargs["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=model.load_in_8bit,
            load_in_4bit=model.load_in_4bit,
            bnb_4bit_compute_dtype=model.dtype,
            bnb_4bit_quant_type=model.bnb_4bit_quant_type,
            bnb_4bit_use_double_quant=model.use_bnb_nested_quant,
            bnb_4bit_quant_storage=model.bnb_4bit_quant_storage,
        )
        if torch.cuda.is_available():
            kwargs["device_map"] = {"": PartialState().local_process_index}
    return kwargs


def adapter_config(model: ModelArguments) -> LoraConfig | None:
    """The adapter that the flags describe; None without --use_peft."""
    if not model.use_peft:
        return None
    if model.lora_alpha <= 0:
        raise BadInput(f"--lora_alpha {model.lora_alpha}: a number above 0 is needed, or the adapter changes nothing.")
    if model.lora_task_type != "CAUSAL_LM":
        raise BadInput(f"--lora_task_type {model.lora_task_type}: only CAUSAL_LM is trained here.")
    targets: Any = model.lora_target_modules
    if targets and len(targets) == 1 and not re.fullmatch(r"[\w.]+", targets[0]):
        (targets,) = targets  # all-linear, or a pattern, which PEFT tells from a name by its not being in a list
    return LoraConfig(
        task_type=model.lora_task_type,
        r=model.lora_r,
        lora_alpha=model.lora_alpha,
        lora_dropout=model.lora_dropout,
        target_modules=targets,
        target_parameters=model.lora_target_parameters,
        modules_to_save=model.lora_modules_to_save,
        use_rslora=model.use_rslora,
        use_dora=model.use_dora,
        bias="none",
    )
