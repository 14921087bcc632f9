"""What every test needs before anything is imported: no network, no telemetry, one thread."""

import gc
import json
import logging
import os
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# For processes that tests start, too: the last digit of a sum depends on the threads, and files are compared bytewise.
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import pytest
import torch
from hypothesis import settings

collect_ignore = ["faults/fuzz_guided.py"]  # which needs atheris

settings.register_profile("busy machine", deadline=None)
settings.load_profile("busy machine")
torch.set_num_threads(1)


def pytest_collection_finish():
    """Keep the collector, which every training asks for a full round, off the modules: that is half of a short run."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def logger_as_it_was():
    """A command sets the level of the package's messages: it must not reach the next test."""
    logger = logging.getLogger("bnf_align")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture
def write(tmp_path):
    """Writes rows to a file of JSON Lines."""

    def to_file(rows, name="rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return to_file
