"""Whether the shards can generate, and the watchdog over them (--watchdog-timeout). Knows no routes."""

import asyncio

from loguru import logger

from text_generation_router.batcher import Batcher
from text_generation_router.errors import ShardError, Unhealthy
from text_generation_router.shards.client import ShardedClient


class HealthCheck:
    """Asks the shards. patience_s: how long they may take for an answer, to this or to a step; None: any time."""

    def __init__(self, shards: ShardedClient, batcher: Batcher, patience_s: float | None) -> None:
        self._shards = shards
        self._batcher = batcher
        self._patience_s = patience_s

    async def check(self) -> None:
        """Return if all is well. After a failed generation the shards must make a token. Raises Unhealthy."""
        self._check_progress()
        try:
            async with asyncio.timeout(self._patience_s):
                await (self._shards.health() if self._batcher.healthy else self._batcher.probe())
        except ShardError as error:
            raise Unhealthy from error
        except TimeoutError as error:
            raise _stalled(f"the shards have not answered for {self._patience_s:g} s") from error

    def _check_progress(self) -> None:
        """A shard that hangs in a step may answer other calls all the same."""
        step = self._batcher.step_under_way()
        if self._patience_s is not None and step is not None and step.waited_s > self._patience_s:
            raise _stalled(f"the shards have not answered a {step.method} of {step.size} for {step.waited_s:.1f} s")


def _stalled(reason: str) -> Unhealthy:
    logger.error("Unhealthy: {}", reason)
    return Unhealthy(reason)
