"""From rows to steps: check, tokenise, keep what the loss can use, add the reference. Before the loop, once."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import datasets
import torch
from accelerate import PartialState
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bnf_align.data.assignments import assignments
from bnf_align.data.batching import StepDataset
from bnf_align.data.pairing import for_pairs, for_ups, mismatched, units
from bnf_align.data.responses import Responses
from bnf_align.data.rows import preference_rows, remark_on_balance, split_by_prompt
from bnf_align.data.tokenize import show_tokens, tokenize_rows
from bnf_align.head import attach
from bnf_align.records import BadInput, DataReport, PreferenceRow
from bnf_align.training.config import PreferenceConfig
from bnf_align.training.model import configured_tokenizer, disable_dropout, prepare_quantised, refuse_unsupported
from bnf_align.training.packing import check_packing
from bnf_align.training.reference import ReferenceReport, add_ref_logps
from bnf_align.training.sharding import loads_on_main_process_alone

if TYPE_CHECKING:
    from bnf_align.training.cluster import ReferenceWorkers

logger = logging.getLogger(__name__)

Rows = Iterable[Mapping[str, Any]]


@dataclass
class PreparedData:
    """What the loop takes its steps from, by name (`train`, `eval`), and what became of the rows."""

    steps: dict[str, StepDataset] = field(default_factory=dict)
    reports: dict[str, DataReport] = field(default_factory=dict)
    reference: ReferenceReport | None = None


def named_sources(train: Rows | None, evaluation: Rows | dict[str, Rows] | None) -> dict[str, Rows]:
    """Rows by name: `train`, and `eval`, or `eval_NAME` where there are several."""
    sources: dict[str, Rows] = {} if train is None else {"train": train}
    if isinstance(evaluation, dict):
        return sources | {f"eval_{name}": rows for name, rows in evaluation.items()}
    return sources if evaluation is None else sources | {"eval": evaluation}


def starting_point(
    model: Any,
    processing_class: PreTrainedTokenizerBase | None,
    sources: Mapping[str, Rows],
    config: PreferenceConfig,
    workers: ReferenceWorkers | None = None,
) -> tuple[Any, PreTrainedTokenizerBase, PreparedData]:
    """The policy as training starts from it, which is the reference; its tokenizer; and the steps.

    A fresh adapter is put on afterwards: its reference is the model under it.

    Args:
        model: As it was loaded.
        processing_class: Its tokenizer; None: the one beside it.
        sources: Rows by name.
        config: The run's settings.
        workers: See `add_ref_logps`.

    Raises:
        BadInput: For models, settings and rows that cannot be trained on.
    """
    refuse_unsupported(model, config, *sources.values())
    source = processing_class or model.config._name_or_path
    tokenizer = configured_tokenizer(source, config.chat_template_path, config.eos_token)
    model = reference_model(model, config)
    return model, tokenizer, prepare(sources, model, tokenizer, config, workers)


def reference_model(model: Any, config: PreferenceConfig) -> Any:
    """A model as it was loaded -> the policy before its first step."""
    if config.disable_dropout:
        disable_dropout(model)
    model = prepare_quantised(model, config)
    whole = not loads_on_main_process_alone()
    attach(model, config.head, check=whole)
    if config.packing and whole:
        check_packing(model)
    return model


def prepare(
    sources: Mapping[str, Rows],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: PreferenceConfig,
    workers: ReferenceWorkers | None = None,
) -> PreparedData:
    """Make steps of every source.

    Args:
        sources: Rows by name.
        model: The reference, where the loss needs one.
        tokenizer: With chat template, end and padding token.
        config: The run's settings.
        workers: See `add_ref_logps`.
    """
    prepared = PreparedData()
    parts: dict[str, datasets.Dataset] = {}
    checked = {name: checked_rows(name, rows, config) for name, rows in sources.items()}
    if config.eval_fraction and "train" in checked:
        checked |= _held_out(checked, config.eval_fraction)
    for name, (rows, report) in checked.items():
        parts[name] = tokenized(rows, report, tokenizer, config)
        prepared.reports[name] = report
        if config.loss.mismatched:
            parts[f"{name} mismatched"] = mismatched(parts[name], config.max_length)
    if config.show_tokens and "train" in parts:
        _say(show_tokens(parts["train"], tokenizer, config.show_tokens))
    if config.loss.reference and parts:
        parts, prepared.reference = _with_reference(parts, model, tokenizer, config, workers)
    for name in checked:
        others = parts.get(f"{name} mismatched")
        prepared.steps[name] = StepDataset(
            Responses(parts[name]),
            units(parts[name]),
            keep_pairs=config.loss.pairwise,
            mismatched=Responses(others) if others is not None else None,
            max_tokens=config.max_tokens_per_micro_batch,
            pad_token_id=tokenizer.pad_token_id,
            packing=config.packing,
            rank=config.process_index,
            world=config.world_size,
        )
    return prepared


def checked_rows(name: str, rows: Rows, config: PreferenceConfig) -> tuple[list[PreferenceRow], DataReport]:
    """Check the rows called `name` under the column, label and role names that `config` gives."""
    return preference_rows(
        rows,
        source=f"{name} rows",
        column_map=assignments("map", config.map),
        label_map=assignments("label_map", config.label_map),
        role_map=assignments("role_map", config.role_map),
        conflicting_labels=config.conflicting_labels,
    )


Checked = dict[str, tuple[list[PreferenceRow], DataReport]]


def _held_out(checked: Checked, fraction: float) -> Checked:
    """Training rows without those of the held-out prompts, and these as evaluation rows."""
    if "eval" in checked:
        raise BadInput("--eval_fraction holds training rows out, but evaluation rows are given too: leave one away.")
    rows, report = checked["train"]
    kept, held = split_by_prompt(rows, fraction)
    report.notes.append(f"{len(held):,} rows are held out for evaluation, with all rows of their prompts")
    return {"train": (kept, report), "eval": (held, DataReport("eval rows", rows=len(held)))}


def tokenized(
    rows: list[PreferenceRow], report: DataReport, tokenizer: PreTrainedTokenizerBase, config: PreferenceConfig
) -> datasets.Dataset:
    """Tokenise and truncate checked rows, keep what the loss can use, and say what was not."""
    responses = tokenize_rows(
        rows, tokenizer, report, max_length=config.max_length, merge_system_prompt=config.merge_system_prompt
    )
    if config.loss.pairwise:
        responses = for_pairs(responses, report)
    elif config.loss.preferred_only:
        responses = for_ups(responses, report)
    else:
        remark_on_balance(report)
    _say("\n".join(report.lines()))
    return responses


def _with_reference(
    parts: dict[str, datasets.Dataset],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    config: PreferenceConfig,
    workers: ReferenceWorkers | None,
) -> tuple[dict[str, datasets.Dataset], ReferenceReport]:
    filled, report = add_ref_logps(
        list(parts.values()),
        model,
        device=config.device,
        cache_dir=config.ref_cache_dir,
        max_tokens=config.max_tokens_per_micro_batch,
        pad_token_id=tokenizer.pad_token_id,
        autocast=torch.bfloat16 if config.bf16 else None,
        head=config.head,
        packing=config.packing,
        about={"model": model.config._name_or_path},
        workers=workers,
    )
    _say(f"reference: {report.computed_tokens:,} tokens computed, {report.cached_tokens:,} from the cache")
    if not model.config._name_or_path:
        _say(f"reference: the weights that were passed, which have no name; in the cache it is {report.namespace}")
    return dict(zip(parts, filled, strict=True)), report


def _say(text: str) -> None:
    """Once, on the main process, visible without any logging set-up: these lines stand before step 1."""
    if PartialState().is_main_process:
        logger.warning(text)
