"""From rows to steps: check, tokenise, keep what the loss can use, add the reference. Before the loop, once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import datasets
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bnf_align.config import PreferenceConfig
from bnf_align.data.batching import StepDataset
from bnf_align.data.pairing import mismatched, units
from bnf_align.data.prepare import Rows, checked_rows, held_out, say, tokenized
from bnf_align.data.responses import Responses
from bnf_align.data.tokenize import show_tokens
from bnf_align.head import attach
from bnf_align.models import configured_tokenizer, disable_dropout, prepare_quantised, refuse_unsupported
from bnf_align.records import DataReport
from bnf_align.reference.compute import ReferenceReport, add_ref_logps
from bnf_align.training.packing import check_packing
from bnf_align.training.sharding import loads_on_main_process_alone

if TYPE_CHECKING:
    from bnf_align.reference.cluster import ReferenceWorkers

logger = logging.getLogger(__name__)


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
        checked |= held_out(checked, config.eval_fraction)
    for name, (rows, report) in checked.items():
        parts[name] = tokenized(rows, report, tokenizer, config)
        prepared.reports[name] = report
        if config.loss.mismatched:
            parts[f"{name} mismatched"] = mismatched(parts[name], config.max_length)
    if config.show_tokens and "train" in parts:
        say(show_tokens(parts["train"], tokenizer, config.show_tokens))
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
    say(f"reference: {report.computed_tokens:,} tokens computed, {report.cached_tokens:,} from the cache")
    if not model.config._name_or_path:
        say(f"reference: the weights that were passed, which have no name; in the cache it is {report.namespace}")
    return dict(zip(parts, filled, strict=True)), report
