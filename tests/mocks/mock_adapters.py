"""Adapters of the mock model: an adapter is one number in a file, which the model takes for a token before its history.

What is at which place is what the stream has put there, so that a wrong place, or a right one too early, shows at once.
"""

import json
from pathlib import Path

from mocks.mock_model import MockModel
from text_generation_server.adapters.known import AdapterFacts
from text_generation_server.adapters.pairs import WEIGHTS
from text_generation_server.adapters.peft_config import CONFIG
from text_generation_server.errors import ModelNotFound, UnsupportedModel


def save_number(directory: Path, number: int) -> Path:
    """An adapter, in a directory that may have one already."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / CONFIG).write_text(json.dumps({"number": number}))
    (directory / WEIGHTS).touch()
    return directory


class MockAdapters:
    """Satisfies `RankAdapters`. held: numbers by key."""

    def __init__(self, model: MockModel, places: int) -> None:
        self.places = places
        self.reserved = False
        self.held: dict[int, int] = {}
        self._model = model

    def read(self, key: int, directory: Path) -> AdapterFacts:
        if not (directory / CONFIG).exists():
            raise ModelNotFound(f"there is no {directory / CONFIG}")
        number = json.loads((directory / CONFIG).read_text())["number"]
        if not isinstance(number, int):
            raise UnsupportedModel(f"{directory / CONFIG}: number is {number!r}, expected a whole number")
        self.held[key] = number
        return AdapterFacts(8, ("q_proj",), str(number))

    def reserve(self) -> None:
        self.reserved = True

    def release(self) -> None:
        self.reserved = False

    def put(self, key: int, place: int) -> None:
        self._model.contents[place] = self.held[key]

    def drop(self, key: int) -> None:
        self.held.pop(key, None)
