"""Reads adapters on every rank, in a thread beside the engine's: all ranks have the same, or none has it."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from text_generation_server.adapters.known import AdapterFacts
from text_generation_server.adapters.rank import RankAdapters
from text_generation_server.adapters.sources import AdapterSource
from text_generation_server.errors import ModelNotFound, StartError, UnsupportedModel


@dataclass(frozen=True, slots=True)
class ReadAdapter:
    """What followers are asked: to read the adapter in a directory under a key."""

    key: int
    directory: Path


Answer = AdapterFacts | str
"""What a rank has read, or why it could not."""


Ask = Callable[[ReadAdapter], Sequence[Answer]]
"""Asks all followers."""


def nobody(_: ReadAdapter) -> Sequence[Answer]:
    """For a rank without followers."""
    return ()


def answer_reading(adapters: RankAdapters, asked: ReadAdapter) -> Answer:
    """A follower's answer."""
    try:
        return _read(adapters, asked)
    except StartError as error:
        return str(error)


class RanksReader:
    """Satisfies `AdapterReader`: one adapter after the other."""

    def __init__(self, own: RankAdapters, ask: Ask = nobody) -> None:
        self._own = own
        self._ask = ask
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="adapters")

    def start(self, key: int, source: AdapterSource) -> Future[AdapterFacts]:
        """See `AdapterReader`."""
        return self._thread.submit(self._read, key, source)

    def _read(self, key: int, source: AdapterSource) -> AdapterFacts:
        directory = Path(source.place).expanduser()
        if not directory.is_dir():
            raise ModelNotFound(f"there is no directory {directory} of the adapter {source.name}: check the path")
        asked = ReadAdapter(key, directory)
        facts = _read(self._own, asked)
        for other in self._ask(asked):
            if isinstance(other, str):
                raise UnsupportedModel(f"another rank could not read the adapter {source.name}: {other}")
            if other != facts:
                raise UnsupportedModel(f"the ranks read different files of the adapter {source.name}: load it again")
        return facts


def _read(adapters: RankAdapters, asked: ReadAdapter) -> AdapterFacts:
    """Raises StartError, whatever went wrong: files of users must not end a rank."""
    try:
        return adapters.read(asked.key, asked.directory)
    except StartError:
        raise
    except Exception as error:
        raise UnsupportedModel(f"the adapter in {asked.directory} could not be read: {error!r}") from error
