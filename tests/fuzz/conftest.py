"""The server of the conformance tests under random input, and how much of it there is."""

import logging
from collections.abc import Callable, Iterator
from typing import TypeVar

import pytest
from hypothesis.strategies import SearchStrategy
from loguru import logger

from conformance.conftest import byte_tokenizer, start
from fuzz.exploring import explore_series

__all__ = ["byte_tokenizer", "explore", "quiet", "start"]

T = TypeVar("T")


@pytest.fixture
def explore(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Call a check with series of inputs: as many as suit a suite, or `--fuzz-inputs`.

    Every test has other inputs, and the same each time.
    """
    wanted: int | None = request.config.getoption("--fuzz-inputs")

    def explore(inputs: SearchStrategy[T], check: Callable[[list[T]], None], usual: int) -> None:
        explore_series(inputs, check, wanted or usual, request.node.name)

    return explore


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Nobody reads a line for every refusal."""
    logger.disable("text_generation_server")
    logging.disable()
    yield
    logging.disable(logging.NOTSET)
    logger.enable("text_generation_server")
