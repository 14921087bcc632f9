"""The maths against the paper, equation by equation. No model; the oracles stand in `reference/eq4.py`."""

import math

import pytest
import torch
from torch import Tensor

from batches import CHOSEN, REJECTED, Batch, random_batch
from bnf_align.losses import LOSSES, CompletionLogps, bnf_loss, bnf_weights, eq4_value, kto_kl, nll_pll
from reference.eq4 import eq4_loss, eq5_target, eq6_target
from rounding import roundings

LN2, LN3 = math.log(2), math.log(3)


def one_token(pi: Tensor, r: float, label: bool = True) -> Batch:
    """Completions of the one token 0 with policy probability `pi` (B,) and reference r; two others share the rest."""

    def logits(p: Tensor) -> Tensor:
        return torch.stack([p, 0.3 * (1 - p), 0.7 * (1 - p)], -1).log().unsqueeze(1)

    shape = (len(pi), 1)
    tokens, mask = torch.zeros(shape, dtype=torch.long), torch.ones(shape, dtype=torch.bool)
    policy, reference = logits(pi).requires_grad_(), logits(torch.full_like(pi, r))
    return Batch(policy, reference, tokens, mask, torch.full((len(pi),), label))


def worst_relative_error(actual: Tensor, expected: Tensor) -> float:
    """||actual - expected|| / ||expected|| in the Euclidean norm of one completion's gradient, the worst of the batch.

    Not element by element: where pi is near 1 an element is a difference of numbers near 1.
    """
    difference = (actual.double() - expected).flatten(1).norm(dim=1)
    return (difference / expected.flatten(1).norm(dim=1)).max().item()


# ------------------------------------------------------------------------------------------- Section 3, Appendix A


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_bnf_gradient_equals_autograd_through_the_literal_eq_4(dtype):
    batch = random_batch(dtype)
    logits = batch.logits.detach().double().requires_grad_()
    exact = batch._replace(logits=logits, ref_logits=batch.ref_logits.double())
    expected = exact.gradient(eq4_loss(*exact))
    actual = batch.gradient(bnf_loss(batch.completions(), batch.label))
    # Sums of 13 in both distributions, and of both log-odds, up to 12 here, four roundings each; then the product.
    assert worst_relative_error(actual, expected) < roundings(128, dtype)


def test_the_weight_is_what_eq_6_leaves_of_the_fine_tuning_gradient():
    batch = random_batch()
    completions = batch.completions()
    weights = bnf_weights(completions.logps, completions.ref_logps)
    for b, i in batch.mask.nonzero().tolist():
        pi, r = batch.logits[b, i].detach().softmax(-1), batch.ref_logits[b, i].softmax(-1)
        y = int(batch.tokens[b, i])
        odds_ratio = pi[y] / (1 - pi[y]) / (r[y] / (1 - r[y]))
        f = eq6_target(pi, r, y)
        torch.testing.assert_close(weights[b, i], (f[y] - pi[y]) / (1 - pi[y]), rtol=1e-11, atol=0)
        torch.testing.assert_close(weights[b, i], odds_ratio.clamp(max=1), rtol=1e-11, atol=0)
    scored = weights[batch.mask]
    assert 0.2 < (scored < 1).double().mean() < 0.8, "the batch must have tokens on both branches"
    assert not weights.requires_grad


@pytest.mark.parametrize("label", [True, False])
def test_eq_9_holds_on_both_branches_with_the_label_taken_as_a_magnitude(label):
    pi, r = torch.linspace(0.01, 0.99, 99, dtype=torch.float64), 0.4
    batch = one_token(pi, r, label)
    gradient = batch.gradient(bnf_loss(batch.completions(), batch.label))[:, 0, 0]
    eq9 = torch.where(pi < r, pi * (1 - r) / r, 1 - pi)
    torch.testing.assert_close(gradient.abs(), eq9, rtol=1e-12, atol=0)
    # Eq. 9 prints label/|y| before a magnitude: below 0 for dispreferred completions. The descent goes the right way:
    assert (gradient < 0).all() if label else (gradient > 0).all()


