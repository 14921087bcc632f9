"""Each baseline equals its origin: TRL's own trainers compute their loss on the same token ids, float32."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from torch import Tensor
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.experimental.cpo import CPOConfig, CPOTrainer
from trl.experimental.orpo import ORPOConfig, ORPOTrainer

from bnf_align.logps import completion_logps
from bnf_align.losses import (
    CompletionLogps,
    apo_zero,
    bco,
    dpo,
    dpo_norm,
    ipo,
    kto,
    kto_kl,
    orpo,
    rpo,
    simpo,
    slic_hf,
)
from rounding import ROUNDING
from tiny_models import byte_tokenizer
from tiny_nets import perturbed, tiny_llama

pytestmark = pytest.mark.golden

PAIRS = [
    {"prompt": "2 + 2 = ", "chosen": "4", "rejected": "five, I believe"},
    {"prompt": "Name a colour: ", "chosen": "blue or green", "rejected": "no"},
    {"prompt": "Say it: ", "chosen": "it", "rejected": "at"},
    {"prompt": "Who? ", "chosen": "A long answer with words", "rejected": "A long answer with swords"},
    {"prompt": "Once upon ", "chosen": "a time.", "rejected": "an island far away"},
]
SINGLES = [
    {"prompt": row["prompt"], "completion": row["chosen" if up else "rejected"], "label": up}
    for row, up in zip(PAIRS, [True, False, False, True, False], strict=True)
]


@pytest.fixture
def policy():
    return perturbed(tiny_llama(), scale=0.2)


@pytest.fixture
def reference():
    return tiny_llama()


@pytest.fixture
def trl_batch(tmp_path: Path):
    """A function: trainer class, its config class and what they take -> the trainer and its first batch, all rows."""

    def build(trainer_class, config_class, rows, model, ref_model=None, **config):
        args = config_class(
            output_dir=str(tmp_path),
            per_device_train_batch_size=len(rows),
            report_to="none",
            use_cpu=True,
            bf16=False,
            **config,
        )
        # With BOS: without one an empty prompt leaves the first token of a completion without a prediction.
        tokenizer = byte_tokenizer(["<s>", "</s>"], bos_token="<s>", eos_token="</s>", pad_token="</s>")
        reference = {} if ref_model is None else {"ref_model": ref_model}
        trainer = trainer_class(
            model=model, args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer, **reference
        )
        return trainer, next(iter(trainer.get_train_dataloader()))

    return build


def scored(policy, reference, ids: Tensor, attention_mask: Tensor, completion_mask: Tensor) -> CompletionLogps:
    """What our losses are fed with, from the token ids of TRL's batch."""
    batch = {"input_ids": ids, "attention_mask": attention_mask, "completion_mask": completion_mask.bool()}
    if reference is not None:
        with torch.no_grad():
            batch["ref_logps"] = completion_logps(reference, batch).logps
    return completion_logps(policy, batch)


def scored_pairs(policy, batch: dict[str, Tensor]) -> tuple[CompletionLogps, CompletionLogps]:
    """The same for the batches of CPO and ORPO, which hold chosen and rejected apart."""
    chosen, rejected = (
        scored(policy, None, batch[f"{k}_input_ids"], batch[f"{k}_attention_mask"], batch[f"{k}_labels"] != -100)
        for k in ("chosen", "rejected")
    )
    return chosen, rejected


def assert_same_loss_and_gradient(model, ours: Tensor, theirs: Tensor) -> None:
    """To rounding; the gradient as one vector over all parameters."""
    torch.testing.assert_close(ours, theirs, rtol=ROUNDING, atol=ROUNDING)
    one, other = (
        torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
        for loss in (ours, theirs)
    )
    assert (one - other).norm() < ROUNDING * other.norm()


@pytest.mark.parametrize(
    ("loss_type", "beta", "function"),
    [
        ("sigmoid", 0.3, lambda *pair: dpo(*pair, beta=0.3)),
        ("ipo", 0.2, lambda *pair: ipo(*pair, tau=0.2)),
        ("sigmoid_norm", 3.0, lambda *pair: dpo_norm(*pair, beta=3.0)),
    ],
)
def test_dpo_ipo_and_dpo_norm_equal_trls_dpo_trainer(trl_batch, policy, reference, loss_type, beta, function):
    trainer, batch = trl_batch(DPOTrainer, DPOConfig, PAIRS, policy, reference, loss_type=[loss_type], beta=beta)
    pairs = scored(policy, reference, batch["input_ids"], batch["attention_mask"], batch["completion_mask"]).halves()
    assert_same_loss_and_gradient(policy, function(*pairs).mean(), trainer.compute_loss(policy, batch))


