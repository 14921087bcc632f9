"""Eq. 4 with the target of Eq. 6, over the whole vocabulary, and the code of Appendix B.

`logits` are the raw outputs z of Eq. 7. In the functions of Eq. 4 position i of the logits speaks of token i: the
shift has been done. Appendix B gets what a model returns, where position i speaks of token i + 1.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor


def eq6_target(pi: Tensor, r: Tensor, y: int) -> Tensor:
    """(V,) f_BNF(y_i, .) of Eq. 6 from the distributions pi (V,) and r (V,) at one position and the token y there."""
    f = torch.empty_like(pi)
    f[y] = min(pi[y] / r[y], torch.ones_like(pi[y]))
    for t in range(len(pi)):
        if t != y:
            f[t] = (1 - f[y]) / (1 - pi[y]) * pi[t]
    return f.detach()


def eq5_target(pi: Tensor, r: Tensor, y: int) -> Tensor:
    """(V,) the one-hot f_LL(y_i, .) of Eq. 5."""
    f = torch.zeros_like(pi)
    f[y] = 1
    return f


def eq4_loss(logits: Tensor, ref_logits: Tensor, y: Tensor, mask: Tensor, label: Tensor, target=eq6_target) -> Tensor:
    """(B,) -label/|y| sum_i sum_j f(y_i, t_j) log pi(t_j); logits (B, T, V), y and mask (B, T), label (B,)."""
    losses = []
    for b in range(len(y)):
        total = logits.new_zeros(())
        for i in mask[b].nonzero().flatten().tolist():
            log_pi = logits[b, i].log_softmax(-1)
            f = target(log_pi.detach().exp(), ref_logits[b, i].softmax(-1), int(y[b, i]))
            total = total + (f * log_pi).sum()
        losses.append(-(1 if label[b] else -1) / int(mask[b].sum()) * total)
    return torch.stack(losses)


def appendix_b(
    policy_logits: Tensor,
    ref_logits: Tensor,
    input_ids: Tensor,
    lengths: Tensor,
    labels: Tensor,
    completion_mask: Tensor,
    mend: Collection[str] = (),
) -> Tensor:
    """() BNF_loss as Appendix B prints it; `mend` names what shall be put right: "shift", "mask", "sign".

    The printed code has neither a mask nor a shift; `completion_mask` is read only where one of them is mended.
    """
    if "shift" in mend:
        policy_logits, ref_logits = policy_logits[:, :-1], ref_logits[:, :-1]
        input_ids, completion_mask = input_ids[:, 1:], completion_mask[:, 1:]

    policy_logp = policy_logits.log_softmax(-1)
    ref_logp = ref_logits.log_softmax(-1)
    response_logp = torch.gather(policy_logp, dim=-1, index=input_ids.unsqueeze(-1)).squeeze(-1)
    response_logp_ref = torch.gather(ref_logp, dim=-1, index=input_ids.unsqueeze(-1)).squeeze(-1)
    other_logp_sum = (policy_logp.exp().detach() * policy_logp).sum(-1) - response_logp.exp().detach() * response_logp
    responses_target = torch.clamp(response_logp.exp() / response_logp_ref.exp(), max=1).detach()
    others_target = (1 - responses_target) / (1 - response_logp.exp().detach())
    loss = responses_target * response_logp + others_target * other_logp_sum

    if "mask" in mend:
        loss = loss * completion_mask
    if "sign" in mend:
        loss = -loss
    return (loss.sum(-1) * labels / lengths).sum()
