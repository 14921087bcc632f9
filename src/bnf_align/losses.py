r"""The maths: what a completion's log-probabilities are worth. Torch only.

Notation, as in the paper (Bidirectional Negative Feedback Loss, arXiv 2410.04834): a prompt x, a completion y of |y|
scored tokens, the policy pi, the frozen reference r, label(y) = +1 or -1. Shapes: B completions, P pairs, T tokens.
Log-probabilities are in nats and at least float32. Every loss is unreduced: one number per completion (pointwise) or
per pair (pairwise); the trainer takes the mean. Hyper-parameter defaults live in the signatures here and nowhere else.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class CompletionLogps:
    """Log-probabilities of B completions, token by token; position i speaks of token i.

    Args:
        logps: (B, T) log pi(y_i | x, y_<i), carries the graph. Half precision is raised to float32.
        mask: (B, T) bool, True where a token is scored. Values elsewhere are ignored.
        ref_logps: (B, T) log r(y_i | x, y_<i), without graph; None for losses that need no reference.

    Raises:
        ValueError: If shapes differ or the mask is not bool.
    """

    logps: Tensor
    mask: Tensor
    ref_logps: Tensor | None = None

    def __post_init__(self) -> None:
        if self.mask.dtype != torch.bool:
            raise ValueError(f"mask must be bool (True = scored), got {self.mask.dtype}.")
        for name in ("logps", "ref_logps"):
            values = getattr(self, name)
            if values is None:
                continue
            if values.shape != self.mask.shape:
                raise ValueError(
                    f"{name} has shape {tuple(values.shape)}, mask {tuple(self.mask.shape)}: one per token."
                )
            # 1 - pi is 0 in bfloat16 from pi = 0.998 on, so nothing below float32 goes any further.
            object.__setattr__(self, name, values.to(torch.promote_types(values.dtype, torch.float32)))

    def halves(self) -> tuple[CompletionLogps, CompletionLogps]:
        """Chosen and rejected, where the first B/2 rows are the chosen ones in the order of their rejected ones."""
        parts = [(None, None) if v is None else v.chunk(2) for v in (self.logps, self.mask, self.ref_logps)]
        chosen, rejected = zip(*parts, strict=True)
        return CompletionLogps(*chosen), CompletionLogps(*rejected)

    def sum(self, values: Tensor) -> Tensor:
        """(B,) sum of per-token `values` (B, T) over the scored tokens."""
        return torch.where(self.mask, values, 0.0).sum(-1)

    def mean(self, values: Tensor) -> Tensor:
        """(B,) mean of per-token `values` (B, T) over the scored tokens; 0 where none is scored."""
        return self.sum(values) / self.length.clamp(min=1)

    @property
    def length(self) -> Tensor:
        """(B,) |y|, the number of scored tokens."""
        return self.mask.sum(-1)

    @property
    def logp(self) -> Tensor:
        """(B,) log pi(y | x), the sum over tokens."""
        return self.sum(self.logps)

    @property
    def mean_logp(self) -> Tensor:
        """(B,) log pi(y | x) / |y|."""
        return self.mean(self.logps)

    @property
    def logratio(self) -> Tensor:
        """(B,) log pi(y | x) - log r(y | x), the sum over tokens."""
        return self.sum(self.logps - self.reference())

    @property
    def mean_logratio(self) -> Tensor:
        """(B,) the log-ratio per token."""
        return self.mean(self.logps - self.reference())

    def reference(self) -> Tensor:
        """(B, T) `ref_logps`; ValueError where there are none."""
        return _needed(self.ref_logps)


def _needed(ref_logps: Tensor | None) -> Tensor:
    if ref_logps is None:
        raise ValueError("This loss compares with the reference and needs ref_logps; none were given.")
    return ref_logps


def log_odds(logp: Tensor) -> Tensor:
    """log(p / (1 - p)) from log p, finite for every p in [0, 1].

    log p is clamped one rounding step below 0, where its own error lies: p = 1 - eps and p = 1 cannot be told apart.
    """
    logp = logp.clamp(max=-torch.finfo(logp.dtype).eps)
    # log(1 - p), each branch where it is exact (Maechler 2012, "Accurately computing log(1 - exp(-|a|))").
    log_rest = torch.where(logp > -math.log(2), torch.log(-torch.expm1(logp)), torch.log1p(-torch.exp(logp)))
    return logp - log_rest


def of_label(label: Tensor, up: Tensor | float, down: Tensor | float) -> Tensor:
    """`up` where `label` is True (preferred), `down` where it is False (dispreferred)."""
    if label.dtype != torch.bool:
        raise ValueError(f"label must be bool (True = preferred), got {label.dtype}.")
    return torch.where(label, up, down)


def sign(label: Tensor) -> Tensor:
    """label(y) of Eq. 4: +1.0 where `label` (B,) is True (preferred), -1.0 where it is False."""
    return of_label(label, 1.0, -1.0)


# ------------------------------------------------------------------------- separable losses: weighted log-likelihoods


class Tokens(NamedTuple):
    """All that a token's weight in a separable loss depends on, in shapes that broadcast: (B, T) and (B, 1), or (n,).

    The head knows some tokens' log-probabilities before others', so a weight must follow from one token alone.
    """

    logps: Tensor  # log pi(y_i | x, y_<i), detached
    ref_logps: Tensor | None  # log r(y_i | x, y_<i); None where the loss needs no reference
    label: Tensor  # bool, True where the token's completion is preferred
    length: Tensor  # |y| of the token's completion, at least 1


TokenWeights = Callable[[Tokens], Tensor]
"""The weights c of a separable loss, of the shape of `Tokens.logps`: they are dL(y) / dlog pi(y_i), too."""


def weighted_log_likelihood(token_weights: TokenWeights, completions: CompletionLogps, label: Tensor) -> Tensor:
    """(B,) L(y) = sum_i sg[c_i] log pi(y_i), what every separable loss is, with the `token_weights` c."""
    length = completions.length.clamp(min=1)[:, None]
    tokens = Tokens(completions.logps.detach(), completions.ref_logps, label[:, None], length)
    return completions.sum(token_weights(tokens) * completions.logps)


# ---------------------------------------------------------------------------------------------- Section 3: BNF


@torch.no_grad()
def bnf_weights(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """The share of the fine-tuning gradient that each token keeps under BNF: w = min(1, odds pi / odds r).

    Eq. 8 at the token itself is label/|y| (pi - f), fine-tuning's is label/|y| (pi - 1), and with Eq. 6 their ratio
    (f - pi) / (1 - pi) is 1 where pi >= r and odds pi / odds r where pi < r; it holds for every other logit too.

    Args:
        logps: (B, T) log pi, nats.
        ref_logps: (B, T) log r, nats.

    Returns:
        (B, T) in [0, 1], detached.
    """
    return torch.exp((log_odds(logps) - log_odds(ref_logps)).clamp(max=0.0))


def bnf_token_weights(y: Tokens) -> Tensor:
    """The weights of the log-likelihood that BNF is: c_i = -label(y)/|y| w_i, with `bnf_weights` w."""
    return bnf_weights(y.logps, _needed(y.ref_logps)) * -sign(y.label) / y.length


def bnf_loss(completions: CompletionLogps, label: Tensor) -> Tensor:
    r"""Bidirectional Negative Feedback (Eq. 4 with the target of Eq. 6), through the surrogate with the same gradient.

        L(y) = -label(y)/|y| sum_i sg[w_i] log pi(y_i),    w_i = min(1, odds pi(y_i) / odds r(y_i))

    Eq. 4 is a cross-entropy against a detached target over the whole vocabulary. Its gradient (Eq. 8) is that of the
    weighted log-likelihood above, exactly, so the token's own log-probability is all that is needed of the vocabulary.
    The *value* differs from Eq. 4's where w < 1; `eq4_value` gives that one. There are no hyper-parameters.

    Args:
        completions: B completions with reference.
        label: (B,) bool, True = preferred.

    Returns:
        (B,) nats per token; positive for preferred, negative for dispreferred completions.

    Raises:
        ValueError: If there is no reference or `label` is not bool.

    Example:
        >>> pi, ref = torch.tensor([[0.5, 0.1]]), torch.tensor([[0.5, 0.4]])
        >>> y = CompletionLogps(pi.log(), torch.tensor([[True, True]]), ref.log())
        >>> bnf_weights(y.logps, y.ref_logps)  # the second token has fallen already: its push fades
        tensor([[1.0000, 0.1667]])
        >>> bnf_loss(y, torch.tensor([False]))
        tensor([-0.5385])
    """
    return weighted_log_likelihood(bnf_token_weights, completions, label)


def eq4_value(completions: CompletionLogps, label: Tensor, entropy: Tensor) -> Tensor:
    """The value of Eq. 4 itself, for curves that shall compare with the paper's; no gradient.

    The other tokens' part of Eq. 4 is (1 - f)/(1 - pi) sum_{j != i} pi_j log pi_j, and that sum is -(H + pi log pi).

    Args:
        completions: B completions with reference.
        label: (B,) bool, True = preferred.
        entropy: (B, T) entropy H of the policy's next-token distribution at each position, nats.

    Returns:
        (B,) nats per token.
    """
    with torch.no_grad():
        logps = completions.logps
        log_target = (logps - completions.reference()).clamp(max=0.0)  # log f(y_i, y_i), Eq. 6
        rest = -torch.expm1(logps.clamp(max=-torch.finfo(logps.dtype).eps))  # 1 - pi
        others = -(-torch.expm1(log_target) / rest) * (entropy + logps.exp() * logps)
        return -sign(label) * completions.mean(log_target.exp() * logps + others)


def bnf_asymmetric_token_weights(y: Tokens) -> Tensor:
    """c_i = -1/|y| where the completion is preferred, BNF's w_i/|y| where it is not."""
    return of_label(y.label, nll_pll_token_weights(y, per_token=True), bnf_token_weights(y))


