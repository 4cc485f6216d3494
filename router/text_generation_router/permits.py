"""How many requests may be served at once. Knows no requests."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from text_generation_router.errors import Overloaded


class Permits:
    """A permit is never waited for."""

    def __init__(self, count: int) -> None:
        self._free = count

    def take(self, count: int) -> None:
        """Take `count` permits. Raises Overloaded if there are not as many."""
        if count > self._free:
            raise Overloaded
        self._free -= count

    def give(self, count: int) -> None:
        """Give them back."""
        self._free += count

    @asynccontextmanager
    async def held(self, count: int) -> AsyncIterator[None]:
        """Hold `count` permits. Raises Overloaded if there are not as many."""
        self.take(count)
        try:
            yield
        finally:
            self.give(count)
