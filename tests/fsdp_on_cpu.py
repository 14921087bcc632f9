"""FSDP2 in processes of a CPU: accelerate shards on accelerators alone, and would run DDP instead, without a word."""

import os
import sys

from accelerate.state import PartialState
from accelerate.utils import DistributedType

SETTINGS = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}


def end_here() -> None:
    """End this process at once: FSDP2 keeps the group, and gloo's threads may abort the interpreter's end."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def shard_on_cpu() -> None:
    """From here on a group of CPU processes calls itself one of XPUs, which accelerate shards."""
    os.environ.update(SETTINGS)
    initialise = PartialState.__init__

    def as_devices(self, *args, **kwargs) -> None:
        initialise(self, *args, **kwargs)
        if self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = DistributedType.MULTI_XPU

    PartialState.__init__ = as_devices