def bnf_asymmetric(completions: CompletionLogps, label: Tensor) -> Tensor:
    """BNF with full weight on preferred tokens: ours, not the paper's. (B,) nats per token.

    Eq. 6 weakens preferred tokens too where they have fallen below the reference, just those that should come back.
    """
    return weighted_log_likelihood(bnf_asymmetric_token_weights, completions, label)


def bnf_contrastive(chosen: CompletionLogps, rejected: CompletionLogps, *, beta: float = 0.1) -> Tensor:
    """BNF times the contrastive function of DPO: ours, for what Section 7 leaves to future work. (P,) nats per token.

        sg[C] (L(y_w) + L(y_l)),    C = sigmoid(beta log-ratio(y_l) - beta log-ratio(y_w))

    That is Eq. 3 with BNF where log-likelihood stood. C, Table 2's without its factor beta, is 1/2 at the reference:
    training starts as `bnf` on the same pairs, to which `beta=0` is equal, and fades as a pair parts.
    """
    contrast = torch.sigmoid(beta * (rejected.logratio - chosen.logratio)).detach()
    up = torch.ones_like(contrast, dtype=torch.bool)
    return contrast * (bnf_loss(chosen, up) + bnf_loss(rejected, ~up))


# ------------------------------------------------------------------------------------ Section 2.1: log-likelihood


