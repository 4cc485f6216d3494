"""An adapter that has a name, and what operators see of it. Knows neither tensors nor requests."""

from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from text_generation_server.adapters.sources import AdapterSource


@dataclass(frozen=True, slots=True)
class AdapterFacts:
    """What is known of an adapter that was read. targets: last parts of its modules' names. digest: of its files."""

    rank: int
    targets: tuple[str, ...]
    digest: str


class AdapterDevice(Protocol):
    """All ranks' adapters, told in the order of their steps."""

    def reserve_adapters(self) -> None:
        """Make the places, if they are not there. Raises NotEnoughMemory."""

    def put_adapter(self, key: int, place: int) -> object:
        """Let an adapter in host memory be at a place."""

    def drop_adapter(self, key: int) -> object:
        """Forget an adapter in host memory, if it is there."""


@dataclass(eq=False, slots=True)
class KnownAdapter:
    """An adapter by its name.

    generation: how many contents its name has had. facts: None before it was first read. key: what it is called in host
    memory, 0 where it is not there. place: on the device, 0 for none. holders: requests that name it. seated: those of
    them that run. requests: all that ever named it. pinned: it stays. gone: its name is free, or another's; it leaves
    with its last request. used: when a request last began to run with it, as a number that grows. reading: under way.
    failure: why it could not be read, for those that waited.
    """

    name: str
    source: AdapterSource
    generation: int = 0
    facts: AdapterFacts | None = None
    key: int = 0
    place: int = 0
    holders: int = 0
    seated: int = 0
    requests: int = 0
    pinned: bool = False
    gone: bool = False
    used: int = 0
    reading: Future[AdapterFacts] | None = None
    failure: Exception | None = None

    @property
    def salt(self) -> str | None:
        """What keys and values that are computed with it depend on; None before it was read."""
        return None if self.facts is None else f"{self.generation} {self.facts.digest}"

    @property
    def awaited(self) -> bool:
        """Whether requests wait to run with it."""
        return self.holders > self.seated

    @property
    def residency(self) -> str:
        """Where it can be had from the fastest."""
        return "device" if self.place else "host" if self.key else "disk"


@dataclass(frozen=True, slots=True)
class AdapterStatus:
    """What operators see of an adapter. requests: running and waiting ones."""

    name: str
    rank: int
    targets: tuple[str, ...]
    generation: int
    residency: str
    pinned: bool
    requests: int
    requests_total: int
    digest: str
