"""A directory with a short name: Unix sockets cannot have long ones."""

from pathlib import Path

import pytest


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a test's sockets and tokenizer go."""
    return tmp_path_factory.mktemp("r")