def nll_pll_token_weights(y: Tokens, *, per_token: bool) -> Tensor:
    """c_i = -label(y)/|y|, or without `per_token` -label(y)."""
    return torch.ones_like(y.logps) * -sign(y.label) / (y.length if per_token else 1)


def nll_pll(completions: CompletionLogps, label: Tensor, *, per_token: bool = True) -> Tensor:
    """Negative log-likelihood of preferred, positive of dispreferred completions (Eq. 1): BNF with w = 1. (B,) nats.

    `per_token` divides by |y|, which Eq. 4 with Eq. 5 does and Eq. 1 does not.
    """
    return weighted_log_likelihood(partial(nll_pll_token_weights, per_token=per_token), completions, label)


def sft_token_weights(y: Tokens) -> Tensor:
    """c_i = -1/|y| where the completion is preferred, 0 where it is not."""
    return of_label(y.label, nll_pll_token_weights(y, per_token=True), 0.0)


def sft(completions: CompletionLogps, label: Tensor) -> Tensor:
    """Fine-tuning on preferred completions (Eq. 2); the data path leaves the others out. (B,) nats per token."""
    return weighted_log_likelihood(sft_token_weights, completions, label)


# ----------------------------------------------------------------------- Table 2 and Section 4: the compared methods


def kto_kl(mismatched: CompletionLogps) -> Tensor:
    """KTO's reference point z0 before its clamp: (B,) log-ratios of completions to other rows' prompts, detached.

    The trainer averages them over the whole optimizer step and clamps the mean at 0 (Ethayarajh et al., 2024).
    """
    return mismatched.logratio.detach()


