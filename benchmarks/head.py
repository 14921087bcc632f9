"""The fused head against Appendix B of the paper and against TRL's chunked head: matmuls, memory, time, gradient.

    python benchmarks/head.py

All heads turn hidden states (N, H) and the weight (V, H) into the gradients of both, in float32 on one thread.

* ours: `bnf_align.head`, with the BNF or the fine-tuning loss.
* Appendix B: the paper's code with shift, mask and sign mended and the reference under no_grad, which it leaves out.
  The shift is done on hidden states, so that it costs no copy of the logits.
* Appendix B, trimmed: the same with everything dropped as soon as nothing needs it; its peak is reported beside.
* TRL: `trl.kernels.ChunkedLogProbFunction` with the tile that TRL sets, times the same BNF weight.

Writes seven rows of `results/claims.csv`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from costs import write_costs
from protocol import ROOT, Estimate, median_ratio, paired_seconds, peak_memory, write_claim
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from trl.kernels import ChunkedLogProbFunction
from trl.trainer.utils import _CHUNKED_LOGPROB_CHUNK_SIZE as TRL_TILE

from bnf_align.head import Head, HeadCall, fused_logps, fused_loss
from bnf_align.losses import LOSSES, CompletionLogps, Tokens, bnf_weights

sys.path.append(str(ROOT / "tests"))
from reference.eq4 import eq4_loss, eq6_target

SHAPES = {"32k": (2048, 512, 32_000), "128k": (1024, 512, 128_256)}
ROUNDS = {"32k": 6, "128k": 4}
GRADIENT_SHAPES = ((48, 64, 512), (128, 512, 32_000))
MIB = 2**20


class Problem(NamedTuple):
    """What a head is given: two responses of equal length, one preferred, all tokens scored."""

    hidden: Tensor
    weight: Tensor
    targets: Tensor
    ref_hidden: Tensor
    ref_logps: Tensor
    coefficient: Tensor
    """(N,) label/|y| over the number of responses."""


def problem(
    tokens: int, width: int, vocabulary: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Problem:
    """Random hidden states and weights, logits of about unit size, a reference near the policy."""
    random = torch.Generator(device).manual_seed(0)
    normal = partial(torch.randn, generator=random, device=device)
    hidden = normal(tokens, width).to(dtype).requires_grad_()
    weight = (normal(vocabulary, width) / width**0.5).to(dtype).requires_grad_()
    targets = torch.randint(vocabulary, (tokens,), generator=random, device=device)
    ref_hidden = 0.9 * hidden.detach()
    with torch.no_grad():
        ref_logps = fused_logps(ref_hidden, Head(weight), targets).logps
    label = torch.ones(tokens, device=device)
    label[tokens // 2 :] = -1
    return Problem(hidden, weight, targets, ref_hidden, ref_logps, label / (tokens // 2) / 2)


def ours(given: Problem, scale: float | None = None) -> None:
    """The fused head with BNF."""

    def weights(part: slice, logps: Tensor) -> Tensor:
        return -given.coefficient[part] * bnf_weights(logps, given.ref_logps[part])

    fused_loss(given.hidden, Head(given.weight, scale=scale), given.targets, weights)[0].backward()


def trl_head(given: Problem, tile: int = TRL_TILE) -> None:
    """TRL's head, asked for log-probabilities alone."""
    outputs = ("log_probs",)
    logps = ChunkedLogProbFunction.apply(
        given.hidden, given.weight, None, given.targets, 1.0, tile, None, 1.0, outputs
    )[0]
    weights = bnf_weights(logps.detach(), given.ref_logps)
    (-given.coefficient * weights * logps).sum().backward()


def appendix_b(given: Problem) -> None:
    """The paper's code line by line: both log-softmaxes live until it returns, their logits do not."""
    with torch.no_grad():
        ref_logp = (given.ref_hidden @ given.weight.t()).log_softmax(-1)
    policy_logp = (given.hidden @ given.weight.t()).log_softmax(-1)
    tokens = given.targets[:, None]
    response_logp = torch.gather(policy_logp, -1, tokens).squeeze(-1)
    response_logp_ref = torch.gather(ref_logp, -1, tokens).squeeze(-1)
    other_logp_sum = (policy_logp.exp().detach() * policy_logp).sum(-1) - response_logp.exp().detach() * response_logp
    responses_target = torch.clamp(response_logp.exp() / response_logp_ref.exp(), max=1).detach()
    others_target = (1 - responses_target) / (1 - response_logp.exp().detach())
    loss = responses_target * response_logp + others_target * other_logp_sum
    (-given.coefficient * loss).sum().backward()


