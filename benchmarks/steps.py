"""Training steps: BNF against fine-tuning, and against TRL's SFTTrainer, DPOTrainer and KTOTrainer.

    python benchmarks/steps.py [steps] [epochs] [reference]

Both sides get the same text, model, dtype and optimizer step. A side's call is `training_step` over its own collated
batches, so forward and backward, without optimizer and data loader. Useful tokens are those of prompt and completion
without padding; they are equal on both sides, which is checked, so tokens per second compare as seconds do.

Writes the rows time-*, tokens-*, reference-pass, one-epoch-cold and noise-floor of `results/claims.csv`.
"""

from __future__ import annotations

import copy
import itertools
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from costs import write_costs
from datasets import Dataset
from protocol import median_ratio, paired_seconds, write_claim
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerFast, Trainer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from bnf_align.config import PreferenceConfig
from bnf_align.data.prepare import checked_rows, tokenized
from bnf_align.reference.compute import Forward, add_ref_logps
from bnf_align.training.trainer import PreferenceTrainer

SIZES = {"hidden_size": 256, "num_hidden_layers": 4, "intermediate_size": 1024, "num_attention_heads": 4}
VOCABULARY, LONGEST = 32_000, 1024
TRL_BATCH = 4
EQUAL_ROWS, EQUAL_PROMPT, EQUAL_COMPLETION = 2, 85, 171
PAIRS, PROMPT, RESPONSE, WITHIN_PAIR = 16, (25, 1.0), (50, 0.75), 0.45
"""Lognormal (median, sigma) of the lengths of padding.py, a fifth as long."""
STEP_ROUNDS, EPOCH_ROUNDS, REFERENCE_ROUNDS = 120, 6, 8
REFERENCE_PAIRS, REFERENCE_STEP = 64, 32
"""The reference pass is compared with a whole epoch of `train()`, optimizer and loader included, in steps of 32 pairs:
it has its own files and hashes, once per run, in it as well."""

