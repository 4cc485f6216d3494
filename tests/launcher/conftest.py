"""Launchers over stub executables."""

from collections.abc import Iterator

import pytest

from mocks.launched import Launcher


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    """Starts launchers; all are gone after the test."""
    made = Launcher()
    yield made
    made.end_all()
