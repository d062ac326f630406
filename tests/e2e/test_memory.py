"""What memory many trials take."""

import importlib.util
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

spec = importlib.util.spec_from_file_location("memory", Path(__file__).parents[2] / "benchmarks" / "memory.py")
memory = importlib.util.module_from_spec(spec)
spec.loader.exec_module(memory)


def test_memory_does_not_grow_when_workers_are_replaced():
    """A net leaves about 4 MB behind: without replacement the second twenty would take 6 % more than the first."""
    workers = ["executor=processes", "executor.workers=1", "executor.trials_per_worker=10"]
    assert memory.growth(memory.peaks_of(40, workers)) < 0.03
