"""Tiny models of every case, made once a session."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from oracles.build import Reference, build
from oracles.case import Case
from oracles.table import CASES
from text_generation_server.distributed.group import SingleRank
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.models.step import ServedModel

FLOAT32 = ModelOptions(torch.float32, torch.device("cpu"))


@dataclass(frozen=True)
class Oracle:
    """A saved model and what transformers answers with it."""

    case: Case
    directory: Path
    reference: Reference

    def load(self, options: ModelOptions = FLOAT32) -> ServedModel:
        """The model on one rank."""
        return load_model(self.directory, options, SingleRank(), lambda _done, _total: None)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models only wait for each other's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def oracle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Oracle]:
    """The oracle of a case by its name, made when first asked for."""
    folder = tmp_path_factory.mktemp("oracles")
    made: dict[str, Oracle] = {}
    cases = {case.name: case for case in CASES}

    def oracle(name: str) -> Oracle:
        if name not in made:
            made[name] = Oracle(cases[name], folder / name, build(cases[name], folder / name))
        return made[name]

    return oracle


@pytest.fixture
def oracle(request: pytest.FixtureRequest, oracle_of: Callable[[str], Oracle]) -> Oracle:
    """The oracle of a parametrised case."""
    return oracle_of(request.param)
