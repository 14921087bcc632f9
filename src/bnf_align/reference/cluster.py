"""The reference pass on a cluster: workers compute, the process that asked writes the cache as answers come.

A forward pass takes the rows of the local pass, so its values are the same to the last bit where the workers'
hardware is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import datasets
import numpy as np
import torch

from bnf_align.cluster import Cluster
from bnf_align.data.responses import Responses
from bnf_align.models import evaluation_mode
from bnf_align.records import BadInput
from bnf_align.reference.cache import namespace_name
from bnf_align.reference.compute import Forward, as_trained, namespace_of

Values = list[np.ndarray]
Rows = dict[str, list[Any]]


@dataclass(frozen=True)
class ReferenceWorkers:
    """Workers that have the reference.

    Args:
        cluster: Where.
        load: Loads the reference on a worker, with its head attached. It is pickled.
    """

    cluster: Cluster
    load: Callable[[], Any]

    def values(
        self, responses: Responses, cuts: Sequence[list[int]], forward: Forward, namespace: str
    ) -> Iterator[tuple[list[int], Values]]:
        """The rows of each cut with their values, as they become ready.

        Args:
            responses: What `cuts` number the rows of.
            cuts: Rows of one forward pass each.
            forward: The pass.
            namespace: Name of the cache's namespace, which every worker's model must have too.

        Raises:
            BadInput: If a worker's model is another one.
        """
        units = [(cut, _rows(responses, cut)) for cut in cuts]
        load = partial(_Reference, self.load, forward, namespace)
        return self.cluster.map(load, units, lambda unit: f"the responses {unit[0]}")


def _rows(responses: Responses, cut: list[int]) -> Rows:
    return {
        "input_ids": [responses.tokens(row) for row in cut],
        "completion_mask": [responses.mask(row) for row in cut],
        "label": [bool(responses.labels[row]) for row in cut],
        "end": [int(responses.ends[row]) for row in cut],
    }


class _Reference:
    """On a worker."""

    def __init__(self, load: Callable[[], Any], forward: Forward, namespace: str) -> None:
        model, self.forward = load(), forward
        if namespace_name(namespace_of(model, forward.autocast, forward.head, forward.packing)) != namespace:
            raise BadInput(
                "A worker's reference is another one than that of the process that asked: its weights, its settings "
                "or the version of this package. Give every machine of the cluster the same files."
            )
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        self.model = as_trained(model, accelerator or torch.device("cpu"), forward.autocast, 0)

    def __call__(self, unit: tuple[list[int], Rows]) -> tuple[list[int], Values]:
        cut, rows = unit
        responses = Responses(datasets.Dataset.from_dict(rows))
        with evaluation_mode(self.model):
            return cut, self.forward(self.model, responses, range(len(responses)))