def trimmed_appendix_b(given: Problem) -> None:
    """The same formula; what is not needed any more is dropped at once, the reference before the policy starts."""
    with torch.no_grad():
        ref_logps = (given.ref_hidden @ given.weight.t()).log_softmax(-1).gather(-1, given.targets[:, None])[:, 0]
    logp = (given.hidden @ given.weight.t()).log_softmax(-1)
    own = logp.gather(-1, given.targets[:, None])[:, 0]
    others = (logp.exp().detach() * logp).sum(-1) - own.exp().detach() * own
    del logp
    target = torch.clamp(own.exp() / ref_logps.exp(), max=1).detach()
    others_target = (1 - target) / (1 - own.exp().detach())
    (-given.coefficient * (target * own + others_target * others)).sum().backward()


HEADS: dict[str, Callable[[Problem], None]] = {"ours": ours, "Appendix B": appendix_b, "TRL": trl_head}


def through_call(loss: str, given: Problem, logits: bool = False) -> HeadCall:
    """The head as a training step calls it, forward and backward; `logits`: through all of them, for comparison."""
    spec, device = LOSSES[loss], given.hidden.device
    tokens, label = len(given.targets), torch.tensor([True, bool(spec.only)], device=device)
    ids, scored = given.targets.view(2, -1), torch.ones(2, tokens // 2 + 1, dtype=torch.bool, device=device)
    scored[:, 0] = False
    batch = {"input_ids": torch.cat([ids[:, :1], ids], dim=1), "completion_mask": scored}
    if spec.reference:
        batch["ref_logps"] = torch.nn.functional.pad(given.ref_logps.view(2, -1), (1, 0))
    batch["label"] = label
    kl = (torch.zeros((), device=device),) if spec.mismatched else ()

    def token_weights(tokens: Tokens) -> Tensor:
        return spec.token_weights(tokens, **spec.hyperparameters) / 2

    def value(completions: CompletionLogps) -> Tensor:
        if spec.pairwise:
            return spec.function(*completions.halves()).sum()
        return spec.function(completions, label, *kl).sum() / 2

    on_the_way = spec.separable and not logits
    call = HeadCall(batch, token_weights=token_weights) if on_the_way else HeadCall(batch, value)
    hidden = torch.nn.functional.pad(given.hidden.view(2, tokens // 2, -1), (0, 0, 0, 1))
    if logits:
        call.through_logits(hidden @ given.weight.t()).backward()
    else:
        call.through_head(hidden, Head(given.weight)).backward()
    return call


class Flops(TorchDispatchMode):
    """Counts what matmuls multiply, in place too, which `FlopCounterMode` passes over; fused attention is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        packet = {torch.ops.aten.addmm_: torch.ops.aten.addmm}.get(packet, packet)
        if packet in flop_registry and "attention" not in str(packet):
            shaped = [value for value in args if not isinstance(value, torch.dtype)]  # the formulas know no out_dtype
            self.total += flop_registry[packet](*shaped, **(kwargs or {}), out_val=result)
        return result


def flops(call: Callable[[], Any]) -> int:
    """Floating-point operations of the matmuls in `call`."""
    with Flops() as count:
        call()
    return count.total


def prepare(run: Callable[[Problem], Any], shape: tuple[int, int, int]) -> Callable[[], Any]:
    """For `peak_memory`: the libraries warm, the gradients still to be made; they are part of the result."""
    run(problem(8, 16, 64))
    given = problem(*shape)

    def call() -> Problem:
        run(given)
        return given

    return call


def fresh(run: Callable[[Problem], Any], given: Problem) -> None:
    """`run` as a step meets it: without gradients from before."""
    given.hidden.grad = given.weight.grad = None
    run(given)


def times(shape: tuple[int, int, int], rounds: int) -> dict[str, Estimate]:
    """CPU time of each head over ours."""
    given = problem(*shape)
    seconds = paired_seconds(*(partial(fresh, run, given) for run in HEADS.values()), rounds=rounds).T
    return {name: median_ratio(row, seconds[0]) for name, row in zip(HEADS, seconds, strict=True)}


def vectorised_target(pi: Tensor, r: Tensor, y: int) -> Tensor:
    """Eq. 6 without the loop over the vocabulary."""
    own = (pi[y] / r[y]).clamp(max=1)
    f = (1 - own) / (1 - pi[y]) * pi
    f[y] = own
    return f.detach()


def gradient_error(tokens: int, width: int, vocabulary: int, target: Any = eq6_target, **where: Any) -> float:
    """Relative L2 error of our gradient, the larger of dL/dh and dL/dW, against Eq. 4 in float64."""
    given = problem(tokens, width, vocabulary, **where)
    random = torch.Generator(given.hidden.device).manual_seed(1)
    h, w = (values.detach().double().requires_grad_() for values in (given.hidden, given.weight))
    logits = 3 * h @ w.t()  # sharp enough for probabilities of all sizes
    sampled = torch.multinomial(logits.detach().softmax(-1), 1, generator=random)[:, 0]
    ref_logits = (logits + 0.5 * torch.randn(logits.shape, generator=random, device=logits.device)).detach()
    ref_logps = ref_logits.log_softmax(-1).gather(-1, sampled[:, None])[:, 0]
    ids, mask, label = sampled.view(2, -1), torch.ones(2, tokens // 2, dtype=torch.bool), torch.tensor([True, False])
    shape = (2, tokens // 2, vocabulary)
    expected = eq4_loss(logits.view(shape), ref_logits.view(shape), ids, mask, label, target).sum() / 2
    expected.backward()

    ours(given._replace(targets=sampled, ref_logps=ref_logps.float()), scale=3.0)
    pairs = ((given.hidden.grad, h.grad), (given.weight.grad, w.grad))
    return max(float((one.double() - other).norm() / other.norm()) for one, other in pairs)


def exact(value: float) -> Estimate:
    """A counted figure: it has no noise."""
    return Estimate(value, value, value)


def shape_text(name: str) -> str:
    """N x H x V."""
    return "x".join(map(str, SHAPES[name]))


def write_flops(**where: Any) -> None:
    """The row flops-bnf-sft, from one head call each."""
    counts = [flops(partial(through_call, loss, problem(*SHAPES["32k"]))) for loss in ("bnf", "sft")]
    claim = f"matmul FLOPs of the head with BNF ({counts[0]:.4g}) over SFT, forward and backward, {shape_text('32k')}"
    write_claim("flops-bnf-sft", claim, exact(counts[0] / counts[1]), "figure == 1", **where)


def write_memory(**where: Any) -> None:
    """The rows about memory."""
    runs = {**HEADS, "Appendix B, trimmed": trimmed_appendix_b}
    for name, shape in SHAPES.items():
        peaks = {other: peak_memory(prepare, run, shape) for other, run in runs.items()}
        texts = ", ".join(f"{other} {peak / MIB:.0f}" for other, peak in peaks.items())
        claim = f"head peak, both gradients included, Appendix B over ours, {shape_text(name)}; in MiB {texts}"
        figure = exact(peaks["Appendix B"] / peaks["ours"])
        write_claim(f"memory-appendix-b-{name}", claim, figure, "figure >= 6", **where)
    differences, allowed = [], []
    for shape in SHAPES.values():
        peaks = [peak_memory(prepare, partial(through_call, loss), shape) for loss in ("bnf", "sft")]
        differences.append(peaks[0] - peaks[1])
        allowed.append(2 * MIB + 12 * shape[0])
    worst = int(np.argmax(np.subtract(differences, allowed)))
    texts = [f"{d} of {a} allowed at {shape_text(n)}" for d, a, n in zip(differences, allowed, SHAPES, strict=True)]
    claim = f"peak bytes of the head, BNF minus SFT ({'; '.join(texts)})"
    write_claim("memory-bnf-sft", claim, exact(differences[worst]), f"figure <= {allowed[worst]}", **where)


def write_times(**where: Any) -> None:
    """The rows about time: the worse of both shapes."""
    found = {name: times(shape, ROUNDS[name]) for name, shape in SHAPES.items()}
    for claim_id, other, threshold in (("time-appendix-b", "Appendix B", 1.4), ("time-trl-head", "TRL", 1.6)):
        worse = min((ratios[other] for ratios in found.values()), key=lambda ratio: ratio.low)
        texts = [
            f"{shape_text(name)}: {r[other].figure:.2f} ({r[other].low:.2f} to {r[other].high:.2f}, "
            f"{ROUNDS[name]} rounds)"
            for name, r in found.items()
        ]
        claim = f"CPU time of the head, {other} over ours, forward and backward; {'; '.join(texts)}"
        write_claim(claim_id, claim, worse, f"low >= {threshold}", **where)


def write_gradient(sizes: Sequence[tuple[int, int, int]] = GRADIENT_SHAPES, **where: Any) -> None:
    """The row gradient: Eq. 6 token by token at the first shape, without that loop at the second."""
    targets = (eq6_target, vectorised_target)
    errors = [gradient_error(*size, target) for size, target in zip(sizes, targets, strict=True)]
    texts = [f"{'x'.join(map(str, size))}: {error:.2g}" for size, error in zip(sizes, errors, strict=True)]
    claim = (
        "relative error of the float32 gradient against Eq. 4 in float64, the larger of dL/dh and dL/dW; "
        f"{', '.join(texts)}"
    )
    write_claim("gradient", claim, exact(max(errors)), "figure <= 2e-6", **where)


def main() -> None:
    """Count, weigh, time and write; what is quick comes first."""
    torch.set_num_threads(1)
    for write in (write_gradient, write_flops, write_memory, write_times):
        write()
        write_costs()


if __name__ == "__main__":
    main()
