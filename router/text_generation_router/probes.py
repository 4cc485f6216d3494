"""Those who want to know whether the shards can generate, and wait for a moment to try it. Knows no batches."""

import asyncio

from text_generation_router.errors import ShardError, Unhealthy
from text_generation_router.shards.client import ShardedClient


class Probes:
    """Who asks, answered together."""

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def ask(self) -> asyncio.Future[None]:
        """Resolved when the shards have generated a token; fails with Unhealthy if they could not."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        return answer

    async def answer(self, shards: ShardedClient) -> bool:
        """Try it once for all who ask; whether it went well. Raises ShardError if a shard is lost."""
        asked, self._waiting = self._waiting, []
        failure: ShardError | None = None
        try:
            await shards.probe()
        except ShardError as error:
            failure = error
        for one in asked:
            if not one.done():
                one.set_result(None) if failure is None else one.set_exception(Unhealthy())
        if failure is not None and failure.lost:
            raise failure
        return failure is None

    def give_up(self) -> None:
        """Tell all who ask that nobody can."""
        for one in self._waiting:
            if not one.done():
                one.set_exception(Unhealthy())
        self._waiting.clear()