Row = dict[str, Any]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Every byte is a token, so a length in characters is a length in tokens."""
    alphabet = {token: i for i, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(alphabet, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<pad>", "<eos>"])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


def small_llama(vocabulary: int = VOCABULARY, **sizes: int) -> PreTrainedModel:
    """Random weights, the same in every call."""
    torch.manual_seed(0)
    ids = {"bos_token_id": None, "eos_token_id": 257, "pad_token_id": 256}
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **{**SIZES, **sizes}, **ids))


def text(random: np.random.Generator, length: int) -> str:
    """Random letters."""
    return "".join(map(chr, random.integers(ord("a"), ord("z") + 1, int(length))))


def equal_rows(random: np.random.Generator, count: int, prompt: int, completion: int) -> list[Row]:
    """Preferred responses of one length, so that padding decides nothing. The end token comes on top."""
    return [{"prompt": text(random, prompt), "completion": text(random, completion - 1)} for _ in range(count)]


def pairs(random: np.random.Generator, count: int) -> list[Row]:
    """Pairs with lognormal lengths; `length`, the longer side's, is what TRL groups by."""
    rows = []
    for prompt in random.lognormal(np.log(PROMPT[0]), PROMPT[1], count):
        shared = random.lognormal(np.log(RESPONSE[0]), RESPONSE[1])
        sides = shared * random.lognormal(0, WITHIN_PAIR, 2)
        lengths = np.clip([prompt, *sides], 4, LONGEST // 3).astype(int)
        row: Row = dict(zip(("prompt", "chosen", "rejected"), (text(random, n) for n in lengths), strict=True))
        rows.append(row | {"length": int(lengths[0] + lengths[1:].max())})
    return rows


def unpaired(rows: Sequence[Row], random: np.random.Generator) -> list[Row]:
    """The responses of `rows` one by one, in random order."""
    sides = (("chosen", True), ("rejected", False))
    single = [{"prompt": r["prompt"], "completion": r[side], "label": up} for r in rows for side, up in sides]
    return [single[i] for i in random.permutation(len(single))]


COMMON = {"max_length": LONGEST, "use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True}


class Bench:
    """One model, one folder, and from them a trainer of either side as a call over its batches."""

    def __init__(self, model: PreTrainedModel, folder: Path) -> None:
        self.model, self.folder, self.tokenizer = model, folder, byte_tokenizer()
        self.numbers = itertools.count()

    def _folder(self) -> str:
        return str(self.folder / str(next(self.numbers)))

    def config(self, loss: str, units: int) -> PreferenceConfig:
        """Our settings: `units` rows are one optimizer step; the token budget is the default."""
        folder = self._folder()
        return PreferenceConfig(
            output_dir=folder,
            ref_cache_dir=f"{folder}/cache",
            loss_type=loss,
            batch_size=units,
            save_strategy="no",
            **COMMON,
        )

    def epoch(self, loss: str, rows: list[Row], units: int) -> Callable[[], Any]:
        """A whole epoch of our trainer over `rows`, as a user runs it; the reference is there already."""
        trainer = PreferenceTrainer(
            copy.deepcopy(self.model), self.config(loss, units), train_dataset=rows, processing_class=self.tokenizer
        )
        return trainer.train

    def ours(self, loss: str, rows: list[Row]) -> tuple[Callable[[], None], int]:
        """Our trainer over `rows`: its call, and the tokens of it without padding."""
        config = self.config(loss, len(rows))
        trainer = PreferenceTrainer(
            copy.deepcopy(self.model), config, train_dataset=rows, processing_class=self.tokenizer
        )
        batches = list(trainer.get_train_dataloader())
        return partial(train, trainer, batches), count_tokens(b for step in batches for b in step.micro_batches)

    def trl(self, trainer_class: Any, config_class: Any, rows: list[Row], **settings: Any) -> Any:
        """A TRL trainer over `rows`: its call, and the tokens of it without padding."""
        reference = settings.pop("reference", False)
        config = config_class(
            output_dir=self._folder(), gradient_checkpointing=False, dataloader_pin_memory=False, **COMMON, **settings
        )
        trainer = trainer_class(
            copy.deepcopy(self.model),
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=self.tokenizer,
            **({"ref_model": copy.deepcopy(self.model)} if reference else {}),
        )
        batches = list(trainer.get_train_dataloader())
        # What Trainer's loop sets: the batches are one optimizer step, as on our side.
        trainer.current_gradient_accumulation_steps = len(batches)
        return partial(train, trainer, batches), count_tokens(batches)

    def reference_pass(self, rows: list[Row]) -> Callable[[], None]:
        """The reference of `rows` into an empty cache: hashes, forward passes, files."""
        config = self.config("bnf", len(rows))
        dataset = tokenized(*checked_rows("train", rows, config), self.tokenizer, config)
        trainer = PreferenceTrainer(copy.deepcopy(self.model), config, processing_class=self.tokenizer)

        def call() -> None:
            add_ref_logps(
                [dataset],
                trainer.model,
                Forward(
                    config.device,
                    max_tokens=config.max_tokens_per_micro_batch,
                    pad_token_id=self.tokenizer.pad_token_id,
                ),
                cache_dir=self._folder(),
            )

        return call


def train(trainer: Trainer, batches: Sequence[Any]) -> None:
    """Forward and backward over all batches."""
    trainer.model.zero_grad()
    for batch in batches:
        trainer.training_step(trainer.model, batch)


def count_tokens(batches: Any) -> int:
    """Tokens that are not padding."""
    return sum(int(batch["attention_mask"].sum()) for batch in batches)


def step_calls(bench: Bench, rows: list[Row]) -> tuple[dict[str, Callable[[], None]], int]:
    """One step on the same rows: BNF twice (the noise floor), our SFT and TRL's; and its tokens."""
    labelled = [row | {"label": True} for row in rows]
    found = {
        "bnf": bench.ours("bnf", labelled),
        "sft": bench.ours("sft", labelled),
        "trl sft": bench.trl(
            SFTTrainer, SFTConfig, rows, per_device_train_batch_size=len(rows), completion_only_loss=True
        ),
    }
    return _checked(found | {"bnf again": found["bnf"]})


def epoch_calls(bench: Bench, rows: list[Row]) -> tuple[dict[str, Callable[[], None]], int]:
    """One epoch on the same responses: ours, TRL's DPO and KTO, and our reference pass; and its tokens."""
    responses = unpaired(rows, np.random.default_rng(1))
    dpo = partial(bench.trl, DPOTrainer, DPOConfig, rows, per_device_train_batch_size=TRL_BATCH)
    kto = partial(bench.trl, KTOTrainer, KTOConfig, responses, per_device_train_batch_size=TRL_BATCH)
    grouped = {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False}
    found = {
        "bnf": bench.ours("bnf", rows),
        "dpo-memory": dpo(reference=True),
        "dpo-precomputed": dpo(precompute_ref_log_probs=True),
        "dpo-grouped": dpo(precompute_ref_log_probs=True, **grouped),
        "kto-memory": kto(reference=True),
        "kto-precomputed": kto(precompute_ref_log_probs=True),
    }
    calls, tokens = _checked(found)
    return calls | {"reference": bench.reference_pass(rows)}, tokens


def _checked(found: dict[str, tuple[Callable[[], None], int]]) -> tuple[dict[str, Callable[[], None]], int]:
    tokens = {count for _, count in found.values()}
    assert len(tokens) == 1, f"the sides have different tokens: { {name: n for name, (_, n) in found.items()} }"
    return {name: call for name, (call, _) in found.items()}, tokens.pop()


def measured(calls: dict[str, Callable[[], None]], rounds: int, warm_up: int = 1) -> dict[str, np.ndarray]:
    """CPU seconds of every call in every round."""
    return dict(zip(calls, paired_seconds(*calls.values(), rounds=rounds, warm_up=warm_up).T, strict=True))


def write_steps(seconds: dict[str, np.ndarray], tokens: int, **where: Any) -> None:
    """The rows time-bnf-sft, time-bnf-trl-sft and noise-floor."""
    setting = f"CPU time of a step, {{}}; {tokens} tokens in rows of one length, {len(seconds['bnf'])} rounds"
    for claim_id, other, name, threshold in (
        ("time-bnf-sft", "sft", "BNF over our SFT", "high <= 1.02"),
        ("time-bnf-trl-sft", "trl sft", "BNF over TRL's SFTTrainer", "high <= 1"),
        ("noise-floor", "bnf again", "BNF over itself (A/A)", "reported"),
    ):
        write_claim(claim_id, setting.format(name), median_ratio(seconds["bnf"], seconds[other]), threshold, **where)


BASELINES = {
    "dpo-memory": ("DPOTrainer, reference in memory", 2.0),
    "dpo-precomputed": ("DPOTrainer, reference precomputed", 1.5),
    "dpo-grouped": ("DPOTrainer, reference precomputed, batches grouped by length", 1.1),
    "kto-memory": ("KTOTrainer, reference in memory", 2.5),
    "kto-precomputed": ("KTOTrainer, reference precomputed", 1.8),
}


def write_epochs(seconds: dict[str, np.ndarray], tokens: int, **where: Any) -> None:
    """The rows tokens-* and one-epoch-cold."""
    ours, rounds = seconds["bnf"], len(seconds["bnf"])
    rate = tokens / np.median(ours)
    for name, (words, threshold) in BASELINES.items():
        theirs = tokens / np.median(seconds[name])
        claim = (
            f"useful tokens per CPU second, BNF ({rate:.0f}) over TRL's {words}, batch {TRL_BATCH} ({theirs:.0f}); "
            f"{tokens} tokens, {rounds} rounds"
        )
        write_claim(f"tokens-{name}", claim, median_ratio(seconds[name], ours), f"low >= {threshold}", **where)
    cold = median_ratio(seconds["reference"] + ours, seconds["dpo-memory"])
    claim = (
        f"CPU time of an epoch of BNF with a cold cache over TRL's DPOTrainer, reference in memory; {rounds} rounds"
    )
    write_claim("one-epoch-cold", claim, cold, **where)


def reference_calls(bench: Bench, rows: list[Row], units: int) -> dict[str, Callable[[], Any]]:
    """The reference pass over `rows` with an empty cache, and an epoch of training on them."""
    return {"reference": bench.reference_pass(rows), "epoch": bench.epoch("bnf", rows, units)}


def write_reference(seconds: dict[str, np.ndarray], pairs_in_it: int, **where: Any) -> None:
    """The row reference-pass."""
    claim = (
        "CPU time of the reference pass, hashes and cache files included, over an epoch of train(), optimizer and "
        f"loader included; {pairs_in_it} pairs, {len(seconds['epoch'])} rounds"
    )
    ratio = median_ratio(seconds["reference"], seconds["epoch"])
    write_claim("reference-pass", claim, ratio, "high <= 0.36", **where)


PARTS = ("steps", "epochs", "reference")


def main(parts: Sequence[str] = PARTS) -> None:
    """Time and write `parts`; the shorter measurement comes first."""
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(small_llama(), Path(folder))
        equal, sixteen = equal_rows(random, EQUAL_ROWS, EQUAL_PROMPT, EQUAL_COMPLETION), pairs(random, PAIRS)
        if "steps" in parts:
            calls, tokens = step_calls(bench, equal)
            write_steps(measured(calls, STEP_ROUNDS), tokens)
        if "epochs" in parts:
            calls, tokens = epoch_calls(bench, sixteen)
            write_epochs(measured(calls, EPOCH_ROUNDS, warm_up=0), tokens)  # an epoch warms itself up
        if "reference" in parts:
            rows = pairs(np.random.default_rng(2), REFERENCE_PAIRS)
            write_reference(measured(reference_calls(bench, rows, REFERENCE_STEP), REFERENCE_ROUNDS), len(rows))
        write_costs()


if __name__ == "__main__":
    main(sys.argv[1:] or PARTS)
