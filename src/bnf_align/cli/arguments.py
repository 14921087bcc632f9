"""The flags of a run: where the rows come from, `PreferenceConfig`, TRL's `ModelConfig`; from YAML and the shell."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from peft import PeftConfig
from trl import ModelConfig, TrlParser, get_peft_config, get_quantization_config

from bnf_align.config import PreferenceConfig
from bnf_align.data.assignments import assignments
from bnf_align.data.read import iter_rows
from bnf_align.records import BadInput
from bnf_align.sources import ImportedRows, Options


@dataclass
class DataArguments:
    """Where the rows come from."""

    dataset_name: str | None = field(
        default=None,
        metadata={
            "help": "A .json, .jsonl, .csv or .parquet file (.gz too) or a folder, of rows or of an export that "
            "`bnf-align import` knows; or a hub name."
        },
    )
    dataset_train_split: str = field(default="train", metadata={"help": "Split to train on, where there are splits."})
    dataset_test_split: str | None = field(default=None, metadata={"help": "Split to evaluate on."})
    eval_dataset_name: str | None = field(
        default=None, metadata={"help": "A file, folder or hub name of its own to evaluate on."}
    )
    eval_task: str | None = field(
        default=None, metadata={"help": "A benchmark (gsm8k, math_l5, crux, mmlu_redux) to answer during training."}
    )
    eval_task_data: str | None = field(
        default=None, metadata={"help": "A file of its items, instead of its data set on the hub."}
    )
    eval_task_items: int = field(default=50, metadata={"help": "The first so many items, the same every time."})
    eval_task_steps: int = field(default=100, metadata={"help": "Optimizer steps from one time to the next."})
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run code that comes with the model. Only for models that you trust."}
    )


Rows = Iterable[Mapping[str, Any]]
Arguments = tuple[DataArguments, PreferenceConfig, ModelConfig]


def parser() -> TrlParser:
    """The parser of `train` and `reference build`."""
    types: Any = [DataArguments, PreferenceConfig, ModelConfig]
    return TrlParser(types, prog="bnf-align train", exit_on_error=False)


def parse(argv: Sequence[str]) -> Arguments:
    """Read `--config recipe.yaml` and the flags on top of it.

    Raises:
        BadInput: For an unknown flag or key, a value of the wrong type, or a missing model, data set or output folder.
    """
    given = [part for argument in argv for part in _split_config(argument)]
    try:
        data, config, model = parser().parse_args_and_config(given)
    except (ArgumentError, FileNotFoundError) as error:
        raise BadInput(f"{error}. `bnf-align train --help-all` lists every flag.") from None
    except ValueError as error:
        raise error if isinstance(error, BadInput) else BadInput(str(error)) from None
    required = {
        "model_name_or_path": model.model_name_or_path,
        "dataset_name": data.dataset_name,
        "output_dir": config.output_dir,
    }
    missing = [f"--{name}" for name, value in required.items() if not value]
    if missing:
        raise BadInput(f"{' and '.join(missing)} must be given, on the command line or in the --config file.")
    return data, config, model


def _split_config(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--config=") else [argument]


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


def model_kwargs(model: ModelConfig, data: DataArguments) -> dict[str, Any]:
    """What `load_model` takes, from TRL's flags."""
    kwargs: dict[str, Any] = {
        "dtype": model.dtype,
        "revision": model.model_revision,
        "attn_implementation": model.attn_implementation,
        "trust_remote_code": data.trust_remote_code,
    }
    if (quantization := get_quantization_config(model)) is not None:
        kwargs["quantization_config"] = quantization
        if torch.cuda.is_available():
            kwargs["device_map"] = {"": PartialState().local_process_index}
    return kwargs


def adapter_config(model: ModelConfig) -> PeftConfig | None:
    """The LoRA configuration that TRL's flags describe; None without --use_peft."""
    return get_peft_config(model)


def is_adapter(path: str) -> bool:
    """Whether `path` holds an adapter, which is then continued."""
    return (Path(path) / "adapter_config.json").exists()