def test_the_gradient_is_largest_at_the_reference_and_falls_linearly_both_ways():
    """Figure 1, right: bidirectional negative feedback."""
    pi = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    batch = one_token(pi, 0.4, label=False)
    slope = batch.gradient(bnf_loss(batch.completions(), batch.label))[:, 0, 0].abs().diff()
    torch.testing.assert_close(slope[:39], torch.full((39,), 0.01 * 0.6 / 0.4, dtype=torch.float64))
    torch.testing.assert_close(slope[39:], torch.full((59,), -0.01, dtype=torch.float64))


def test_the_gradient_of_likelihood_grows_where_that_of_bnf_fades():
    """Figure 1, left, and Section 2.1: |dL/dz| = 1 - pi, so a falling dispreferred token is pushed ever harder."""
    pi = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    batch = one_token(pi, 0.4, label=False)
    gradient = batch.gradient(nll_pll(batch.completions(), batch.label))[:, 0, 0]
    torch.testing.assert_close(gradient, 1 - pi)


def test_the_target_is_a_distribution_and_its_other_entries_may_be_zero():
    """A.2, whose strict f > 0 is an erratum: where pi >= r the whole mass is on the token itself."""
    pi, r = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.8, 0.1, 0.1], dtype=torch.float64)
    below, above = eq6_target(pi, r, 0), eq6_target(pi, r, 1)
    torch.testing.assert_close(below, torch.tensor([0.625, 0.225, 0.15], dtype=torch.float64))
    assert below.sum().item() == pytest.approx(1, abs=1e-15)
    assert above.tolist() == [0, 1, 0]


def test_the_other_tokens_gradients_sum_in_absolute_value_to_the_targets():
    """A.4, with the label/|y| that its last lines lose."""
    batch = random_batch()
    completions = batch.completions()
    gradient = batch.gradient(bnf_loss(completions, batch.label))[batch.mask]
    y = batch.tokens[batch.mask].unsqueeze(-1)
    target = gradient.gather(-1, y).squeeze(-1).abs()
    others = gradient.scatter(-1, y, 0.0).abs().sum(-1)
    torch.testing.assert_close(others, target, rtol=1e-11, atol=0)
    f_minus_pi = (completions.logps - completions.ref_logps).clamp(max=0).exp() - completions.logps.exp()
    printed = f_minus_pi[batch.mask].detach()
    length = completions.length[:, None].expand_as(batch.mask)[batch.mask]
    torch.testing.assert_close(others * length, printed, rtol=1e-11, atol=0)
    assert ((others - printed).abs() > 1e-3).any(), "without 1/|y| the printed equality must not hold"


def test_erratum_eq_7_has_no_minus_sign():
    batch = random_batch()
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    scaled = batch._replace(logits=theta * batch.logits.detach())
    (by_theta,) = torch.autograd.grad(bnf_loss(scaled.completions(), batch.label).sum(), theta)
    by_logits = batch.gradient(bnf_loss(batch.completions(), batch.label))
    torch.testing.assert_close(by_theta, (by_logits * batch.logits).sum())


def test_eq4_value_equals_the_literal_eq_4():
    batch = random_batch()
    log_pi = batch.logits.detach().log_softmax(-1)
    entropy = -(log_pi.exp() * log_pi).sum(-1)
    value = eq4_value(batch.completions(), batch.label, entropy)
    torch.testing.assert_close(value, eq4_loss(*batch).detach(), rtol=1e-12, atol=0)
    assert not value.requires_grad
    surrogate = bnf_loss(batch.completions(), batch.label)
    assert ((value - surrogate).abs() > 1e-2).any(), "where w < 1 the surrogate has another value"


# ---------------------------------------------------------------------------------------- Section 2.1: log-likelihood


def test_nll_pll_is_bnf_with_all_weights_1_and_eq_4_with_the_target_of_eq_5():
    batch = random_batch()
    above = batch._replace(ref_logits=batch.ref_logits.scatter(-1, batch.tokens.unsqueeze(-1), -100.0))
    loss = nll_pll(batch.completions(), batch.label)
    torch.testing.assert_close(loss, bnf_loss(above.completions(), batch.label), rtol=1e-14, atol=0)
    torch.testing.assert_close(loss, eq4_loss(*batch, target=eq5_target), rtol=1e-12, atol=0)


