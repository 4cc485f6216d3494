"""A shard without a model that answers at once, or after a fixed time a step. Checks nothing of what a router asks."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import grpc

from text_generation_protocol.kvrun_v1 import steps_pb2 as pb_steps
from text_generation_protocol.kvrun_v1.steps_pb2_grpc import add_StepsServicer_to_server
from text_generation_protocol.v3 import generate_pb2 as pb
from text_generation_protocol.v3.generate_pb2_grpc import add_TextGenerationServiceServicer_to_server

TOKEN = pb.Tokens(ids=[4284], logprobs=[-1.0859375], texts=[" learning"], is_special=[False])
CACHE_TOKENS = 1 << 20
TOTAL_TOKENS = 1 << 13


def run(socket: Path, step_s: float, pushes: bool) -> None:
    """Serve at a Unix socket until ended. pushes: steps need not be asked for one by one, as with shards of ours."""
    asyncio.run(_serve(socket, step_s, pushes))


async def _serve(socket: Path, step_s: float, pushes: bool) -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    shard = InstantShard(socket, step_s, pushes)
    add_TextGenerationServiceServicer_to_server(shard, server)
    if pushes:
        add_StepsServicer_to_server(InstantSteps(shard), server)
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    await server.wait_for_termination()


class InstantShard:
    """The servicer. Every token is the same, and every answer as long as it may be."""

    def __init__(self, socket: Path, step_s: float, pushes: bool) -> None:
        self._socket = socket
        self._step_s = step_s
        self._pushes = pushes
        self._missing: dict[int, dict[int, int]] = {}  # batch → request → tokens that are still to come

    async def ServiceDiscovery(self, _: Any, __: Any) -> Any:
        return pb.ServiceDiscoveryResponse(urls=[f"unix://{self._socket}"])

    async def Info(self, _: Any, __: Any) -> Any:
        return pb.InfoResponse(
            dtype="torch.float32",
            device_type="cpu",
            support_chunking=True,
            use_prefix_caching=True,
            attention_impl="paged",
            block_size=1,
            pushes_steps=self._pushes,
        )

    async def Health(self, _: Any, __: Any) -> Any:
        return pb.HealthResponse()

    async def Warmup(self, _: Any, __: Any) -> Any:
        return pb.WarmupResponse(
            max_supported_total_tokens=CACHE_TOKENS, max_input_tokens=TOTAL_TOKENS - 1, max_total_tokens=TOTAL_TOKENS
        )

    async def ClearCache(self, request: Any, _: Any) -> Any:
        if request.HasField("id"):
            self._missing.pop(request.id, None)
        else:
            self._missing.clear()
        return pb.ClearCacheResponse()

    async def FilterBatch(self, request: Any, _: Any) -> Any:
        before = self._missing[request.batch_id]
        self._missing[request.batch_id] = {one: before[one] for one in request.request_ids}
        return pb.FilterBatchResponse(batch=self._cached(request.batch_id))

    async def Prefill(self, request: Any, _: Any) -> Any:
        joined = [request.cached_batch.id] if request.HasField("cached_batch") else []
        added = {one.id: one.stopping_parameters.max_new_tokens for one in request.batch.requests}
        return await self._step(pb.PrefillResponse, request.batch.id, joined, added)

    async def Decode(self, request: Any, _: Any) -> Any:
        ids = [batch.id for batch in request.batches]
        return await self._step(pb.DecodeResponse, ids[0], ids, {})

    async def _step(self, response: Any, batch_id: int, batches: Iterable[int], added: dict[int, int]) -> Any:
        """A token for every request of the batches and for those that are new. Its time is told as the forward's."""
        began = time.perf_counter_ns()
        rows = await self.advance(batch_id, batches, added)
        generations = [_generation(request_id, missing == 0) for request_id, missing in rows.items()]
        took = time.perf_counter_ns() - began
        return response(generations=generations, batch=self.cached(batch_id), forward_ns=took, total_ns=took)

    async def advance(self, batch_id: int, batches: Iterable[int], added: dict[int, int]) -> dict[int, int]:
        """Tokens that are still to come after a step, by request."""
        if self._step_s:
            await asyncio.sleep(self._step_s)
        rows: dict[int, int] = {}
        for one in batches:
            rows |= self._missing.pop(one)
        rows = {request_id: missing - 1 for request_id, missing in (rows | added).items()}
        left = {request_id: missing for request_id, missing in rows.items() if missing > 0}
        if left:
            self._missing[batch_id] = left
        return rows

    def cached(self, batch_id: int) -> Any:
        """What is left of a batch, if anything is."""
        return self._cached(batch_id) if batch_id in self._missing else None

    def _cached(self, batch_id: int) -> Any:
        ids = self._missing[batch_id].keys()
        return pb.CachedBatch(
            id=batch_id, request_ids=ids, size=len(ids), max_tokens=len(ids) * 64, current_tokens=len(ids)
        )


class InstantSteps:
    """The servicer of kvrun.v1.Steps over another's batches. Minds no allowance: what is never read is never ahead."""

    def __init__(self, shard: InstantShard) -> None:
        self._shard = shard

    async def Decode(self, requests: AsyncIterator[Any], _: Any) -> AsyncIterator[Any]:
        ids, ended = list((await anext(aiter(requests))).batch_ids), asyncio.Event()
        following = asyncio.ensure_future(_follow(requests, ended))
        last = False
        while not last:
            began = time.perf_counter_ns()
            rows = await self._shard.advance(ids[0], ids, {})
            batch = self._shard.cached(ids[0])
            last, plain = batch is None or ended.is_set(), [one for one, missing in rows.items() if missing]
            count, took = len(plain), time.perf_counter_ns() - began
            yield pb_steps.Step(
                request_ids=plain,
                ids=[TOKEN.ids[0]] * count,
                logprobs=[TOKEN.logprobs[0]] * count,
                texts=[TOKEN.texts[0]] * count,
                generations=[_generation(one, True) for one, missing in rows.items() if not missing],
                batch=batch,
                forward_ns=took,
                total_ns=took,
                last=last,
            )
            ids = ids[:1]
        await following


async def _follow(requests: AsyncIterator[Any], ended: asyncio.Event) -> None:
    async for _ in requests:
        pass
    ended.set()


def _generation(request_id: int, last: bool) -> Any:
    end = None
    if last:
        end = pb.GeneratedText(text="learning", generated_tokens=1, finish_reason=pb.FINISH_REASON_LENGTH)
    return pb.Generation(request_id=request_id, tokens=TOKEN, generated_text=end)
