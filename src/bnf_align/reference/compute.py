"""The reference pass: one float32 per scored token, computed once per content and kept in the cache.

The reference is the model as it stands before training. It is a column of the data, never a second model in memory.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from bnf_align.data.micro_batches import items_of, plan_step
from bnf_align.data.responses import Responses, packed
from bnf_align.fingerprint import namespace_of
from bnf_align.head import HeadCall, ask
from bnf_align.models import evaluation_mode
from bnf_align.records import BadInput, counted, rows_text
from bnf_align.reference.cache import ReferenceCache, Values, default_root, row_key

logger = logging.getLogger(__name__)

SECONDS_PER_SHARD = 30.0
"""How much work a kill may cost."""

EXCHANGED_ROWS = 4096
"""Rows that each process hands to the others at a time: bounds the memory of the exchange."""


@dataclass(frozen=True)
class Forward:
    """How a forward pass runs, in training as in the reference pass.

    The weight of BNF has its kink where policy and reference are equal, so `autocast` on one side alone would bias it
    downwards. Where training is `sharded`, FSDP2 hands weights in the dtype of `autocast` to the layers; without
    `whole` it loads them on the main process alone. `max_tokens` of a micro-batch include padding.
    """

    device: torch.device
    head: str = "fused"
    autocast: torch.dtype | None = None
    packing: bool = False
    sharded: bool = False
    whole: bool = True
    max_tokens: int = 8192
    pad_token_id: int = 0

    @torch.no_grad()
    def __call__(self, model: nn.Module, responses: Responses, rows: Sequence[int]) -> list[np.ndarray]:
        """Of each row one float32 log-probability per scored token; `model` is in evaluation mode."""
        batch = responses.collate(rows, self.pad_token_id)
        batch = packed(batch) if self.packing else batch
        device = next(model.parameters()).device
        call = HeadCall({name: values for name, values in batch.items() if name != "ref_logps"}, device=device)
        with torch.autocast(device.type, dtype=self.autocast, enabled=self.autocast is not None):
            ask(model, {name: values.to(device) for name, values in batch.items()}, call)
        values = call.completions.logps[call.mask].float().cpu().numpy()
        return np.split(values, np.cumsum(call.completions.length.cpu().numpy())[:-1])


@dataclass(frozen=True)
class ReferenceReport:
    """How the reference column came about: `run.json`'s `reference`. Together all scored tokens of all rows."""

    computed_tokens: int
    cached_tokens: int
    namespace: str
    unkept_rows: int = 0
    """Responses that this process computed and could not write to the cache."""

    def as_dict(self) -> dict[str, Any]:
        """As it stands in `run.json`."""
        return asdict(self)


def add_ref_logps(
    parts: Sequence[datasets.Dataset],
    model: PreTrainedModel,
    forward: Forward,
    *,
    cache_dir: str | None = None,
    about: dict[str, Any] | None = None,
) -> tuple[list[datasets.Dataset], ReferenceReport]:
    """Add the column `ref_logps` (float32, one per scored token) to tokenised data sets, all filled in one pass.

    Values come from the cache where it has them. What is missing is shared out between the processes, computed with
    `model` in evaluation mode, written to the cache as it goes, so that a killed pass goes on where it stopped, and
    exchanged through the process group, so that nodes need no common disk.

    Args:
        parts: Training and evaluation rows, KTO's KL rows.
        model: The policy before training, with its head attached; moved only if something is to be computed.
        forward: How training will run it.
        cache_dir: The cache's root; None for the default.
        about: For people who look at the cache.

    Raises:
        BadInput: If something is to be computed and the weights are on the main process alone, or values are not
            finite.
    """
    state = PartialState()
    # The main process speaks for all: under FSDP the others may hold no weights yet.
    ways = {name: getattr(forward, name) for name in ("autocast", "head", "packing", "sharded")}
    own = namespace_of(model, device=forward.device.type, **ways) if state.is_main_process else {}
    namespace = broadcast_object_list([own])[0]
    cache = ReferenceCache(cache_dir or default_root(), namespace, about)
    responses = Responses(datasets.concatenate_datasets(list(parts)))
    keys = [row_key(responses.tokens(row), responses.mask(row)) for row in range(len(responses))]
    first_rows = {key: row for row, key in reversed(list(enumerate(keys)))}

    values = cache.read(first_rows)
    # Nodes may have disks of their own: what one of them lacks is missing.
    lacking = {key for part in gather_object([set(first_rows) - set(values)]) for key in part}
    missing = [row for key, row in first_rows.items() if key in lacking]
    if missing:
        computed = _compute(missing, keys, model, responses, forward, cache)
        values |= _exchanged(computed)
        nodes = state.num_processes // int(os.environ.get("LOCAL_WORLD_SIZE", state.num_processes))
        if nodes > 1 and state.is_local_main_process:  # this node's disk gets what other nodes computed
            _write(cache, {key: values[key] for key in lacking - set(cache.read(lacking))})

    tokens = int(responses.scored[missing].sum())
    report = ReferenceReport(tokens, int(responses.scored.sum()) - tokens, cache.name, cache.unkept)
    rows = iter(keys)
    return [_with_column(part, [values[next(rows)] for _ in range(len(part))]) for part in parts], report


