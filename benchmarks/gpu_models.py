"""Whole models on a GPU: training steps of every loss, and how far bfloat16 moves the BNF weight before training.

Models are Llamas with random weights from a config, data are random tokens; neither changes what a step costs. A step
is `training_step`: forward and backward over its micro-batches under bfloat16 autocast, without optimizer.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import datasets
import numpy as np
import torch
from device import Device, compared, milliseconds, rates
from gpu_head import LOSSES
from head import exact, flops
from padding import lengths_of_a_step
from plan_memory import LORA
from protocol import Estimate, bootstrap, median_ratio
from steps import byte_tokenizer, train
from transformers import AutoModelForCausalLM, LlamaConfig

from bnf_align.config import PreferenceConfig
from bnf_align.data.batching import Step, StepDataset
from bnf_align.data.pairing import kl_rows, units
from bnf_align.data.responses import MicroBatch, Responses
from bnf_align.data.tokenize import FEATURES
from bnf_align.head import HeadCall, ask, attach
from bnf_align.losses import LOSSES as SPECS
from bnf_align.losses import bnf_weights
from bnf_align.models import add_adapter, evaluation_mode
from bnf_align.reference.compute import Forward, add_ref_logps
from bnf_align.training.trainer import PreferenceTrainer


class Setting(NamedTuple):
    """A model and the step that it is measured on."""

    config: dict[str, Any]
    dtype: torch.dtype
    lora: bool
    checkpointing: bool
    pairs: int
    length: int
    """Tokens of every response with its prompt, which is a third of it."""
    budget: int
    """Tokens of a micro-batch."""

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return 2 * self.pairs * self.length


class Workplace:
    """A model on a device, with a folder that is gone afterwards."""

    def __init__(self, device: Device, setting: Setting, folder: str) -> None:
        self.device, self.setting, self.folder = device, setting, folder
        torch.manual_seed(0)
        config = LlamaConfig(**setting.config, bos_token_id=None, eos_token_id=1, pad_token_id=0)
        with torch.device(device.name):
            self.model: Any = AutoModelForCausalLM.from_config(config, dtype=setting.dtype)
        if setting.checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        attach(self.model)

    def with_reference(self, responses: datasets.Dataset) -> tuple[Responses, Responses]:
        """Responses and KTO's `kl_rows`, with the log-probabilities of the model as it stands."""
        filled, _ = add_ref_logps(
            [responses, kl_rows(responses, None)],
            self.model,
            Forward(
                torch.device(self.device.name), autocast=torch.bfloat16, max_tokens=self.setting.budget, pad_token_id=0
            ),
            cache_dir=f"{self.folder}/cache",
        )
        return Responses(filled[0]), Responses(filled[1])

    def settings(self, loss: str) -> PreferenceConfig:
        """A run's settings."""
        return PreferenceConfig(
            output_dir=self.folder,
            use_cpu=not self.device.cuda,
            bf16=True,
            loss_type=loss,
            batch_size=self.setting.pairs,
            max_length=self.setting.length,
            report_to="none",
            disable_tqdm=True,
        )

    def trainers(self) -> dict[str, PreferenceTrainer]:
        """One of each loss around the same model, which is trained under autocast from here on."""
        if self.setting.lora:
            self.model = add_adapter(self.model, LORA, self.settings("bnf"))
        made = {
            loss: PreferenceTrainer(self.model, self.settings(loss), processing_class=byte_tokenizer())
            for loss in LOSSES
        }
        made["bnf"].accelerator.prepare_model(self.model)  # what Trainer's loop would do
        return made

    def in_bf16(self, batch: MicroBatch) -> HeadCall:
        """Log-probabilities of a micro-batch, without gradients."""
        batch = {name: values.to(self.device.name) for name, values in batch.items()}
        call = HeadCall(batch)
        with torch.no_grad(), torch.autocast(self.device.name, torch.bfloat16):
            ask(self.model, batch, call)
        return call


@contextmanager
def workplace(device: Device, setting: Setting) -> Iterator[Workplace]:
    """A `Workplace`."""
    with tempfile.TemporaryDirectory() as folder:
        yield Workplace(device, setting, folder)


