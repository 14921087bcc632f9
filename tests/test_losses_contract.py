"""What every loss promises: the mask, the dtype, the shape, the reference, the label; and the table `LOSSES`."""

import math
import re

import pytest
import torch
from torch import Tensor

from batches import CHOSEN, random_batch
from bnf_align.losses import LOSSES, CompletionLogps, Tokens, eq4_value


def evaluate(name: str, completions: CompletionLogps, label: Tensor) -> Tensor:
    """The loss of this name with its defaults; the first half of the batch is chosen for pairwise losses."""
    spec = LOSSES[name]
    if spec.pairwise:
        return spec.function(*completions.halves())
    return spec.function(completions, label, *[torch.tensor(0.3)] * (spec.mismatched or spec.running_reward))


def test_halves_are_the_chosen_and_the_rejected_in_the_order_of_their_pairs():
    completions = random_batch().completions()
    chosen, rejected = completions.halves()
    for name in ("logps", "mask", "ref_logps"):
        assert torch.equal(getattr(chosen, name), getattr(completions, name)[:4])
        assert torch.equal(getattr(rejected, name), getattr(completions, name)[4:])


@pytest.mark.parametrize("name", LOSSES)
def test_what_stands_outside_the_mask_and_how_long_the_padding_is_changes_nothing(name):
    batch = random_batch()
    completions, label = batch.completions(), batch.label
    expected = evaluate(name, completions, label)
    for garbage, width in [(0.0, 0), (7.0, 3), (-1e30, 1), (1e30, 20), (math.nan, 2)]:
        padding, unscored = torch.full((8, width), garbage), torch.full_like(completions.logps, garbage)
        logps, ref_logps = (
            torch.cat([torch.where(batch.mask, values.detach(), filler), padding], 1)
            for values, filler in [(completions.logps, unscored), (completions.ref_logps, -unscored)]
        )
        mask = torch.cat([batch.mask, torch.zeros_like(padding, dtype=torch.bool)], 1)
        loss = evaluate(name, CompletionLogps(logps.requires_grad_(), mask, ref_logps), label)
        torch.testing.assert_close(loss, expected, rtol=1e-13, atol=1e-13)
        (gradient,) = torch.autograd.grad(loss.sum(), logps)
        assert math.isnan(garbage) or (gradient[~mask] == 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_a_mask_shifted_by_one_changes_the_loss(name):
    batch = random_batch()
    shifted = batch._replace(mask=batch.mask.roll(1, dims=1)).completions()
    difference = evaluate(name, shifted, batch.label) - evaluate(name, batch.completions(), batch.label)
    assert difference.abs().max() > 1e-2


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_one_number_per_completion_or_pair_in_float64_or_at_least_float32(name):
    batch = random_batch()
    kept = batch.completions()
    assert evaluate(name, kept, batch.label).dtype == torch.float64
    assert evaluate(name, kept, batch.label).shape == ((4,) if LOSSES[name].pairwise else (8,))
    for half in (torch.bfloat16, torch.float16):
        raised = CompletionLogps(kept.logps.to(half), kept.mask, kept.ref_logps.to(half))
        assert raised.logps.dtype == raised.ref_logps.dtype == torch.float32
        assert evaluate(name, raised, batch.label).dtype == torch.float32


@pytest.mark.parametrize("name", LOSSES)
def test_the_table_says_which_losses_need_the_reference(name):
    batch = random_batch()
    without = CompletionLogps(batch.completions().logps, batch.mask)
    if LOSSES[name].reference:
        with pytest.raises(ValueError, match="ref_logps"):
            evaluate(name, without, batch.label)
    else:
        torch.testing.assert_close(
            evaluate(name, without, batch.label), evaluate(name, batch.completions(), batch.label)
        )


def test_eq4_value_needs_the_reference():
    with pytest.raises(ValueError, match="ref_logps"):
        eq4_value(CompletionLogps(CHOSEN.logps, CHOSEN.mask), torch.tensor([True]), torch.ones(1, 2))


@pytest.mark.parametrize("name", [name for name, spec in LOSSES.items() if not spec.pairwise])
@pytest.mark.parametrize("label", [torch.tensor([1]), torch.tensor([-1]), torch.tensor([1.0])])
def test_a_label_that_is_not_bool_is_refused(name, label):
    """-1 is a truth in Python and a down in half of the data sets."""
    with pytest.raises(ValueError, match="label must be bool"):
        evaluate(name, CHOSEN, label)


def test_a_mask_that_is_not_bool_is_refused():
    with pytest.raises(ValueError, match=r"mask must be bool.*int64"):
        CompletionLogps(CHOSEN.logps, CHOSEN.mask.long())


@pytest.mark.parametrize("wrong", ["logps", "ref_logps"])
def test_shapes_that_differ_are_refused_with_both_shapes(wrong):
    values = {"logps": CHOSEN.logps, "ref_logps": CHOSEN.ref_logps, wrong: torch.zeros(1, 3)}
    with pytest.raises(ValueError, match=rf"{wrong} has shape \(1, 3\), mask \(1, 2\)"):
        CompletionLogps(mask=CHOSEN.mask, **values)


@pytest.mark.parametrize("name", [name for name, spec in LOSSES.items() if spec.separable])
def test_a_completion_without_a_scored_token_costs_nothing_and_moves_nothing(name):
    logps = CHOSEN.logps.clone().requires_grad_()
    loss = evaluate(
        name, CompletionLogps(logps, torch.zeros_like(CHOSEN.mask), CHOSEN.ref_logps), torch.tensor([True])
    )
    assert loss.item() == 0
    loss.sum().backward()
    assert (logps.grad == 0).all()


@pytest.mark.parametrize("name", [name for name, spec in LOSSES.items() if spec.separable])
def test_the_weight_of_a_token_is_its_slope_and_the_same_wherever_it_is_asked_for(name):
    """In rows, as the loss has them, and one after another, as the head meets them; in float64 to the last digits."""
    batch, spec = random_batch(), LOSSES[name]
    logps = batch.completions().logps.detach().requires_grad_()
    completions = CompletionLogps(logps, batch.mask, batch.completions().ref_logps)
    evaluate(name, completions, batch.label).sum().backward()
    row = batch.mask.nonzero()[:, 0]
    tokens = Tokens(
        logps.detach()[batch.mask], completions.ref_logps[batch.mask], batch.label[row], completions.length[row]
    )
    weights = spec.token_weights(tokens, **spec.hyperparameters)
    assert weights.dtype == torch.float64
    torch.testing.assert_close(weights, logps.grad[batch.mask], rtol=1e-14, atol=0)


# ------------------------------------------------------------------------------------------------- the table


def test_bnf_has_no_hyper_parameter_and_the_others_have_the_papers():
    names = {name: set(spec.hyperparameters) for name, spec in LOSSES.items()}
    assert names == {
        "bnf": set(),
        "nll_pll": {"per_token"},
        "sft": set(),
        "kto": {"beta", "desirable_weight", "undesirable_weight"},
        "dpo": {"beta", "label_smoothing"},
        "ipo": {"tau", "per_token"},
        "rdpo": {"beta", "alpha"},
        "simpo": {"beta", "gamma"},
        "slic_hf": {"delta", "lam"},
        "orpo": {"lam"},
        "bnf_asymmetric": set(),
        "bnf_contrastive": {"beta"},
        "apo_zero": {"beta"},
        "bco": {"beta"},
        "topr": set(),
        "w_reinforce": {"lam"},
        "npo": {"beta"},
        "dpo_norm": {"beta", "label_smoothing"},
        "rpo": {"beta", "alpha"},
    }


def test_a_hyper_parameter_that_a_loss_does_not_take_is_named_with_those_it_takes():
    LOSSES["rdpo"].check("rdpo", {"alpha": 0.2})
    with pytest.raises(ValueError, match="rdpo takes beta, alpha; loss_kwargs has aplha, tau"):
        LOSSES["rdpo"].check("rdpo", {"tau": 1, "beta": 0.1, "aplha": 0.2})
    with pytest.raises(ValueError, match="bnf takes no hyper-parameter; loss_kwargs has beta"):
        LOSSES["bnf"].check("bnf", {"beta": 0.1})


@pytest.mark.parametrize("value", [-1, 0, float("nan"), float("inf"), "0.1", [1], None])
@pytest.mark.parametrize(("loss", "name"), [("kto", "beta"), ("dpo", "beta"), ("ipo", "tau")])
def test_a_hyper_parameter_that_turns_a_loss_round_or_switches_it_off_is_refused(loss, name, value):
    with pytest.raises(ValueError, match=rf"{name} of {loss} is {re.escape(repr(value))}: a finite number above 0"):
        LOSSES[loss].check(loss, {name: value})
    LOSSES[loss].check(loss, {name: 0.01})


def test_weights_may_be_0_and_switches_are_true_or_false():
    LOSSES["kto"].check("kto", {"desirable_weight": 0, "undesirable_weight": 2})
    with pytest.raises(ValueError, match="undesirable_weight of kto is -1: a finite number from 0 up"):
        LOSSES["kto"].check("kto", {"undesirable_weight": -1})
    with pytest.raises(ValueError, match="per_token of ipo is 1: true or false"):
        LOSSES["ipo"].check("ipo", {"per_token": 1})


def test_label_smoothing_is_a_share_below_one_half():
    LOSSES["dpo"].check("dpo", {"label_smoothing": 0.49})
    for share in (0.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match=f"label_smoothing of dpo is {share}: a share of wrong labels"):
            LOSSES["dpo"].check("dpo", {"label_smoothing": share})
    with pytest.raises(ValueError, match="ipo takes tau, per_token; loss_kwargs has label_smoothing"):
        LOSSES["ipo"].check("ipo", {"label_smoothing": 0.1})


def test_the_table_says_what_each_loss_is_given():
    assert {name: spec.only for name, spec in LOSSES.items() if spec.only is not None} == {"sft": True, "npo": False}
    assert [name for name, spec in LOSSES.items() if spec.mismatched] == ["kto"]
    assert [name for name, spec in LOSSES.items() if spec.running_reward] == ["bco"]
    assert {name for name, spec in LOSSES.items() if spec.pairwise} == {
        "dpo", "ipo", "rdpo", "simpo", "slic_hf", "orpo", "bnf_contrastive", "dpo_norm", "rpo"
    }  # fmt: skip
    assert {name for name, spec in LOSSES.items() if spec.separable} == {
        "bnf", "nll_pll", "sft", "bnf_asymmetric", "w_reinforce"
    }  # fmt: skip


def test_the_losses_can_be_imported_from_the_package():
    import bnf_align
    from bnf_align import losses

    objectives = ["bnf_loss", *(name for name in LOSSES if name != "bnf")]
    for name in ["CompletionLogps", "LOSSES", "LossSpec", "bnf_weights", "eq4_value", *objectives]:
        assert getattr(bnf_align, name) is getattr(losses, name)
