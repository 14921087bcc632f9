"""The head on a GPU: is the gradient right with bfloat16 weights, what time and memory does it take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from device import Device, compared, rates
from head import (
    Problem,
    appendix_b,
    exact,
    flops,
    fresh,
    gradient_error,
    problem,
    through_call,
    trl_head,
    vectorised_target,
)
from protocol import Estimate

LOSSES = ("bnf", "sft", "dpo", "kto")
Runs = Mapping[str, Callable[[Problem], Any]]

HEADS: Runs = {loss: partial(through_call, loss) for loss in LOSSES}
PEERS: Runs = {"bnf": HEADS["bnf"], "trl": trl_head, "appendix-b": appendix_b}
Shape = tuple[int, int, int]
"""Scored tokens, width, vocabulary."""


def gradients(device: Device, shape: Shape) -> dict[str, Estimate]:
    """Relative L2 error of dL/dh and dL/dW, the larger: BNF against Eq. 4, the others against autograd."""
    where: dict[str, Any] = {"dtype": torch.bfloat16, "device": device.name}
    errors = {"bnf": gradient_error(*shape, vectorised_target, **where)}
    errors |= {loss: error_to_logits(loss, problem(*shape, **where)) for loss in LOSSES[1:]}
    return {f"gradient-{loss}": exact(error) for loss, error in errors.items()}


def error_to_logits(loss: str, given: Problem) -> float:
    """The same error against the gradient through all logits in float64, from the same rounded numbers."""
    wide = given._replace(
        **{name: getattr(given, name).detach().double().requires_grad_() for name in ("hidden", "weight")}
    )
    fresh(partial(through_call, loss), given)
    through_call(loss, wide, logits=True)
    pairs = ((given.hidden.grad, wide.hidden.grad), (given.weight.grad, wide.weight.grad))
    return max(float((one.double() - other).norm() / other.norm()) for one, other in pairs)


def heads(device: Device, prefix: str, runs: Runs, shape: Shape, rounds: int, ceiling: int) -> dict[str, Estimate]:
    """Time, memory above what is held, and for our own share of the matmul ceiling, forward and backward."""
    given = problem(*shape, dtype=torch.bfloat16, device=device.name)
    calls = {name: partial(fresh, run, given) for name, run in runs.items()}
    seconds = device.seconds({**calls, "again": calls["bnf"]}, rounds)
    found, most = compared(prefix, seconds), device.ceiling(ceiling).figure
    for name, call in calls.items():
        given.hidden.grad = given.weight.grad = None
        held = device.held()
        found[f"{prefix}-memory-{name}"] = exact((device.peak(call) - held) / 2**20)
        if name in LOSSES:  # the counter does not see into TRL's kernel
            found[f"{prefix}-ceiling-{name}"] = rates(flops(call) / most, seconds[name])
    return found