def test_nll_pll_without_per_token_gives_the_sums_of_eq_1():
    """Eq. 4 with Eq. 5 divides by |y| and Eq. 1 does not: an erratum of the paper."""
    batch = random_batch()
    logps, mask = batch.completions().logps, batch.mask
    loss = nll_pll(batch.completions(), batch.label, per_token=False)
    for b, preferred in enumerate(batch.label.tolist()):
        log_pi = sum(logps[b, i] for i in mask[b].nonzero().flatten())
        torch.testing.assert_close(loss[b], -log_pi if preferred else log_pi)


# -------------------------------------------------------------------------------------- Table 2: C times Eq. 3


def table_2_constraint(name: str, chosen: CompletionLogps, rejected: CompletionLogps) -> Tensor:
    """C(y_w, y_l, pi, r) as Table 2 prints it, with the hyper-parameters of `TABLE_2`."""
    if name == "slic_hf":
        return (chosen.logp - rejected.logp < 4.0).double()
    if name == "dpo":
        return 0.3 * torch.sigmoid(0.3 * rejected.logratio - 0.3 * chosen.logratio)
    if name == "ipo":
        return 2 * (1 / (2 * 0.2) + rejected.logratio - chosen.logratio)
    return torch.sigmoid(1.1 + 2.0 * rejected.logp / rejected.length - 2.0 * chosen.logp / chosen.length)


TABLE_2 = {
    "slic_hf": {"delta": 4.0, "lam": 0.0},
    "dpo": {"beta": 0.3},
    "ipo": {"tau": 0.2, "per_token": False},
    "simpo": {"beta": 2.0, "gamma": 1.1},
}


@pytest.mark.parametrize("name", TABLE_2)
def test_autograd_of_a_pairwise_loss_is_the_constraint_of_table_2_times_eq_3(name):
    batch = random_batch()
    chosen, rejected = batch.completions().halves()
    actual = batch.gradient(LOSSES[name].function(chosen, rejected, **TABLE_2[name]))
    constraint = table_2_constraint(name, chosen, rejected).detach()
    printed = batch.gradient(constraint * (-chosen.logp + rejected.logp))
    if name != "simpo":
        torch.testing.assert_close(actual, printed, rtol=1e-12, atol=1e-15)
        return
    # Erratum: Table 2's C for SimPO lacks beta/|y|, which differs between the two halves of Eq. 3.
    direction = -2.0 * chosen.logp / chosen.length + 2.0 * rejected.logp / rejected.length
    torch.testing.assert_close(actual, batch.gradient(constraint * direction), rtol=1e-12, atol=1e-15)
    assert not torch.allclose(actual, printed, rtol=0.1)


def test_the_hinge_of_slic_hf_is_closed_for_some_pairs_and_open_for_others():
    """Else the test above would not see the step of its constraint."""
    constraint = table_2_constraint("slic_hf", *random_batch().completions().halves())
    assert 0 < constraint.sum() < len(constraint)


# ----------------------------------------------------------------------------------------- cases worked by hand


@pytest.mark.parametrize(
    ("name", "hyperparameters", "expected"),
    [
        ("dpo", {"beta": 0.5}, math.log(3 / 2)),  # margin 0.5 x 2 ln 2 = ln 2; ln(1 + 1/2)
        ("dpo", {"beta": 0.5, "label_smoothing": 0.25}, 0.75 * math.log(3 / 2) + 0.25 * math.log(3)),
        ("rdpo", {"beta": 0.5, "alpha": LN3}, math.log(7 / 6)),  # one token longer: margin ln 2 + ln 3; ln(1 + 1/6)
        ("ipo", {"tau": 0.5}, (1.5 * LN2 - 1) ** 2),  # ln 2 / 2 tokens + ln 2 / 1 token, less 1
        ("ipo", {"tau": 0.5, "per_token": False}, (2 * LN2 - 1) ** 2),
        ("simpo", {"beta": 2.0, "gamma": LN3}, math.log(1 + 3 / 12.5)),  # 2 (ln 8^-1/2 - ln 1/10) - ln 3 = ln(12.5/3)
        ("slic_hf", {"delta": 1.0, "lam": 0.1}, 1 + math.log(0.8) + 0.1 * math.log(8)),  # ln 8 - ln 10; NLL is a sum
        ("slic_hf", {"delta": 0.1, "lam": 0.1}, 0.1 * math.log(8)),  # ln 1.25 > 0.1: the hinge is closed
        ("dpo_norm", {"beta": 2.0}, math.log(9 / 8)),  # 2 (ln 2 / 2 tokens + ln 2 / 1 token) = ln 8; ln(1 + 1/8)
        ("dpo_norm", {"beta": 2.0, "label_smoothing": 0.25}, 0.75 * math.log(9 / 8) + 0.25 * math.log(9)),
        ("rpo", {"beta": 0.5, "alpha": 0.3}, math.log(3 / 2) + 0.3 * math.log(8) / 2),  # NLL is a mean over 2 tokens
        # C = sigmoid(0.5 x -2 ln 2) = 1/3, times BNF of both sides with the weights 1, 1 and 4/9.
        ("bnf_contrastive", {"beta": 0.5}, (math.log(8) / 2 + math.log(0.1) * 4 / 9) / 3),
    ],
)
def test_a_pairwise_loss_equals_a_case_worked_by_hand(name, hyperparameters, expected):
    loss = LOSSES[name].function(CHOSEN, REJECTED, **hyperparameters)
    # alpha meets the integer lengths of R-DPO in float32.
    assert loss.tolist() == pytest.approx([expected], rel=1e-12)