def random_responses(lengths: np.ndarray, vocabulary: int) -> datasets.Dataset:
    """Tokenised pairs, (pairs, 2) lengths with the prompt, which is a third of the shorter side."""
    random = np.random.default_rng(0)
    rows: dict[str, list[Any]] = {name: [] for name in FEATURES}
    for pair, sides in enumerate(lengths):
        prompt = random.integers(2, vocabulary, max(int(sides.min()) // 3, 1))
        for side, length in enumerate(sides):
            answer = random.integers(2, vocabulary, int(length) - len(prompt))
            ids = np.concatenate([prompt, answer])
            values = (ids, np.arange(len(ids)) >= len(prompt), side == 0, pair, pair, pair, len(ids) - 1)
            for name, value in zip(FEATURES, values, strict=True):
                rows[name].append(value)
    return datasets.Dataset.from_dict(rows, features=FEATURES)


def steps_of(place: Workplace) -> dict[str, Step]:
    """The same responses as one step of each loss."""
    setting = place.setting
    made = random_responses(np.full((setting.pairs, 2), setting.length), setting.config["vocab_size"])
    responses, others = place.with_reference(made)
    ups = Responses(made)
    ups.labels = np.ones_like(ups.labels)  # fine-tuning on all of them: as many tokens as the others have
    found = {}
    for loss in LOSSES:
        dataset = StepDataset(
            ups if SPECS[loss].only else responses,
            units(made),
            keep_pairs=SPECS[loss].pairwise,
            kl_rows=others if SPECS[loss].mismatched else None,
            max_tokens=setting.budget,
            pad_token_id=0,
        )
        found[loss] = dataset.__getitems__(range(setting.pairs))
    return found


def training_steps(device: Device, name: str, setting: Setting, rounds: int, ceiling: int) -> dict[str, Estimate]:
    """Time of a step of each loss, share of the matmul ceiling, peak memory with AdamW's states."""
    with workplace(device, setting) as place:
        steps = steps_of(place)
        trainers = place.trainers()
        calls: dict[str, Callable[[], Any]] = {
            loss: partial(train, trainers[loss], [step]) for loss, step in steps.items()
        }
        reference = partial(reference_pass, place, steps["bnf"])
        seconds = device.seconds({**calls, "again": calls["bnf"], "reference": reference}, rounds)
        passes = seconds.pop("reference")
        found, most = compared(name, seconds), device.ceiling(ceiling).figure
        found |= {f"{name}-ms-reference": milliseconds(passes)}
        found |= {f"{name}-reference-pass": median_ratio(passes, seconds["bnf"])}
        found |= {f"{name}-tokens-bnf": rates(setting.tokens, seconds["bnf"])}
        for loss, call in calls.items():
            found[f"{name}-ceiling-{loss}"] = rates(flops(call) / most, seconds[loss])
        return found | peaks(name, place, calls)


def reference_pass(place: Workplace, step: Step) -> None:
    """The forward passes of the reference, once over the step."""
    with evaluation_mode(place.model):
        for batch in step.micro_batches:
            place.in_bf16(batch)


def peaks(name: str, place: Workplace, calls: dict[str, Callable[[], Any]]) -> dict[str, Estimate]:
    """The rows NAME-memory-LOSS: weights, gradients, AdamW's states and activations together."""
    trained = [parameter for parameter in place.model.parameters() if parameter.requires_grad]
    # A rate of 0: the weights stay those of the reference, so every loss finds the same model.
    optimizer = torch.optim.AdamW(trained, lr=0.0, weight_decay=0.0, fused=True)

    def whole(call: Callable[[], Any]) -> None:
        call()
        optimizer.step()

    whole(calls["bnf"])  # makes the states
    return {
        f"{name}-memory-{loss}": exact(place.device.peak(partial(whole, call)) / 2**20) for loss, call in calls.items()
    }


def first_weights(device: Device, setting: Setting, sharpness: float, batch: int) -> dict[str, Estimate]:
    """Mean BNF weight and mean |log pi - log r| before the first step, where both would be 1 and 0 without rounding.

    The reference comes from batches sorted by length. The policy sees the same batches again; or as many rows at a
    time in random order, padded.

    Args:
        device: Where.
        setting: The model; of a step only pairs and budget count, lengths are those of padding.py.
        sharpness: Factor of the final norm: random weights give flat logits, trained ones do not.
        batch: Rows of a padded batch.
    """
    random = np.random.default_rng(0)
    with workplace(device, setting) as place:
        with torch.no_grad():
            place.model.base_model.norm.weight.mul_(sharpness)
        lengths = np.concatenate([lengths_of_a_step(random) for _ in range(-(-setting.pairs // 128))])[: setting.pairs]
        lengths = np.minimum(lengths, setting.length).clip(4)
        made = random_responses(lengths, setting.config["vocab_size"])
        responses, _ = place.with_reference(made)
        sorted_rows = StepDataset(
            responses, units(made), keep_pairs=False, kl_rows=None, max_tokens=setting.budget, pad_token_id=0
        ).__getitems__(range(setting.pairs))
        order = random.permutation(len(responses))
        padded = [responses.collate(rows.tolist(), 0) for rows in np.split(order, range(batch, len(order), batch))]
        found = {}
        for name, batches in (("sorted", sorted_rows.micro_batches), ("padded", padded)):
            sums = np.concatenate([sums_of(place.in_bf16(one)) for one in batches])
            found[f"weight-{name}"] = bootstrap(sums, partial(mean_over_tokens, column=0))
            found[f"difference-{name}"] = bootstrap(sums, partial(mean_over_tokens, column=1))
        return found


def sums_of(call: HeadCall) -> np.ndarray:
    """(rows, 3): the sum of the weights, of |log pi - log r|, and the scored tokens of each response."""
    found = call.completions
    weights, differences = bnf_weights(found.logps, found.reference()), (found.logps - found.reference()).abs()
    return torch.stack([found.sum(weights), found.sum(differences), found.length], dim=1).double().cpu().numpy()


def mean_over_tokens(sums: np.ndarray, column: int) -> float:
    """Of `sums_of`."""
    return sums[:, column].sum() / sums[:, 2].sum()
