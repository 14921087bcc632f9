"""Spoilt input of every kind: a message, never a traceback. `make fuzz` goes on with this for as long as it is let."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzzing import TARGETS, outcome


@pytest.mark.parametrize("name", TARGETS)
@given(chance=st.randoms(use_true_random=False))
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_what_is_spoilt_is_read_or_refused_with_a_message(name, chance):
    with tempfile.TemporaryDirectory() as folder:
        assert outcome(name, Path(folder), chance) in ("read", "refused")