def test_orpo_equals_a_case_worked_by_hand():
    """Mean probability 1/4 against 1/10, odds 1/3 against 1/9: NLL ln 4, odds ratio 3, -ln sigmoid(ln 3) = ln 4/3."""
    quarters = CompletionLogps(torch.full((1, 2), 0.25, dtype=torch.float64).log(), CHOSEN.mask)
    loss = LOSSES["orpo"].function(quarters, REJECTED, lam=0.5)
    assert loss.tolist() == pytest.approx([math.log(4) + 0.5 * math.log(4 / 3)], rel=1e-12)


@pytest.mark.parametrize(
    ("name", "arguments", "hyperparameters", "up", "down"),
    [
        ("bnf", [], {}, math.log(8) / 2, math.log(0.1) * 4 / 9),  # weights 1, 1 and (1/9) / (1/4)
        ("nll_pll", [], {}, math.log(8) / 2, math.log(0.1)),
        ("nll_pll", [], {"per_token": False}, math.log(8), math.log(0.1)),
        ("sft", [], {}, math.log(8) / 2, 0.0),
        ("kto", [torch.tensor(0.0)], {"beta": 1.0}, 1 / 3, 1 / 3),  # 1 - sigmoid(ln 2) for both
        ("kto", [torch.tensor(LN2)], {"beta": 1.0}, 1 / 2, 1 / 5),  # 1 - sigmoid(0); 1 - sigmoid(2 ln 2)
        ("kto", [torch.tensor(0.0)], {"beta": 2.0, "desirable_weight": 5.0, "undesirable_weight": 10.0}, 1.0, 2.0),
        ("bnf_asymmetric", [], {}, math.log(8) / 2, math.log(0.1) * 4 / 9),
        ("apo_zero", [], {"beta": 1.0}, 1 / 3, 1 / 3),  # as KTO with z0 = 0
        ("bco", [torch.tensor(LN2)], {"beta": 1.0}, LN2, math.log(5 / 4)),  # -ln sigmoid(0); -ln sigmoid(2 ln 2)
        ("bco", [torch.tensor(0.0)], {"beta": 2.0}, math.log(5 / 4), math.log(5 / 4)),
        ("topr", [], {}, math.log(8), math.log(0.1) / 2),  # pi/r = 1/2 of the down
        ("w_reinforce", [], {"lam": 0.5}, math.log(8) / 2, math.log(0.1)),
        ("npo", [], {"beta": 1.0}, 0.0, 2 * math.log(3 / 2)),  # 2 ln(1 + 1/2)
        ("npo", [], {"beta": 2.0}, 0.0, math.log(5 / 4)),
    ],
)
def test_a_pointwise_loss_equals_a_case_worked_by_hand(name, arguments, hyperparameters, up, down):
    function = LOSSES[name].function
    preferred = function(CHOSEN, torch.tensor([True]), *arguments, **hyperparameters)
    dispreferred = function(REJECTED, torch.tensor([False]), *arguments, **hyperparameters)
    # A float32 z0 of ln 2 is what limits the precision here.
    assert [preferred.item(), dispreferred.item()] == pytest.approx([up, down], rel=1e-7)


