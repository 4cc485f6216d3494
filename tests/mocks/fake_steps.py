"""kvrun.v1.Steps over a shard's own Decode: what is told there is told here in lists. Notes who takes too much."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Protocol

from text_generation_protocol.kvrun_v1 import steps_pb2 as pb_steps
from text_generation_protocol.v3 import generate_pb2 as pb


class DecodingShard(Protocol):
    """What makes the steps."""

    batches: dict[int, Any]

    async def Decode(self, request: Any, context: Any) -> Any: ...
    def _cached(self, batch_id: int) -> Any: ...


class FakeSteps:
    """The servicer. calls: so many were begun; ahead: the most steps that were allowed and not made."""

    def __init__(self, shard: DecodingShard) -> None:
        self.calls = 0
        self._shard = shard

    async def Decode(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        self.calls += 1
        first = await anext(aiter(requests))
        allowed = asyncio.Semaphore(first.steps)
        ended = asyncio.Event()
        follower = asyncio.ensure_future(_follow(requests, allowed, ended))
        batches = [self._shard._cached(one) for one in first.batch_ids]
        try:
            while True:
                await allowed.acquire()
                answer = await self._shard.Decode(pb.DecodeRequest(batches=batches), context)
                last = ended.is_set() or not answer.HasField("batch")
                yield step_of(answer, last)
                if last:
                    await ended.wait()
                    return
                batches = [answer.batch]
        finally:
            follower.cancel()


async def _follow(requests: AsyncIterator[Any], allowed: asyncio.Semaphore, ended: asyncio.Event) -> None:
    async for request in requests:
        for _ in range(request.steps):
            allowed.release()
    ended.set()
    allowed.release()


def step_of(answer: Any, last: bool) -> Any:
    """A DecodeResponse as a Step."""
    plain = [one for one in answer.generations if not (one.HasField("generated_text") or one.top_tokens)]
    plain = [one for one in plain if not one.HasField("prefill_tokens")]
    rest = [one for one in answer.generations if one not in plain]
    return pb_steps.Step(
        request_ids=[one.request_id for one in plain],
        ids=[one.tokens.ids[0] for one in plain],
        logprobs=[one.tokens.logprobs[0] for one in plain],
        texts=[one.tokens.texts[0] for one in plain],
        special=[place for place, one in enumerate(plain) if one.tokens.is_special[0]],
        generations=rest,
        batch=answer.batch if answer.HasField("batch") else None,
        forward_ns=answer.forward_ns,
        decode_ns=answer.decode_ns,
        total_ns=answer.total_ns,
        concat_ns=answer.concat_ns if answer.HasField("concat_ns") else None,
        last=last,
    )