def kto(
    completions: CompletionLogps,
    label: Tensor,
    kl: Tensor,
    *,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """KTO (Ethayarajh et al., 2024, Eq. 7-8): lambda (1 - sigmoid(+-beta (log-ratio - z0))).

    Args:
        completions: B completions with reference.
        label: (B,) bool, True = preferred (desirable).
        kl: () z0 >= 0, the mean of `kto_kl` over the step, clamped at 0, nats.
        beta: Scale of the log-ratio.
        desirable_weight: lambda of preferred completions.
        undesirable_weight: lambda of dispreferred completions.

    Returns:
        (B,) in [0, lambda].
    """
    loss = 1 - torch.sigmoid(sign(label) * beta * (completions.logratio - kl))
    return of_label(label, desirable_weight * loss, undesirable_weight * loss)


def smoothed(margin: Tensor, label_smoothing: float) -> Tensor:
    """-(1 - e) log sigmoid(m) - e log sigmoid(-m) of margins m, where a share e of the pairs is labelled wrongly."""
    return -F.logsigmoid(margin) + label_smoothing * margin


def dpo(
    chosen: CompletionLogps, rejected: CompletionLogps, *, beta: float = 0.1, label_smoothing: float = 0.0
) -> Tensor:
    """DPO (Rafailov et al., 2023, Eq. 7; Table 2); with label smoothing conservative DPO (Mitchell, 2023). (P,)."""
    return smoothed(beta * (chosen.logratio - rejected.logratio), label_smoothing)


def ipo(chosen: CompletionLogps, rejected: CompletionLogps, *, tau: float = 0.1, per_token: bool = True) -> Tensor:
    """IPO (Azar et al., 2023, Eq. 17; Table 2). (P,).

    Its authors average the log-ratio over tokens, as TRL does; Table 2 prints the sum, `per_token=False`.
    """
    gap = chosen.mean_logratio - rejected.mean_logratio if per_token else chosen.logratio - rejected.logratio
    return (gap - 1 / (2 * tau)) ** 2


def rdpo(chosen: CompletionLogps, rejected: CompletionLogps, *, beta: float = 0.1, alpha: float = 0.1) -> Tensor:
    """R-DPO (Park et al., 2024): DPO with + alpha (|y_w| - |y_l|) inside the sigmoid. (P,).

    A longer chosen completion starts with a larger margin, so length is worth less of the gradient.
    """
    margin = beta * (chosen.logratio - rejected.logratio)
    return -F.logsigmoid(margin + alpha * (chosen.length - rejected.length).to(margin.dtype))


def simpo(chosen: CompletionLogps, rejected: CompletionLogps, *, beta: float = 2.5, gamma: float = 1.375) -> Tensor:
    """SimPO (Meng et al., 2024, Eq. 6; Table 2), without reference; gamma stands beside beta, not inside it. (P,)."""
    return -F.logsigmoid(beta * (chosen.mean_logp - rejected.mean_logp) - gamma)


def slic_hf(chosen: CompletionLogps, rejected: CompletionLogps, *, delta: float = 1.0, lam: float = 0.1) -> Tensor:
    """SLiC-HF (Zhao et al., 2023, Eq. 3-4): the hinge of Table 2 and lam times the chosen completion's NLL. (P,).

    Table 2 prints the hinge alone, `lam=0`; Section 4 says that the compared method integrates the SFT objective.
    """
    return F.relu(delta - chosen.logp + rejected.logp) - lam * chosen.logp


def orpo(chosen: CompletionLogps, rejected: CompletionLogps, *, lam: float = 0.1) -> Tensor:
    """ORPO (Hong et al., 2024, Eq. 6-7): NLL of the chosen completion plus lam times the odds-ratio term. (P,).

    Odds are those of the mean token log-probability. Our NLL covers the completion; TRL's covers the prompt too.
    """
    odds_ratio = log_odds(chosen.mean_logp) - log_odds(rejected.mean_logp)
    return -chosen.mean_logp - lam * F.logsigmoid(odds_ratio)


# ------------------------------------------------------------------------------------- beside the paper: its peers


def apo_zero(completions: CompletionLogps, label: Tensor, *, beta: float = 0.1) -> Tensor:
    """APO-zero (D'Oosterlinck et al., 2024, Eq. 7): KTO with z0 = 0, both labels anchored at the reference. (B,).

    Eq. 7 is the sum over the two of a pair; single responses need no other formula.
    """
    return kto(completions, label, completions.logps.new_zeros(()), beta=beta)


def bco(completions: CompletionLogps, label: Tensor, delta: Tensor, *, beta: float = 0.1) -> Tensor:
    """BCO (Jung et al., 2024): -log sigmoid(+-(beta log-ratio - delta)), a classifier of ups and downs. (B,).

    `delta` () is the mean of beta log-ratio over the responses of all steps before: TRL's running mean of rewards.
    """
    return -F.logsigmoid(sign(label) * (beta * completions.logratio - delta))


def topr(completions: CompletionLogps, label: Tensor) -> Tensor:
    """TOPR (Le Roux et al., 2025), rewards +-1: -log pi(y) of an up, sg[min(1, pi(y)/r(y))] log pi(y) of a down. (B,).

    BNF's nearest relative: downs alone are tapered, and by the ratio of whole completions. Sums over tokens, in nats.
    """
    ratio = completions.logratio.detach().clamp(max=0.0).exp()
    return of_label(label, -completions.logp, ratio * completions.logp)


def w_reinforce_token_weights(y: Tokens, *, lam: float) -> Tensor:
    """c_i = -lam where the completion is preferred, 1 where it is not."""
    weights = nll_pll_token_weights(y, per_token=False)
    return of_label(y.label, lam * weights, weights)


def w_reinforce(completions: CompletionLogps, label: Tensor, *, lam: float = 0.1) -> Tensor:
    """W-REINFORCE (Zhu et al., 2025) on given answers: lam NLL of ups and log pi(y) of downs, sums of tokens. (B,)."""
    return weighted_log_likelihood(partial(w_reinforce_token_weights, lam=lam), completions, label)


def npo(completions: CompletionLogps, label: Tensor, *, beta: float = 0.1) -> Tensor:
    """NPO (Zhang et al., 2024, Eq. 3): 2/beta log(1 + (pi/r)^beta) of downs; the data path leaves ups out. (B,)."""
    return of_label(label, 0.0, 2 / beta * F.softplus(beta * completions.logratio))


def dpo_norm(
    chosen: CompletionLogps, rejected: CompletionLogps, *, beta: float = 5.0, label_smoothing: float = 0.0
) -> Tensor:
    """Length-normalised DPO (Tulu 3, Lambert et al., 2024; OLMo 3): DPO of log-ratios per token. (P,)."""
    return smoothed(beta * (chosen.mean_logratio - rejected.mean_logratio), label_smoothing)


def rpo(chosen: CompletionLogps, rejected: CompletionLogps, *, beta: float = 0.1, alpha: float = 1.0) -> Tensor:
    """DPO with NLL (Pang et al., 2024, Eq. 1; Liu et al., 2024): plus alpha times the NLL per chosen token. (P,)."""
    return dpo(chosen, rejected, beta=beta) - alpha * chosen.mean_logp


# ------------------------------------------------------------------------------------------------------ the table


@dataclass(frozen=True)
class LossSpec:
    """What the other rooms need to know of a loss.

    `pairwise`: called with (chosen, rejected), else with (completions, label). `reference`: needs `ref_logps`. `only`:
    the one label it trains on, True for ups; None for both. `mismatched`: takes KTO's z0 as third argument.
    `running_reward`: takes BCO's delta so. `token_weights`: of a separable loss, called with `Tokens` and all
    hyper-parameters; `function` is the log-likelihood so weighted.
    """

    function: Callable[..., Tensor]
    pairwise: bool = False
    reference: bool = False
    only: bool | None = None
    mismatched: bool = False
    running_reward: bool = False
    token_weights: Callable[..., Tensor] | None = None

    @property
    def separable(self) -> bool:
        """Whether each token's share of the gradient follows from that token, so that the head forms it on the way."""
        return self.token_weights is not None

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """Name -> default of every hyper-parameter, from the function's signature."""
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}

    def check(self, name: str, loss_kwargs: Mapping[str, Any]) -> None:
        """Raise ValueError where `loss_kwargs` holds something that the loss called `name` does not take."""
        unknown = sorted(set(loss_kwargs) - set(self.hyperparameters))
        if unknown:
            takes = ", ".join(self.hyperparameters) or "no hyper-parameter"
            raise ValueError(f"{name} takes {takes}; loss_kwargs has {', '.join(unknown)}.")
        for parameter, value in loss_kwargs.items():
            smoothing, least = parameter == "label_smoothing", parameter in ("beta", "tau")
            needed = "a share of wrong labels, from 0 to below 0.5," if smoothing else "a finite number from 0 up"
            number = isinstance(value, int | float) and not isinstance(value, bool)
            right = number and 0 <= value < (0.5 if smoothing else math.inf)
            if isinstance(self.hyperparameters[parameter], bool):
                needed, right = "true or false", isinstance(value, bool)
            elif least:  # with 0 nothing is learnt
                needed, right = "a finite number above 0", right and value > 0
            if not right:
                raise ValueError(f"{parameter} of {name} is {value!r}: {needed} is needed.")