def test_kto_kl_is_the_log_ratio_without_gradient():
    batch = random_batch()
    logratio = kto_kl(batch.completions())
    torch.testing.assert_close(logratio, batch.completions().logratio)
    assert not logratio.requires_grad


# ------------------------------------------------------------------------------------------ beside the paper


def test_asymmetric_bnf_gives_up_the_weight_of_preferred_tokens_alone():
    """REJECTED has fallen to the weight 4/9: as an up it keeps all of fine-tuning's gradient, as a down BNF's."""
    up, down = torch.tensor([True]), torch.tensor([False])
    asymmetric, bnf = LOSSES["bnf_asymmetric"].function, LOSSES["bnf"].function
    assert asymmetric(REJECTED, up).item() == pytest.approx(math.log(10), rel=1e-12)
    assert bnf(REJECTED, up).item() == pytest.approx(math.log(10) * 4 / 9, rel=1e-12)
    assert torch.equal(asymmetric(REJECTED, down), bnf(REJECTED, down))


def test_the_gradient_of_contrastive_bnf_is_that_of_bnf_times_the_contrast_of_dpo():
    """Eq. 3 with BNF for log-likelihood; Table 2's C of DPO holds a factor beta, 0.3, that this one does not."""
    batch = random_batch()
    chosen, rejected = batch.completions().halves()
    actual = batch.gradient(LOSSES["bnf_contrastive"].function(chosen, rejected, beta=0.3))
    constraint = table_2_constraint("dpo", chosen, rejected).detach() / 0.3
    up = torch.ones(4, dtype=torch.bool)
    expected = batch.gradient(constraint * (bnf_loss(chosen, up) + bnf_loss(rejected, ~up)))
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-15)
    assert (constraint - constraint[0]).abs().max() > 0.1, "the contrasts of the pairs must differ"


def test_contrastive_bnf_starts_as_bnf_on_the_same_pairs_and_stays_so_with_beta_0():
    """The mean over pairs against the mean over responses."""
    batch = random_batch()
    start = batch._replace(ref_logits=batch.logits.detach())
    label = torch.tensor([True] * 4 + [False] * 4)
    for beta, each in ((0.3, start), (0.0, batch)):
        completions = each.completions()
        contrastive = LOSSES["bnf_contrastive"].function(*completions.halves(), beta=beta).mean()
        torch.testing.assert_close(contrastive, bnf_loss(completions, label).mean(), rtol=1e-12, atol=0)


def test_topr_tapers_a_down_by_the_ratio_of_the_whole_completion_and_never_above_1():
    batch = random_batch()
    batch = batch._replace(logits=batch.ref_logits.requires_grad_(), ref_logits=batch.logits.detach())
    completions, downs = batch.completions(), torch.zeros(8, dtype=torch.bool)
    gradient = batch.gradient(LOSSES["topr"].function(completions, downs))
    taper = completions.logratio.detach().exp()
    expected = batch.gradient(taper.clamp(max=1) * completions.logp)
    torch.testing.assert_close(gradient, expected, rtol=1e-12, atol=0)
    assert (taper < 1).sum() == 7, "all completions but one are below the reference"
    ups = batch.gradient(LOSSES["topr"].function(completions, ~downs))
    torch.testing.assert_close(ups, batch.gradient(-completions.logp), rtol=1e-12, atol=0)


def test_the_gradient_of_npo_is_eq_5_of_its_paper_and_with_beta_to_0_gradient_ascent():
    batch = random_batch()
    completions, downs = batch.completions(), torch.zeros(8, dtype=torch.bool)
    pi, r = (each.exp() ** 0.3 for each in (completions.logp.detach(), completions.sum(completions.ref_logps)))
    actual = batch.gradient(LOSSES["npo"].function(completions, downs, beta=0.3))
    expected = batch.gradient(2 * pi / (pi + r) * completions.logp)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-15)
    ascent = batch.gradient(completions.logp)
    tiny = batch.gradient(LOSSES["npo"].function(completions, downs, beta=1e-9))
    torch.testing.assert_close(tiny, ascent, rtol=1e-7, atol=1e-9)


def test_w_reinforce_with_lam_1_is_eq_1():
    batch = random_batch()
    loss = LOSSES["w_reinforce"].function(batch.completions(), batch.label, lam=1.0)
    assert torch.equal(loss, nll_pll(batch.completions(), batch.label, per_token=False))
