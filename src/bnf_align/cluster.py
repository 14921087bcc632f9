"""Work on a Ray cluster: units that follow from the input, each computed whole by one worker, answers as they come.

A worker is an actor of Ray Data's `map_batches`: it loads its model once, and where it dies Ray starts another one and
gives it the units that were on their way. The answer to a unit depends on the unit alone, so neither the number of
workers nor their deaths can be seen in it.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from bnf_align.records import BadInput

logger = logging.getLogger(__name__)

Unit = TypeVar("Unit")
Answer = TypeVar("Answer")
Work = Callable[[Unit], Answer]

MOST_BLOCKS = 10_000
"""Parts of a job that Ray follows one by one. A larger job has several units in each, whose answers come together."""


@dataclass(frozen=True)
class Cluster:
    """Where the workers are.

    A call begins Ray where it is not running yet and leaves it running: the next call finds its processes warm.
    """

    address: str | None = None
    """As `ray.init` takes it, `auto` or HOST:PORT; None: the one in $RAY_ADDRESS, or this machine alone."""
    workers: int | None = None
    """None: one for each GPU of the cluster, or without GPUs one for each machine."""

    def ask(self, question: Callable[[], Answer]) -> Answer:
        """What one worker answers to a question that is asked once.

        Raises:
            BadInput: If `question` does.
        """
        ray = self._connected()
        # Without `max_calls` a process could keep what it has loaded; Ray needs the device for the next one.
        once = {"max_calls": 1} if self._resources["num_gpus"] else {}
        return _home(ray.get(ray.remote(**self._resources, **once)(_answer).remote(question)))

    def map(self, load: Callable[[], Work[Unit, Answer]], units: Sequence[Unit]) -> Iterator[Answer]:
        """The answers to `units`, in the order in which they become ready.

        Args:
            load: Called once on each worker; gives what answers a unit. It is pickled, as units and answers are.
            units: Each is computed whole, by one worker.

        Raises:
            BadInput: If `load`, or what it gives, does.
        """
        if not units:
            return
        ray = self._connected()
        from ray.data import ActorPoolStrategy

        # A part is an Arrow table, because Ray never cuts or joins those it is given; in it a unit is a row of bytes.
        size = -(-len(units) // MOST_BLOCKS)
        parts = [_table(units[start : start + size]) for start in range(0, len(units), size)]
        answers = ray.data.from_arrow(parts).map_batches(
            _Worker,
            fn_constructor_args=(load,),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=min(self._size, len(units))),
            **self._resources,
        )
        # Nothing is fetched ahead: an answer that waits in memory would be lost with this process.
        for table in answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            for data in table.column("data").to_pylist():
                yield _home(pickle.loads(data))

    def _connected(self) -> Any:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise BadInput(f"--engine ray needs Ray: pip install 'bnf-align[ray]' ({error}).") from error
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False  # the verbs have their own
        if not ray.is_initialized():
            address = self.address or os.environ.get("RAY_ADDRESS")
            here: dict[str, Any] = {
                "include_dashboard": False,
                "num_cpus": max(self.workers or 1, os.cpu_count() or 1),
            }
            try:
                ray.init(address, log_to_driver=False, logging_level=logging.ERROR, **({} if address else here))
            except (ConnectionError, ValueError) as error:
                raise BadInput(f"--ray-address {address}: {error}") from error
        return ray

    @property
    def _size(self) -> int:
        return self.workers or self._gpus or len(self._nodes)

    @property
    def _resources(self) -> dict[str, int]:
        """A worker's share: a GPU where there are any, else what its machine has, divided among its workers.

        Ray tells a process to compute with as many threads as it has CPUs.
        """
        if self._gpus:
            return {"num_gpus": 1, "num_cpus": 1}
        per_node = -(-self._size // len(self._nodes))
        cpus = min(int(node["Resources"].get("CPU", 1)) for node in self._nodes)
        return {"num_gpus": 0, "num_cpus": max(1, cpus // per_node)}

    @property
    def _nodes(self) -> list[dict[str, Any]]:
        import ray

        return [node for node in ray.nodes() if node["Alive"]]

    @property
    def _gpus(self) -> int:
        return sum(int(node["Resources"].get("GPU", 0)) for node in self._nodes)


class _Worker:
    """An actor."""

    def __init__(self, load: Callable[[], Work]) -> None:
        try:
            self._work = load()
        except BadInput as error:
            self._work = _Refusal(error)

    def __call__(self, table: pa.Table) -> pa.Table:
        units = [pickle.loads(data) for data in table.column("data").to_pylist()]
        return _table([_answer(partial(self._work, unit)) for unit in units])


@dataclass(frozen=True)
class _Refusal:
    """Travels as an answer: Ray would wrap an exception in its own and print the traceback of every layer."""

    error: BadInput

    def __call__(self, _: Any) -> Any:
        raise self.error


def _answer(question: Callable[[], Any]) -> Any:
    try:
        return question()
    except BadInput as error:
        return _Refusal(error)


def _home(answer: Any) -> Any:
    if isinstance(answer, _Refusal):
        raise answer.error
    return answer


def _table(values: Sequence[Any]) -> pa.Table:
    return pa.table({"data": pa.array([pickle.dumps(value) for value in values], pa.binary())})
