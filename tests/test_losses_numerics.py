"""BNF where probabilities round to 0 and 1, and Appendix B, which must not be transcribed."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from batches import Batch, random_batch, token_logps
from bnf_align.losses import LOSSES, CompletionLogps, bnf_loss, bnf_weights, eq4_value, log_odds
from reference.eq4 import appendix_b
from rounding import roundings

GAPS = [-1e4, -1e3, -104, -88, -20, -5, 0, 5, 9, 12, 16, 17, 20, 30, 88, 104, 1e3, 1e4]


def gap_logits(gaps: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1, 50) logits: 0, and `gaps` (B,) at token 0; from pi = 0 to pi = 1 in floating point."""
    logits = torch.zeros(len(gaps), 1, 50, dtype=dtype)
    logits[:, 0, 0] = gaps.to(dtype)
    return logits


@pytest.mark.parametrize("preferred", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_stay_finite_and_right_from_pi_0_to_pi_1(dtype, preferred):
    gap, ref_gap = torch.cartesian_prod(*[torch.tensor(GAPS, dtype=torch.float64)] * 2).T
    logits, ref_logits = gap_logits(gap, dtype).requires_grad_(), gap_logits(ref_gap, dtype)
    tokens, mask = torch.zeros(len(gap), 1, dtype=torch.long), torch.ones(len(gap), 1, dtype=torch.bool)
    batch = Batch(logits, ref_logits, tokens, mask, torch.full((len(gap),), preferred))
    loss = bnf_loss(batch.completions(), batch.label)
    gradient = batch.gradient(loss)
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert gradient.isfinite().all()
    # The log-odds of token 0 are its logit - ln 49, so w and 1 - pi are known without a subtraction from 1.
    gap, ref_gap = logits[:, 0, 0].detach().double(), ref_logits[:, 0, 0].double()
    expected = (gap - ref_gap).clamp(max=0).exp() * torch.sigmoid(math.log(49) - gap)
    actual = gradient[:, 0, 0].double() * (-1 if preferred else 1)
    # log pi is a logit less the log of a sum of 50: near 0 it, and the gradient with it, is known to 50 roundings of 1
    # and four more; so is log r. Far from 0 the log-odds, up to 32 where w (1 - pi) is larger than that, are rounded.
    # The gradient itself is rounded to the dtype of the logits.
    atol, rtol = 2 * roundings(54), roundings(4 * 32) + roundings(1, dtype)
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_loss_and_its_gradient_stay_finite_from_pi_0_to_pi_1(dtype, name):
    """Chosen and rejected, policy and reference, each from 0 to 1; pointwise losses see both labels."""
    gaps = torch.cartesian_prod(*[torch.tensor([-1e4, -104, -17, 0, 17, 104, 1e4])] * 4).T
    logits, ref_logits = (gap_logits(sides.flatten(), dtype) for sides in (gaps[:2], gaps[2:]))
    tokens, label = torch.zeros(len(logits), 1, dtype=torch.long), torch.arange(len(logits)) < len(logits) // 2
    batch = Batch(logits.requires_grad_(), ref_logits, tokens, tokens == 0, label)
    completions, spec = batch.completions(), LOSSES[name]
    if spec.pairwise:
        loss = spec.function(*completions.halves())
    else:
        loss = spec.function(completions, label, *[torch.tensor(0.3)] * (spec.mismatched or spec.running_reward))
    assert loss.isfinite().all()
    assert batch.gradient(loss).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_odds_are_exact_to_rounding_from_pi_0_to_pi_1(dtype):
    """The way back, log p = -log(1 + e^-x) from the log-odds x, has no subtraction from 1."""
    eps = torch.finfo(dtype).eps
    logp = -torch.logspace(math.log10(eps), 4, 400, dtype=torch.float64).to(dtype)
    x = log_odds(logp).double()
    # Near p = 1 the relative error of log p is the absolute one of the log-odds, four roundings of up to -log eps.
    rtol = roundings(4 * -math.log(eps), dtype)
    torch.testing.assert_close(-torch.logaddexp(torch.zeros_like(x), -x), logp.double(), rtol=rtol, atol=0)


def test_eq4_value_stays_finite_where_a_probability_rounds_to_1():
    gap = torch.tensor(GAPS)
    logps = token_logps(gap_logits(gap, torch.float32), torch.zeros(len(gap), 1, dtype=torch.long))
    log_pi = gap_logits(gap, torch.float32).log_softmax(-1)
    entropy = -(log_pi.exp() * log_pi).sum(-1)
    for ref_logps in (logps, logps.flip(0), torch.zeros_like(logps)):
        completions = CompletionLogps(logps, torch.ones_like(logps, dtype=torch.bool), ref_logps)
        assert eq4_value(completions, torch.ones(len(gap), dtype=torch.bool), entropy).isfinite().all()


@st.composite
def log_probabilities(draw, count):
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    value = st.floats(-1e4, 0) | st.floats(-1, 0) | st.floats(-1e-6, 0)
    return [torch.tensor(draw(value), dtype=dtype) for _ in range(count)]


def rounding_of(*logps: Tensor) -> float:
    """What rounding may do to w: each of two log-odds, up to -log eps near p = 1, is rounded four times."""
    dtype = logps[0].dtype
    largest = max(-math.log(torch.finfo(dtype).eps), *(-logp.item() for logp in logps))
    return roundings(2 * 4 * largest, dtype)


@settings(deadline=None)
@given(log_probabilities(2))
def test_weights_lie_in_0_to_1_and_are_1_from_the_reference_up(logps):
    pi, r = logps
    weight = bnf_weights(pi, r).item()
    assert 0 <= weight <= 1
    if pi >= r:
        assert weight == pytest.approx(1, abs=rounding_of(pi, r))
    assert bnf_weights(r, r).item() == 1


@settings(deadline=None)
@given(log_probabilities(3))
def test_weights_never_fall_as_pi_rises(logps):
    *pi, r = logps
    low, high = sorted(pi)
    assert bnf_weights(low, r) <= bnf_weights(high, r) + rounding_of(low, r)


# ------------------------------------------------------------------------------------------------ Appendix B: errata


def appendix_b_gradient(batch: Batch, *mend: str) -> Tensor:
    """Of what Appendix B makes of model outputs: the logits that score token i stand at i - 1."""
    logits = batch.logits.detach().roll(-1, dims=1).requires_grad_()
    lengths, labels = batch.mask.sum(-1), torch.where(batch.label, 1.0, -1.0)
    loss = appendix_b(logits, batch.ref_logits.roll(-1, dims=1), batch.tokens, lengths, labels, batch.mask, mend)
    return torch.autograd.grad(loss, logits)[0].roll(1, dims=1)


def cosine(a: Tensor, b: Tensor) -> float:
    return torch.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()


def test_appendix_b_is_eq_4_once_shift_mask_and_sign_are_mended_and_with_each_left_out_is_not():
    batch = random_batch()
    eq4 = batch.gradient(bnf_loss(batch.completions(), batch.label))
    torch.testing.assert_close(appendix_b_gradient(batch, "shift", "mask", "sign"), eq4, rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(appendix_b_gradient(batch, "shift", "mask"), -eq4, rtol=1e-10, atol=1e-13)
    assert cosine(appendix_b_gradient(batch, "shift", "sign"), eq4) < 0.9, "prompt and padding are trained too"
    assert abs(cosine(appendix_b_gradient(batch, "mask", "sign"), eq4)) < 0.3, "another token's logits are trained"
    assert abs(cosine(appendix_b_gradient(batch), eq4)) < 0.3


def test_appendix_b_is_nan_where_a_probability_rounds_to_1_and_bnf_is_not():
    logits = gap_logits(torch.tensor([20.0]), torch.float32).requires_grad_()
    y, ones = torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1)
    loss = appendix_b(logits, torch.zeros_like(logits), y, ones.sum(-1), ones[0], ones, mend=["sign", "mask"])
    assert loss.isnan()
    assert torch.autograd.grad(loss, logits)[0].isnan().any()
    batch = Batch(logits, torch.zeros_like(logits), y, ones.bool(), torch.tensor([True]))
    assert batch.gradient(bnf_loss(batch.completions(), batch.label)).isfinite().all()