@pytest.mark.parametrize(
    ("loss_type", "function"),
    [
        ("apo_zero", lambda y, label: apo_zero(y, label, beta=0.3)),
        ("bco_pair", lambda y, label: bco(y, label, torch.tensor(0.0), beta=0.3)),
    ],
)
def test_apo_zero_and_bco_on_pairs_are_half_of_trls_which_sums_over_the_two(
    trl_batch, policy, reference, loss_type, function
):
    """TRL's `bco_pair` has no delta; its BCOTrainer, which has one, is gone since 1.14."""
    trainer, batch = trl_batch(DPOTrainer, DPOConfig, PAIRS, policy, reference, loss_type=[loss_type], beta=0.3)
    both = scored(policy, reference, batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    label = torch.arange(2 * len(PAIRS)) < len(PAIRS)
    assert_same_loss_and_gradient(policy, 2 * function(both, label).mean(), trainer.compute_loss(policy, batch))


def test_apo_zero_equals_trls_kto_trainer_on_single_responses(trl_batch, policy, reference):
    config = {"loss_type": "apo_zero_unpaired", "beta": 0.3}
    trainer, batch = trl_batch(KTOTrainer, KTOConfig, SINGLES, policy, reference, **config)
    y = scored(policy, reference, batch["input_ids"], batch["attention_mask"], batch["completion_mask"])
    ours = apo_zero(y, batch["label"].bool(), beta=0.3).mean()
    assert_same_loss_and_gradient(policy, ours, trainer.compute_loss(policy, batch))


@pytest.mark.parametrize(
    ("config", "function"),
    [
        ({"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.4]}, lambda *pair: rpo(*pair, beta=0.3, alpha=0.4)),
        ({"loss_type": ["aot"], "label_smoothing": 0.2}, lambda *pair: dpo(*pair, beta=0.3, label_smoothing=0.2)),
    ],
    ids=["dpo with nll", "conservative dpo"],
)
def test_on_one_pair_rpo_and_conservative_dpo_equal_trls_dpo_trainer(trl_batch, policy, reference, config, function):
    """One, because TRL averages the NLL over the tokens of the batch, and sorts the margins that `aot` smooths."""
    trainer, batch = trl_batch(DPOTrainer, DPOConfig, PAIRS[1:2], policy, reference, beta=0.3, **config)
    pairs = scored(policy, reference, batch["input_ids"], batch["attention_mask"], batch["completion_mask"]).halves()
    assert_same_loss_and_gradient(policy, function(*pairs).mean(), trainer.compute_loss(policy, batch))


@pytest.mark.parametrize("clamped", [False, True])
def test_kto_equals_trls_kto_trainer_with_z0_from_completions_rotated_by_one(trl_batch, policy, reference, clamped):
    """With the models exchanged the log-ratios change sign, so in one of the two runs z0 is clamped at 0."""
    if clamped:
        policy, reference = reference, policy
    weights = {"beta": 0.3, "desirable_weight": 1.3, "undesirable_weight": 0.7}
    trainer, batch = trl_batch(KTOTrainer, KTOConfig, SINGLES, policy, reference, **weights)
    assert batch["label"].tolist() == [row["label"] for row in SINGLES]

    def part(prefix: str) -> CompletionLogps:
        return scored(
            policy, reference, *(batch[prefix + k] for k in ("input_ids", "attention_mask", "completion_mask"))
        )

    completions, mismatched = part(""), part("KL_")
    rotated = [batch["KL_input_ids"][i][mask].tolist() for i, mask in enumerate(mismatched.mask)]
    own = [batch["input_ids"][i][mask].tolist() for i, mask in enumerate(completions.mask)]
    assert rotated == own[-1:] + own[:-1]
    kl = kto_kl(mismatched).mean()
    assert (kl < 0) == clamped, "the two runs must stand on both sides of the clamp"
    ours = kto(completions, batch["label"].bool(), kl.clamp(min=0), **weights).mean()
    assert_same_loss_and_gradient(policy, ours, trainer.compute_loss(policy, batch))


def test_simpo_equals_trls_cpo_trainer(trl_batch, policy):
    """TRL writes the margin as gamma/beta inside beta: the same number."""
    config = {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.0, "simpo_gamma": 0.8}
    trainer, batch = trl_batch(CPOTrainer, CPOConfig, PAIRS, policy, **config)
    ours = simpo(*scored_pairs(policy, batch), beta=2.0, gamma=0.8).mean()
    assert_same_loss_and_gradient(policy, ours, trainer.compute_loss(policy, batch))


def test_the_hinge_of_slic_hf_is_delta_times_trls_cpo_hinge_at_beta_1_over_delta(trl_batch, policy):
    delta = 8.0
    config = {"loss_type": "hinge", "cpo_alpha": 0.0, "beta": 1 / delta}
    trainer, batch = trl_batch(CPOTrainer, CPOConfig, PAIRS, policy, **config)
    ours = slic_hf(*scored_pairs(policy, batch), delta=delta, lam=0.0)
    assert 0 < (ours > 0).sum() < len(PAIRS), "some hinges open, some closed"
    assert_same_loss_and_gradient(policy, ours.mean(), delta * trainer.compute_loss(policy, batch))


def test_the_odds_ratio_term_of_orpo_equals_trls(trl_batch, policy):
    """The whole of TRL's loss is that term and an NLL that covers the prompts too, a mean over the batch's tokens."""
    trainer, batch = trl_batch(ORPOTrainer, ORPOConfig, PAIRS, policy, beta=0.4)
    loss, metrics = trainer.compute_loss(policy, batch, return_outputs=True)
    pairs = scored_pairs(policy, batch)
    odds_ratio = (orpo(*pairs, lam=1.0) - orpo(*pairs, lam=0.0)).mean()
    assert odds_ratio.item() == pytest.approx(-metrics["log_odds_ratio"], rel=ROUNDING)
    ids, attention_mask = batch["chosen_input_ids"], batch["chosen_attention_mask"]
    predicted = attention_mask.bool() & (torch.arange(ids.shape[1]) > 0)
    whole = scored(policy, None, ids, attention_mask, predicted)
    nll = -whole.logp.sum() / whole.length.sum()
    assert_same_loss_and_gradient(policy, nll + 0.4 * odds_ratio, loss)


def test_the_whole_of_orpo_equals_trls_on_an_empty_prompt(trl_batch, policy):
    """One pair, because TRL averages the NLL over the tokens of the batch and ours over each completion."""
    trainer, batch = trl_batch(ORPOTrainer, ORPOConfig, [{**PAIRS[0], "prompt": ""}], policy, beta=0.4)
    ours = orpo(*scored_pairs(policy, batch), lam=0.4).mean()
    assert_same_loss_and_gradient(policy, ours, trainer.compute_loss(policy, batch))
