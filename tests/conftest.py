"""Settings all tests share."""

import os

import pytest
import torch
from hypothesis import settings

# Before Triton is imported: what `triton.jit` makes of its own library and of our kernels depends on it.
os.environ["TRITON_INTERPRET"] = str(int(not torch.cuda.is_available()))

# Deadlines are timings, and a random failure that cannot be repeated teaches nothing.
settings.register_profile("kvrun", deadline=None, derandomize=True)
settings.load_profile("kvrun")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tests of random input can be run for longer than a suite should take."""
    parser.addoption("--fuzz-inputs", type=int, help="inputs of each test in tests/fuzz")
    parser.addoption("--schedules", type=int, help="schedules of each test in tests/engine/test_engine_schedules.py")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Long runs are asked for by number."""
    if config.getoption("--fuzz-inputs") or config.getoption("--schedules"):
        for item in items:
            item.add_marker(pytest.mark.timeout(0))
