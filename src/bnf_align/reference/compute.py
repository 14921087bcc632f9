"""The reference pass: one float32 per scored token, computed once per content and kept in the cache.

The reference is the model as it stands before training. It is a column of the data, never a second model in memory.
"""

from __future__ import annotations

import copy
import json
import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from bnf_align.data.micro_batches import items_of, plan_step
from bnf_align.data.responses import Responses, packed
from bnf_align.fingerprint import weights_hash
from bnf_align.head import HeadCall, ask
from bnf_align.models import evaluation_mode
from bnf_align.records import BadInput
from bnf_align.reference.cache import ReferenceCache, default_root, digest, row_key
from bnf_align.training.sharding import asked_for, loads_on_main_process_alone

if TYPE_CHECKING:
    from bnf_align.reference.cluster import ReferenceWorkers

logger = logging.getLogger(__name__)

HEAD_VERSION = 1
"""Raise it whenever `head` would give other values for the same model and tokens."""

SECONDS_PER_SHARD = 30.0
"""How much work a kill may cost."""

# Names, versions and settings that say nothing about the values of a forward pass in evaluation mode.
IGNORED_CONFIG = re.compile(r"_name_or_path|transformers_version|dtype|use_cache|dropout|pdrop|(bos|eos|pad)_token_id")


@dataclass(frozen=True)
class ReferenceReport:
    """How the reference column came about: `run.json`'s `reference`. Together all scored tokens of all rows."""

    computed_tokens: int
    cached_tokens: int
    namespace: str

    def as_dict(self) -> dict[str, Any]:
        """As it stands in `run.json`."""
        return asdict(self)


def namespace_of(
    model: PreTrainedModel, autocast: torch.dtype | None, head: str, packing: bool = False
) -> dict[str, Any]:
    """Everything besides the tokens that reference values depend on."""
    config = {key: value for key, value in model.config.to_dict().items() if not IGNORED_CONFIG.search(key)}
    return {
        "head": f"{head}-{HEAD_VERSION}",
        "weights": weights_hash(model),
        "config": digest(json.dumps(config, sort_keys=True, default=str).encode()),
        "dtype": str(next(model.parameters()).dtype),
        # FSDP2 hands the forward pass weights of this dtype, autocast leaves them and rounds what is multiplied.
        "autocast": f"{autocast} weights" if autocast is not None and asked_for() else str(autocast),
        # Packed rows may take another kernel than padded ones, and policy and reference must round alike.
        "attention": str(getattr(model.config, "_attn_implementation", None)) + (" packed" if packing else ""),
    }


def add_ref_logps(
    parts: Sequence[datasets.Dataset],
    model: PreTrainedModel,
    *,
    device: torch.device,
    cache_dir: str | None,
    max_tokens: int,
    pad_token_id: int,
    autocast: torch.dtype | None = None,
    head: str = "fused",
    packing: bool = False,
    about: dict[str, Any] | None = None,
    workers: ReferenceWorkers | None = None,
) -> tuple[list[datasets.Dataset], ReferenceReport]:
    """Add the column `ref_logps` (float32, one per scored token) to tokenised responses.

    Values come from the cache where it has them; the rest is computed with `model` in evaluation mode, each process
    its share, and written to the cache as it goes, so a killed pass goes on where it stopped.

    Args:
        parts: Tokenised data sets (training, evaluation, KTO's mismatched rows), all filled in one pass.
        model: The reference: the policy before training, with `head` attached.
        device: Where to compute; the model is moved there only if something is to be computed.
        cache_dir: The cache's root; None for the default.
        max_tokens: Tokens in one forward pass, padding included.
        pad_token_id: Any valid token id.
        autocast: The dtype that training will autocast to. Policy and reference must agree: the weight of BNF has its
            kink where they are equal, so rounding on one side alone biases it downwards.
        head: The head's implementation, which policy and reference must share too.
        packing: Responses stand one after another in one row, as they will in training.
        about: For people who look at the cache.
        workers: Who computes what is missing, where it is not to be this process; they have the model too.

    Raises:
        BadInput: If something is to be computed and the weights are on the main process alone.
    """
    # The main process speaks for all: under FSDP the others may hold no weights yet.
    namespace = [namespace_of(model, autocast, head, packing)] if PartialState().is_main_process else [{}]
    cache = ReferenceCache(cache_dir or default_root(), broadcast_object_list(namespace)[0], about)
    responses = Responses(datasets.concatenate_datasets(list(parts)))
    keys = [_key(responses, row) for row in range(len(responses))]
    first_rows = {key: row for row, key in reversed(list(enumerate(keys)))}

    values = cache.read(first_rows)
    missing = [row for key, row in first_rows.items() if key not in values]
    state = PartialState()
    state.wait_for_everyone()  # every process has looked before any of them writes
    if missing:
        policy = model if workers else as_trained(model, device, autocast, len(missing))
        forward = Forward(head, pad_token_id, autocast, packing)
        reference_pass = _ReferencePass(policy, responses, keys, cache, max_tokens, forward, workers)
        reference_pass.compute(missing, state.process_index, state.num_processes)
    state.wait_for_everyone()
    if missing:
        # On nodes without a common disk the others' shares are not here: a second look computes them too.
        values = cache.read(first_rows)
        reference_pass.compute([row for key, row in first_rows.items() if key not in values], 0, 1)
        values = cache.read(first_rows)

    computed = sum(int(responses.mask(row).sum()) for row in missing)
    report = ReferenceReport(computed, int(responses.masks.sum()) - computed, cache.name)
    rows = iter(keys)
    return [_with_column(part, [values[next(rows)] for _ in range(len(part))]) for part in parts], report


