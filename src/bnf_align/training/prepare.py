"""From rows to steps, once, before the loop: check, tokenise, add the reference, cut into steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import datasets
import torch
from transformers import PreTrainedTokenizerBase

from bnf_align.config import PreferenceConfig
from bnf_align.data.batching import StepDataset
from bnf_align.data.pairing import kl_rows, units
from bnf_align.data.prepare import Rows, checked_rows, held_out, say, tokenized
from bnf_align.data.responses import Responses
from bnf_align.data.tokenize import show_tokens
from bnf_align.head import attach
from bnf_align.models import (
    configured_tokenizer,
    disable_dropout,
    prepare_quantised,
    refuse_unsupported,
    train_text_alone,
)
from bnf_align.records import BadInput, DataReport
from bnf_align.reference.compute import Forward, ReferenceReport, add_ref_logps
from bnf_align.training.packing import check_packing
from bnf_align.training.sharding import asked_for, loads_on_main_process_alone


@dataclass
class PreparedData:
    """What the loop takes its steps from and what became of the rows, by name: `train`, `eval` or `eval_NAME`."""

    steps: dict[str, StepDataset] = field(default_factory=dict)
    reports: dict[str, DataReport] = field(default_factory=dict)
    reference: ReferenceReport | None = None


def named_sources(train: Rows | None, evaluation: Rows | dict[str, Rows] | None) -> dict[str, Rows]:
    """Rows by name: `train`, and `eval`, or `eval_NAME` for each of a dict."""
    sources: dict[str, Rows] = {} if train is None else {"train": train}
    if isinstance(evaluation, dict):
        return sources | {f"eval_{name}": rows for name, rows in evaluation.items()}
    return sources if evaluation is None else sources | {"eval": evaluation}


def starting_point(
    model: Any, processing_class: PreTrainedTokenizerBase | None, sources: Mapping[str, Rows], config: PreferenceConfig
) -> tuple[Any, PreTrainedTokenizerBase, PreparedData]:
    """The policy as training starts from it, which is the reference; its tokenizer; and the steps.

    A fresh adapter is put on afterwards: its reference is the model under it. `sources` are rows by name, see
    `named_sources`; the tokenizer is the one beside the model where `processing_class` is None.

    Raises:
        BadInput: For models, settings and rows that cannot be trained on.
    """
    refuse_unsupported(model, config, *sources.values())
    if config.eval_fraction and (given := [name for name in sources if name != "train"]):
        raise BadInput(
            f"--eval_fraction {config.eval_fraction} holds training rows out, but evaluation rows are given too "
            f"({', '.join(given)}): leave one of them out."
        )
    tokenizer = configured_tokenizer(
        processing_class or model.config.name_or_path, config.chat_template_path, config.eos_token
    )
    if config.disable_dropout:
        disable_dropout(model)
    model = prepare_quantised(model, config)
    train_text_alone(model)
    whole = not loads_on_main_process_alone()
    attach(model, config.head, check=whole)
    if config.packing and whole:
        check_packing(model)

    checked = {name: checked_rows(name, rows, config) for name, rows in sources.items()}
    if config.eval_fraction and "train" in checked:
        checked |= held_out(checked, config.eval_fraction)
    prepared = PreparedData(reports={name: report for name, (_, report) in checked.items()})
    parts: dict[str, datasets.Dataset] = {}
    vocab_size = len(model.get_input_embeddings().weight)
    for name in prepared.reports:
        parts[name] = tokenized(*checked.pop(name), tokenizer, config, vocab_size)  # the rows themselves may go now
        if config.loss.mismatched:
            parts[f"{name} kl_rows"] = kl_rows(parts[name], config.max_length)
    if config.show_tokens and "train" in parts:
        say(show_tokens(parts["train"], tokenizer, config.show_tokens))

    if config.loss.reference and parts:
        forward = Forward(
            device=config.device,
            head=config.head,
            autocast=torch.bfloat16 if config.bf16 else None,
            packing=config.packing,
            sharded=asked_for(),
            whole=whole,
            max_tokens=config.max_tokens_per_micro_batch,
            pad_token_id=tokenizer.pad_token_id,
        )
        filled, prepared.reference = add_ref_logps(
            list(parts.values()),
            model,
            forward,
            cache_dir=config.ref_cache_dir,
            about={"model": model.config.name_or_path},
        )
        parts = dict(zip(parts, filled, strict=True))
        counts = prepared.reference
        say(f"reference: {counts.computed_tokens:,} tokens computed, {counts.cached_tokens:,} from the cache")
        if not model.config.name_or_path:
            say(f"reference: the weights that were passed, which have no name; in the cache it is {counts.namespace}")

    for name in prepared.reports:
        others = parts.get(f"{name} kl_rows")
        prepared.steps[name] = StepDataset(
            Responses(parts[name]),
            units(parts[name]),
            keep_pairs=config.loss.pairwise,
            kl_rows=Responses(others) if others is not None else None,
            max_tokens=config.max_tokens_per_micro_batch,
            pad_token_id=tokenizer.pad_token_id,
            packing=config.packing,
            rank=config.process_index,
            world=config.world_size,
        )
    return model, tokenizer, prepared
