"""From a model to log-probabilities per token: the one shift, the mask, the padding and the dtype."""

import pytest
import torch

from bnf_align.logps import completion_logps, token_entropy
from bnf_align.losses import bnf_loss, eq4_value
from reference.eq4 import eq4_loss
from tiny_nets import perturbed, tiny_llama

PROMPT, LENGTH = [1, 3, 2, 4], [9, 5, 8, 6]
"""Of four rows: tokens of the prompt, and of prompt and completion together."""


def random_batch(width: int = 9, pad: int = 0) -> dict[str, torch.Tensor]:
    """Four rows of random tokens, padded with `pad` on the right to `width`."""
    generator = torch.Generator().manual_seed(1)
    position, length = torch.arange(width), torch.tensor(LENGTH)[:, None]
    ids = torch.randint(40, (4, 9), generator=generator)
    ids = torch.nn.functional.pad(ids, (0, width - 9))
    inside = position < length
    return {
        "input_ids": torch.where(inside, ids, pad),
        "attention_mask": inside.long(),
        "completion_mask": inside & (position >= torch.tensor(PROMPT)[:, None]),
    }


@pytest.fixture
def model():
    return tiny_llama(vocab_size=40).double()


def test_the_logits_of_one_position_score_the_next_token(model):
    batch = random_batch()
    logps = completion_logps(model, batch).logps
    entropy = token_entropy(model, batch)
    for row, (prompt, length) in enumerate(zip(PROMPT, LENGTH, strict=True)):
        ids = batch["input_ids"][row, :length]
        log_probs = model(ids[None]).logits[0].log_softmax(-1)
        for i in range(length):
            if i < prompt:
                assert logps[row, i] == entropy[row, i] == 0
                continue
            torch.testing.assert_close(logps[row, i], log_probs[i - 1, ids[i]])
            torch.testing.assert_close(entropy[row, i], -(log_probs[i - 1].exp() * log_probs[i - 1]).sum())
        assert (logps[row, length:] == 0).all()
        assert (entropy[row, length:] == 0).all()


def test_value_and_gradient_of_bnf_through_a_model_are_those_of_the_literal_eq_4(model):
    """The whole way from token ids to parameters, the shift done here by hand and there by `logps`."""
    batch, label = random_batch(), torch.tensor([True, False, True, False])
    reference, policy = model, perturbed(tiny_llama(vocab_size=40).double(), scale=0.3)
    ref_logps = completion_logps(reference, batch).logps.detach()
    completions = completion_logps(policy, {**batch, "ref_logps": ref_logps})

    def shifted_logits(net):
        return net(batch["input_ids"], attention_mask=batch["attention_mask"]).logits.roll(1, dims=1)

    mask, tokens = batch["completion_mask"], batch["input_ids"]
    exact = eq4_loss(shifted_logits(policy), shifted_logits(reference).detach(), tokens, mask, label)
    expected = torch.autograd.grad(exact.sum(), list(policy.parameters()))
    actual = torch.autograd.grad(bnf_loss(completions, label).sum(), list(policy.parameters()))
    for one, other in zip(actual, expected, strict=True):
        assert (one - other).norm() < 1e-10 * other.norm()
    value = eq4_value(completions, label, token_entropy(policy, batch))
    torch.testing.assert_close(value, exact.detach(), rtol=1e-10, atol=0)


@pytest.mark.parametrize(("width", "pad"), [(9, 7), (10, 0), (31, 39)])
def test_padding_on_the_right_changes_no_value(model, width, pad):
    expected = completion_logps(model, random_batch())
    padded = completion_logps(model, random_batch(width, pad))
    assert padded.logps.shape == (4, width)
    torch.testing.assert_close(padded.logps[:, :9], expected.logps, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(padded.logp, expected.logp, rtol=1e-12, atol=1e-12)
    assert padded.length.tolist() == [8, 2, 6, 2]


def test_a_scored_first_token_is_refused(model):
    batch = random_batch()
    batch["completion_mask"][2, 0] = True
    for function in (completion_logps, token_entropy):
        with pytest.raises(ValueError, match="Position 0 is scored"):
            function(model, batch)


def test_half_precision_logits_are_raised_before_the_softmax_and_float64_is_kept(model):
    batch = random_batch()
    assert completion_logps(model, batch).logps.dtype == torch.float64
    half = model.to(torch.bfloat16)
    completions, entropy = completion_logps(half, batch), token_entropy(half, batch)
    assert completions.logps.dtype == entropy.dtype == torch.float32
    logits = half(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    assert logits.dtype == torch.bfloat16
    expected = logits.float().log_softmax(-1).roll(1, dims=1).gather(-1, batch["input_ids"][..., None])[..., 0]
    mask = batch["completion_mask"]
    torch.testing.assert_close(completions.logps[mask], expected[mask])


def test_the_graph_follows_the_mode_and_the_reference_travels_along(model):
    batch = random_batch()
    ref_logps = torch.randn(4, 9)
    with torch.no_grad():
        frozen = completion_logps(model, batch)
    assert not frozen.logps.requires_grad
    assert frozen.ref_logps is None
    trained = completion_logps(model, {**batch, "ref_logps": ref_logps})
    assert trained.logps.requires_grad
    assert torch.equal(trained.ref_logps, ref_logps)
    assert torch.equal(trained.mask, batch["completion_mask"])
    assert not token_entropy(model, batch).requires_grad
