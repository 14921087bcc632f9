"""Work on a Ray cluster: units that follow from the input, each computed whole by one worker, answers as they come.

A worker is an actor of Ray Data's `map_batches`: it loads its model once, and where it dies Ray starts another one and
gives it the units that were on their way. The answer to a unit depends on the unit alone, so neither the number of
workers nor their deaths can be seen in it.
"""

from __future__ import annotations

import logging
import os
import pickle
import platform
import socket
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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

MOST_FAILURES = 10
"""Units that may fail before the job ends: a few rows may be odd, but a broken worker spoils all that it is given."""


@dataclass(frozen=True)
class Cluster:
    """Where the workers are.

    A call begins Ray where it is not running yet and leaves it running: the next call finds its processes warm.

    Raises:
        BadInput: If Ray is not installed.
    """

    address: str | None = None
    """As `ray.init` takes it, `auto` or HOST:PORT; None: the one in $RAY_ADDRESS, or this machine alone."""
    workers: int | None = None
    """None: one for each GPU of the cluster, or without GPUs one for each machine."""

    def __post_init__(self) -> None:
        try:
            import ray.data  # noqa: F401 (before anything is loaded that would be in vain)
        except ImportError as error:
            raise BadInput(f"--engine ray needs Ray: pip install 'ray[data]' ({error}).") from error

    def ask(self, question: Callable[[], Answer]) -> Answer:
        """What one worker answers to a question that is asked once; BadInput if `question` fails."""
        ray = self._connected()
        # Without `max_calls` a process could keep what it has loaded; Ray needs the device for the next one.
        once = {"max_calls": 1} if self._share["num_gpus"] else {}
        with _in_plain_words():
            found = ray.get(ray.remote(**self._share, **once)(answer).remote(from_here(question)))
        if isinstance(found, Failure):
            raise found.error
        return found

    def map(
        self, load: Callable[[], Work[Unit, Answer]], units: Sequence[Unit], name: Callable[[Unit], str] = str
    ) -> Iterator[Answer]:
        """The answers to `units`, in the order in which they become ready.

        Where a unit fails the others go on, and the error comes when they are done.

        Args:
            load: Called once on each worker; gives what answers a unit. It is pickled, as units and answers are.
            units: Each is computed whole, by one worker.
            name: What to call a unit that failed, such as the ids of its rows.

        Raises:
            BadInput: If units fail, or workers cannot start; at once if `load` fails or a unit raises `BadInput`.
        """
        failed: list[str] = []
        for number, found in self._answers(load, units) if units else ():
            if not isinstance(found, Failure):
                yield found
                continue
            if found.ends_all:
                raise found.error
            failed.append(f"{name(units[number])}: {found.error}")
            logger.error(f"{failed[-1]}\n{found.traceback}")
            if len(failed) > MOST_FAILURES:
                break
        if failed:
            raise BadInput(
                f"{len(failed):,} of {len(units):,} batches failed on the workers, the first with {failed[0]}. The "
                "answers to the others are kept, and the same command asks again for what is missing."
            )

    def _answers(self, load: Callable[[], Work], units: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        """Numbers of units with what came of them."""
        ray = self._connected()
        from ray.data import ActorPoolStrategy

        numbered, size = list(enumerate(units)), -(-len(units) // MOST_BLOCKS)
        parts = [packed(numbered[start : start + size]) for start in range(0, len(units), size)]
        answers = ray.data.from_arrow(parts).map_batches(
            Worker,
            fn_constructor_args=(from_here(load),),
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=min(self._size, len(units))),
            **self._share,
        )
        with _in_plain_words():
            # Nothing is fetched ahead: an answer that waits in memory would be lost with this process.
            for table in answers.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                yield from unpacked(table)

    def _connected(self) -> Any:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray.data

        # Failures are said once, by us; progress bars are the verbs' own.
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        ray.data.DataContext.get_current().enable_progress_bars = False
        if not ray.is_initialized():
            address = self.address or os.environ.get("RAY_ADDRESS")
            here = {"include_dashboard": False, "num_cpus": max(self.workers or 1, os.cpu_count() or 1)}
            try:
                _knock(address)
                # Not told "local", Ray would join what somebody has left running on this machine.
                options: dict[str, Any] = {} if address else here
                ray.init(address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
            except (OSError, RuntimeError, ValueError) as error:
                raise BadInput(f"--ray-address {address}: no cluster can be joined there ({error}).") from error
        return ray

    @property
    def _size(self) -> int:
        return self.workers or self._gpus or len(self._machines)

    @property
    def _share(self) -> dict[str, int]:
        """A worker's: a GPU where there are any, else what its machine has, divided among its workers.

        Ray tells a process to compute with as many threads as it has CPUs.
        """
        if self._gpus:
            return {"num_gpus": 1, "num_cpus": 1}
        per_machine = -(-self._size // len(self._machines))
        return {"num_gpus": 0, "num_cpus": max(1, min(self._machines) // per_machine)}

    @property
    def _machines(self) -> list[int]:
        """CPUs of each machine that lends any; the head of a cluster often lends none."""
        import ray

        lent = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        if not any(lent):
            raise BadInput("No machine of the Ray cluster lends a CPU: start its workers first.")
        return [cpus for cpus in lent if cpus]

    @property
    def _gpus(self) -> int:
        import ray

        return int(ray.cluster_resources().get("GPU", 0))


def _knock(address: str | None) -> None:
    """Whether anybody answers at HOST:PORT; Ray would go on trying for minutes."""
    host, _, port = (address or "").rpartition(":")
    if port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


@contextmanager
def _in_plain_words() -> Iterator[None]:
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        first_line = str(error).strip().partition("\n")[0]
        raise BadInput(
            f"The workers cannot start, or Ray has lost them: {first_line} Does every machine have this package and "
            "the memory for the model? Ray's logs, in /tmp/ray on the machines, say more. Answers that had arrived "
            "are kept, and the same command goes on."
        ) from error


# -------------------------------------------------------------------------------------------------- on a worker


class Worker:
    """An actor of `map_batches`; `load` gives what answers a unit."""

    def __init__(self, load: Callable[[], Callable[[Any], Any]]) -> None:
        self._work = answer(load)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Numbered units to numbered answers."""
        return packed([(number, self._of(unit)) for number, unit in unpacked(table)])

    def _of(self, unit: Any) -> Any:
        return self._work if isinstance(self._work, Failure) else answer(partial(self._work, unit), of_unit=True)


@dataclass(frozen=True)
class Failure:
    """Travels as an answer: Ray would wrap an exception in its own and print the traceback of every layer."""

    error: BadInput
    traceback: str
    ends_all: bool
    """Other units would fail in the same way."""


def answer(question: Callable[[], Answer], of_unit: bool = False) -> Answer | Failure:
    """What `question` returns, or how it failed."""
    try:
        return question()
    except BadInput as error:
        return Failure(BadInput(f"{error} (on {platform.node()})"), "", ends_all=True)
    except Exception as error:  # any may come, and not every one can be pickled
        text = f"{type(error).__name__}: {error} (on {platform.node()})"
        return Failure(BadInput(text), traceback.format_exc(), ends_all=not of_unit)


def from_here(question: Callable[[], Answer]) -> Callable[[], Answer]:
    """`question`, asked in this process's folder wherever that is: relative paths mean there what they mean here."""
    return partial(_in_folder, os.getcwd(), question)


def _in_folder(folder: str, question: Callable[[], Answer]) -> Answer:
    if os.path.isdir(folder):
        os.chdir(folder)
    return question()


def packed(values: Sequence[Any]) -> pa.Table:
    """`values` as an Arrow table, because Ray never cuts or joins those it is given; each is a row of bytes."""
    return pa.table({"data": pa.array([pickle.dumps(value) for value in values], pa.binary())})


def unpacked(table: pa.Table) -> list[Any]:
    """The values of `packed`."""
    return [pickle.loads(data) for data in table.column("data").to_pylist()]
