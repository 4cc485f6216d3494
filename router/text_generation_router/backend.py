"""The batch side of the router as the side that answers HTTP sees it, in its own process or in another (`workers/`).

Knows neither HTTP nor processes.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from text_generation_router.entry import Timeline
from text_generation_router.inbox import Inbox
from text_generation_router.types import ValidRequest


class Runs(Protocol):
    """Runs requests."""

    def run(self, request: ValidRequest, timeline: Timeline) -> AbstractContextManager[Inbox]:
        """Queue a request; it leaves queue or batch with the context.

        Raises InvalidInput, GenerationFailed, at once or in the inbox. timeline: is filled in.
        """


class AdapterNames(Protocol):
    """What clients may call adapters. See `Adapters`."""

    @property
    def names(self) -> Sequence[str]: ...
    def __contains__(self, name: object) -> bool: ...
    async def find(self, name: str) -> bool: ...
    async def load(self, name: str, place: str, token: str | None = None) -> None: ...
    async def unload(self, name: str) -> None: ...
    async def pin(self, name: str, pinned: bool) -> None: ...
    async def listed(self) -> list[dict[str, Any]]: ...


class Health(Protocol):
    """Whether the shards can generate."""

    async def check(self) -> None:
        """Return if all is well. Raises Unhealthy."""


class Admission(Protocol):
    """How many requests may be served at once."""

    def held(self, count: int) -> AbstractAsyncContextManager[None]:
        """Hold as many permits. Raises Overloaded if there are not as many."""


class Exposition(Protocol):
    """What `/metrics` shows."""

    async def text(self) -> str:
        """In Prometheus' format."""


@dataclass(frozen=True, slots=True)
class Backend:
    """All that passes between the two sides."""

    runs: Runs
    adapters: AdapterNames
    health: Health
    permits: Admission
    figures: Exposition
