"""Decodes that the shard makes one after the other without being asked, kvrun.v1.Steps. Knows nothing of batches."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import grpc

from text_generation_protocol.kvrun_v1 import steps_pb2 as pb
from text_generation_protocol.kvrun_v1.steps_pb2_grpc import StepsStub
from text_generation_router.errors import ShardError
from text_generation_router.shards.answers import PushedAnswer, shard_error

_AHEAD = 16
"""Steps that the shard may be ahead of what has been read here: who leaves is heard of no sooner."""

_AT_ONCE = 8
"""Steps that it is allowed at once after that, or more, as each message costs some 100 us."""


class PushedSteps:
    """The steps of a batch, until it ends or is halted. Begins by itself."""

    def __init__(self, channel: grpc.aio.Channel, batch_ids: Sequence[int]) -> None:
        self._wake = asyncio.Event()
        self._allowed = _AHEAD
        self._halted = False
        self._read = 0
        self._call = StepsStub(channel).Decode(self._requests(batch_ids))

    async def next(self) -> PushedAnswer:
        """The next step. Raises ShardError, as it does behind the last one."""
        try:
            step = await self._call.read()
        except grpc.aio.AioRpcError as error:
            self.halt()
            raise shard_error(error) from error
        if not isinstance(step, pb.Step):
            self.halt()
            raise ShardError("the shard has ended its steps too early")
        self._read += 1
        if step.last:
            self.halt()
        elif self._read % _AT_ONCE == 0:
            self._wake.set()
        return PushedAnswer(step)

    def halt(self) -> None:
        """Let the step under way be the last one. Never waits."""
        self._halted = True
        self._wake.set()

    async def _requests(self, batch_ids: Sequence[int]) -> AsyncIterator[pb.StepsRequest]:
        yield pb.StepsRequest(batch_ids=batch_ids, steps=_AHEAD)
        while True:
            await self._wake.wait()
            self._wake.clear()
            if self._halted:
                return
            more = self._read + _AHEAD - self._allowed  # of several wakes this may have missed all but one
            self._allowed += more
            yield pb.StepsRequest(steps=more)