LOSSES: dict[str, LossSpec] = {
    "bnf": LossSpec(bnf_loss, reference=True, token_weights=bnf_token_weights),
    "nll_pll": LossSpec(nll_pll, token_weights=nll_pll_token_weights),
    "sft": LossSpec(sft, only=True, token_weights=sft_token_weights),
    "kto": LossSpec(kto, reference=True, mismatched=True),
    "dpo": LossSpec(dpo, pairwise=True, reference=True),
    "ipo": LossSpec(ipo, pairwise=True, reference=True),
    "rdpo": LossSpec(rdpo, pairwise=True, reference=True),
    "simpo": LossSpec(simpo, pairwise=True),
    "slic_hf": LossSpec(slic_hf, pairwise=True),
    "orpo": LossSpec(orpo, pairwise=True),
    "bnf_asymmetric": LossSpec(bnf_asymmetric, reference=True, token_weights=bnf_asymmetric_token_weights),
    "bnf_contrastive": LossSpec(bnf_contrastive, pairwise=True, reference=True),
    "apo_zero": LossSpec(apo_zero, reference=True),
    "bco": LossSpec(bco, reference=True, running_reward=True),
    "topr": LossSpec(topr, reference=True),
    "w_reinforce": LossSpec(w_reinforce, token_weights=w_reinforce_token_weights),
    "npo": LossSpec(npo, reference=True, only=False),
    "dpo_norm": LossSpec(dpo_norm, pairwise=True, reference=True),
    "rpo": LossSpec(rpo, pairwise=True, reference=True),
}
"""Every objective by the name that a recipe gives it."""