def _compute(
    missing: list[int],
    keys: list[bytes],
    model: PreTrainedModel,
    responses: Responses,
    forward: Forward,
    cache: ReferenceCache,
) -> Values:
    """This process's share of the `missing` rows, computed and written to the cache."""
    if not forward.whole:
        raise BadInput(
            f"{len(missing):,} responses have no reference yet, and fsdp_cpu_ram_efficient_loading leaves the weights "
            "to the main process alone. Fill the cache first, with the same flags: bnf-align reference build --sharded"
        )
    if getattr(model, "hf_device_map", None) is None:  # else its parts are on their devices already
        model.to(forward.device)  # type: ignore[arg-type]
    state = PartialState()
    # The costliest micro-batch comes first, so that a budget too large for the memory fails at once, not at the end.
    items = items_of([(row,) for row in missing], responses.lengths, forward.packing)
    plan = plan_step(items, forward.max_tokens, state.num_processes, forward.packing)[state.process_index]
    micro_batches = [[item.rows[0] for item in cut] for cut in plan if cut]
    total = sum(map(len, micro_batches))
    # One array for all: small ones between the tensors of each forward pass would keep these from being freed.
    room = np.empty(sum(int(responses.scored[row]) for rows in micro_batches for row in rows), dtype=np.float32)
    taken = 0
    computed: Values = {}
    pending: Values = {}
    written = time.monotonic()
    bar = tqdm(
        total=total, desc="Reference log-probabilities", unit="row", disable=not state.is_main_process or not total
    )
    rounded = _rounded_weights(model, forward.autocast) if forward.sharded and forward.autocast else nullcontext()
    try:
        with bar, evaluation_mode(model), rounded:
            for rows in micro_batches:
                logps = forward(model, responses, rows)
                if wrong := [row for row, values in zip(rows, logps, strict=True) if not np.isfinite(values).all()]:
                    raise BadInput(
                        f"The model gives log-probabilities that are NaN or infinite for {rows_text(wrong)} of the "
                        "tokenised responses, so there is no reference to train against; nothing of it is cached. "
                        f"The dtype is {next(model.parameters()).dtype}: try --dtype float32, or check the weights."
                    )
                for row, values in zip(rows, logps, strict=True):
                    pending[keys[row]] = room[taken : taken + len(values)]
                    pending[keys[row]][:] = values
                    taken += len(values)
                bar.update(len(rows))
                if time.monotonic() - written > SECONDS_PER_SHARD:
                    _write(cache, pending)
                    computed |= pending
                    pending, written = {}, time.monotonic()
    finally:
        _write(cache, pending)
    return computed | pending


def _write(cache: ReferenceCache, values: Values) -> None:
    """Keep `values` in the cache; where it cannot be written, say so: this run has them all the same."""
    try:
        cache.write(values)
    except BadInput as error:
        cache.unkept += len(values)
        logger.warning(
            f"The reference cache stays as it is: {error} {counted(len(values), 'row')} used in this run, not kept. "
            "Name a folder that can be written with --ref_cache_dir."
        )


def _exchanged(own: Values) -> Values:
    """The values of all processes together."""
    if PartialState().num_processes == 1:
        return own
    items, values = list(own.items()), dict(own)
    rounds = max(gather_object([-(-len(items) // EXCHANGED_ROWS)]))
    for start in range(0, rounds * EXCHANGED_ROWS, EXCHANGED_ROWS):
        for part in gather_object([items[start : start + EXCHANGED_ROWS]]):
            values.update(part)
    return values


@contextmanager
def _rounded_weights(model: nn.Module, dtype: torch.dtype) -> Iterator[None]:
    """Weights in `dtype` while they are used, layer by layer, as FSDP2 gathers them; buffers stay as they are.

    A rounded copy of the whole model would take half its memory again.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    inside = {module for layer in layers for module in layer.modules()}
    rest = [module for module in model.modules() if module not in inside]  # embedding, last norm, head
    handles = []
    for unit, modules in [(model, rest), *((layer, list(layer.modules())) for layer in layers)]:
        whole = [(m, name, weight) for m in modules for name, weight in m.named_parameters(recurse=False)]

        def swap(_: Any, *__: Any, whole: list[Any] = whole, rounded: bool = False) -> None:
            for module, name, weight in whole:
                if weight.is_floating_point():
                    round_off = nn.Parameter(weight.to(dtype), requires_grad=False) if rounded else weight
                    module.register_parameter(name, round_off)

        handles.append(unit.register_forward_pre_hook(partial(swap, rounded=True)))
        handles.append(unit.register_forward_hook(swap, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _with_column(dataset: datasets.Dataset, values: list[np.ndarray]) -> datasets.Dataset:
    offsets = np.cumsum([0, *map(len, values)])
    flat = np.concatenate(values) if values else np.zeros(0, dtype=np.float32)
    column = pa.LargeListArray.from_arrays(offsets, pa.array(flat, pa.float32()))
    return datasets.Dataset(dataset.with_format("arrow")[:].append_column("ref_logps", column))