def as_trained(
    model: PreTrainedModel, device: torch.device, autocast: torch.dtype | None, missing: int
) -> PreTrainedModel:
    """`model` on `device`, with its weights rounded where training will round them."""
    if loads_on_main_process_alone():
        raise BadInput(
            f"{missing:,} responses have no reference yet, and fsdp_cpu_ram_efficient_loading leaves the weights to "
            "the main process alone. Fill the cache first, with the same flags: bnf-align reference build --sharded"
        )
    if getattr(model, "hf_device_map", None) is None:  # else its parts are on their devices already
        model.to(device)  # type: ignore[arg-type]
    if autocast is None or not asked_for():
        return model
    rounded = copy.deepcopy(model)
    for parameter in rounded.parameters():  # FSDP2 leaves buffers as they are
        parameter.data = parameter.data.to(autocast)
    return rounded


def _key(responses: Responses, row: int) -> bytes:
    return row_key(responses.tokens(row), responses.mask(row))


def _with_column(dataset: datasets.Dataset, values: list[np.ndarray]) -> datasets.Dataset:
    offsets = np.cumsum([0, *map(len, values)])
    flat = np.concatenate(values) if values else np.zeros(0, dtype=np.float32)
    column = pa.LargeListArray.from_arrays(offsets, pa.array(flat, pa.float32()))
    return datasets.Dataset(dataset.with_format("arrow")[:].append_column("ref_logps", column))


@dataclass(frozen=True)
class Forward:
    """A forward pass over responses; the same values wherever it is computed."""

    head: str
    pad_token_id: int
    autocast: torch.dtype | None
    packing: bool

    @torch.no_grad()
    def __call__(self, model: PreTrainedModel, responses: Responses, rows: Sequence[int]) -> list[np.ndarray]:
        """Of each row one float32 per scored token. `model` has its head attached and is in evaluation mode."""
        device = next(model.parameters()).device
        batch = responses.collate(rows, self.pad_token_id)
        batch = packed(batch) if self.packing else batch
        batch = {k: v.to(device) for k, v in batch.items() if k != "ref_logps"}
        with torch.autocast(device.type, dtype=self.autocast, enabled=self.autocast is not None):
            call = HeadCall(batch)
            ask(model, batch, call)
        values = call.completions.logps[call.mask].float().cpu().numpy()
        return np.split(values, np.cumsum(call.completions.length.cpu().numpy())[:-1])


Filed = dict[bytes, np.ndarray]


@dataclass(frozen=True)
class _ReferencePass:
    """What the forward passes over a set of responses have in common."""

    model: PreTrainedModel
    responses: Responses
    keys: list[bytes]
    cache: ReferenceCache
    max_tokens: int
    forward: Forward
    workers: ReferenceWorkers | None = None

    def compute(self, rows: list[int], rank: int, world: int) -> None:
        """Compute and store this process's share of `rows`."""
        # The costliest cut comes first, so that a budget too large for the memory fails at once, not at the end.
        items = items_of([(row,) for row in rows], self.responses.lengths, self.forward.packing)
        plan = plan_step(items, self.max_tokens, world, self.forward.packing)[rank]
        cuts = [[item.rows[0] for item in cut] for cut in plan if cut]
        total = sum(map(len, cuts))
        pending: Filed = {}
        written = time.monotonic()
        bar = tqdm(total=total, desc="Reference log-probabilities", unit="row", disable=rank > 0 or not total)
        try:
            with bar, evaluation_mode(self.model):
                for values in self._values(cuts):
                    pending |= values
                    bar.update(len(values))
                    if time.monotonic() - written > SECONDS_PER_SHARD:
                        self.cache.write(pending)
                        pending, written = {}, time.monotonic()
        finally:
            self.cache.write(pending)

    def _values(self, cuts: Sequence[list[int]]) -> Iterator[Filed]:
        if self.workers is None:
            return map(self._forward, cuts)
        answers = self.workers.values(self.responses, cuts, self.forward, self.cache.name)
        return (self._filed(rows, values) for rows, values in answers)

    def _forward(self, rows: list[int]) -> Filed:
        return self._filed(rows, self.forward(self.model, self.responses, rows))

    def _filed(self, rows: Sequence[int], values: Iterable[np.ndarray]) -> Filed:
        return {self.keys[row]: logps for row, logps in zip(rows, values, strict=True)}
