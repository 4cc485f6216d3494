"""Continuous batching: the one task that calls Prefill, Decode, FilterBatch and ClearCache, so their order is total.

Knows nothing of HTTP, and of the cache only whom to give space back for.
"""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loguru import logger

from text_generation_router.blocks import BlockAllocator
from text_generation_router.delivery import deliver
from text_generation_router.entry import Entry, Push, Timeline
from text_generation_router.errors import ApiError, GenerationFailed, IncompleteGeneration, ShardError, Unhealthy
from text_generation_router.metrics import Metrics
from text_generation_router.probes import Probes
from text_generation_router.queue import Budget, WaitingQueue
from text_generation_router.shards.client import ShardedClient
from text_generation_router.shards.steps import PushedSteps
from text_generation_router.traces import NO_STEP, NO_TRACES, GenerationTrace, StepTrace, Traces
from text_generation_router.types import CachedBatch, FinishReason, Generation, StepAnswer, ValidRequest
from text_generation_router.under_way import Call, UnansweredStep


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """When queued requests join the running ones.

    Shards that chunk prefills take what fits beside the running batch: the room that they tell (told_room), or what its
    next step leaves of max_prefill_tokens. Others let the running
    requests wait during a prefill, which must be worth it: at least waiting_served_ratio queued requests for each
    running one, or max_waiting_tokens steps since the last prefill. pushed: shards need not be asked for each decode.
    """

    chunking: bool
    told_room: bool
    max_prefill_tokens: int
    max_batch_size: int | None
    waiting_served_ratio: float
    max_waiting_tokens: int
    pushed: bool = False


class Batcher:
    """Takes requests, runs them in batches, and streams their tokens into their entries.

    healthy: the last call succeeded. lost: the shards are gone for good, and everything sent to them fails.
    """

    def __init__(
        self,
        shards: ShardedClient,
        queue: WaitingQueue,
        allocator: BlockAllocator,
        policy: BatchPolicy,
        metrics: Metrics,
        traces: Traces = NO_TRACES,
    ) -> None:
        self.healthy = True
        self.lost = False
        self._shards = shards
        self._queue = queue
        self._allocator = allocator
        self._policy = policy
        self._metrics = metrics
        self._traces = traces
        self._work = asyncio.Event()
        self._probes = Probes()
        self._entries: dict[int, Entry] = {}
        self._uncomputed: dict[int, Entry] = {}
        self._batches: list[CachedBatch] = []
        self._steps_since_prefill = 0
        self._next_request_id = 0
        self._next_batch_id = 0
        self._call: Call | None = None
        self._steps: PushedSteps | None = None

    def submit(self, request: ValidRequest, timeline: Timeline, trace: GenerationTrace, push: Push) -> Entry:
        """Queue a request, whose steps are pushed. Raises GenerationFailed if no shard is left to serve it."""
        if self.lost:
            raise GenerationFailed("the shards are gone")
        entry = Entry(request, timeline, trace, push)
        self._queue.append(entry)
        self._halt()
        return entry

    def cancel(self, entry: Entry) -> None:
        """Nobody reads a request's tokens any more: it leaves the queue now, or the batch after this step."""
        entry.cancel()
        self._queue.discard(entry)
        if self._entries.get(entry.id) is entry:
            self._halt()

    async def probe(self) -> None:
        """Let the shards generate one token between two steps. Raises Unhealthy if they cannot."""
        if self.lost:
            raise Unhealthy
        answer = self._probes.ask()
        self._halt()
        await answer

    def step_under_way(self) -> UnansweredStep | None:
        """What the shards are computing, and how long they have been."""
        return self._call.unanswered() if self._call else None

    async def run(self) -> None:
        """Serve until cancelled. Raises ShardError when a shard is lost, or could not be brought back into step."""
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                if self._probes:
                    await self._answer_probes()
                call = self._next_call()
                while call is not None:
                    self._call = call
                    call = await self._advance(call)
                self._call = None
        finally:
            self.give_up()

    async def _advance(self, call: Call) -> Call | None:
        """Wait for a call's answer, send the next call, and only then hand out the tokens."""
        try:
            answer = await call.answer
        except ShardError as error:
            call.trace.end(str(error))
            self._steps = None
            await self._fail(call, error)
            return self._next_call()
        call.trace.end()
        answered = time.monotonic()
        try:
            await self._settle(call, answer)
        except ShardError as error:  # who is out of the batch already is told too
            for entry in call.members.values():
                entry.push(GenerationFailed(error.told))
            raise
        settled = time.monotonic()
        if self._steps is not None and answer.goes_on:
            following: Call | None = self._next_step(self._steps)
        else:
            self._steps = None
            if self._probes:
                await self._answer_probes()
            following = self._next_call()
            await asyncio.sleep(0)  # the call leaves in the loop's next turn, before any reader wakes up
        delivering = time.monotonic()
        deliver(call, answer, self._metrics)
        delivered = time.monotonic()
        handling = settled - answered + delivered - delivering
        self._metrics.batches.note_answer(call.method, answer.timings, delivered - call.started, handling)
        return following

    async def _answer_probes(self) -> None:
        self.healthy = await self._probes.answer(self._shards)

    def _halt(self) -> None:
        """Somebody comes or goes: the batch has to stand still for that."""
        self._work.set()
        if self._steps is not None:
            self._steps.halt()

    # -- what to do next

    def _next_call(self) -> Call | None:
        entries = self._queue.take(self._budget())
        self._note_batch(entries)
        if entries:
            return self._start_prefill(entries)
        if not self._batches:
            return None
        if self._policy.pushed and not self._queue and not any(entry.cancelled for entry in self._entries.values()):
            self._steps = self._shards.steps(self._batches)
            return self._next_step(self._steps)
        return self._start_decode()

    def _budget(self) -> Budget:
        policy, running = self._policy, len(self._entries)
        room = (policy.max_batch_size or sys.maxsize) - running
        if policy.chunking:
            return Budget(self._room_beside_running(), 0, room)
        if running and self._steps_since_prefill == 0:
            return Budget(0, 0, 0)  # the last prefill made the running requests wait
        patient = self._steps_since_prefill < policy.max_waiting_tokens
        min_size = int(running * policy.waiting_served_ratio) if patient else 0
        return Budget(policy.max_prefill_tokens, min_size, room)

    def _room_beside_running(self) -> int:
        if self._policy.told_room and self._batches:
            return min(batch.prefill_room for batch in self._batches)
        return self._policy.max_prefill_tokens - sum(batch.current_tokens for batch in self._batches)

    def _start_prefill(self, entries: list[Entry]) -> Call:
        """Chunking shards advance the running batch in the same step; others leave it waiting."""
        joined = self._batches if self._policy.chunking else []
        batch_id, now = self._next_batch_id, time.monotonic()
        self._next_batch_id += 1
        self._steps_since_prefill = 0
        added: dict[int, Entry] = {}
        for entry in entries:
            entry.id = self._next_request_id
            self._next_request_id += 1
            entry.timeline.batched = entry.timeline.batched or now
            entry.trace.batched()
            added[entry.id] = entry
        members = {**self._entries, **added} if joined else added
        self._entries.update(added)
        self._uncomputed.update(added)
        self._metrics.batches.inference_count["prefill"].add()
        trace = self._trace("prefill", members, entries)
        answer = self._shards.prefill(
            batch_id, [entry.on_wire() for entry in entries], joined[0] if joined else None, trace.carried
        )
        return Call("prefill", answer, members, [batch_id, *(batch.id for batch in joined)], trace)

    def _start_decode(self) -> Call:
        self._steps_since_prefill += 1
        self._metrics.batches.inference_count["decode"].add()
        members, trace = self._entries.copy(), self._trace("decode", self._entries, ())
        answer = self._shards.decode(self._batches, trace.carried)
        return Call("decode", answer, members, [batch.id for batch in self._batches], trace)

    def _next_step(self, steps: PushedSteps) -> Call:
        """One that the shards make without being asked for it, while nobody comes or goes."""
        self._steps_since_prefill += 1
        self._metrics.batches.inference_count["decode"].add()
        return Call("decode", steps.next(), self._entries.copy(), [batch.id for batch in self._batches])

    def _trace(self, method: str, members: Mapping[int, Entry], added: Sequence[Entry]) -> StepTrace:
        if self._traces is NO_TRACES:
            return NO_STEP
        traces = [entry.trace for entry in members.values()]
        return self._traces.step(method, traces, [entry.trace for entry in added])

    # -- what an answer changes

    async def _settle(self, call: Call, answer: StepAnswer) -> None:
        """Bring batch, entries and cache into step with the answer. Tokens are delivered later."""
        self.healthy = True
        if self._uncomputed:
            self._note_computed(answer)
        finished = {generation.request_id: generation for generation in answer.finished()}
        stands = not answer.goes_on  # only then can those be taken out whom nobody reads any more
        leaving = [one for one in call.members.values() if one.id in finished or (one.cancelled and stands)]
        for entry in leaving:
            del self._entries[entry.id]
        batch = answer.batch
        if batch is not None and stands and batch.size != len(call.members) - len(leaving):
            batch = await self._filter(batch)
        self._batches = [batch for batch in self._batches if batch.id not in call.batch_ids]
        self._batches += [batch] if batch is not None else []
        # Only now has every shard stopped writing for them.
        for entry in [*leaving, *self._forgotten(call, batch)]:
            self._release(entry)
        for entry in leaving:
            if entry.resumable and entry.id in finished:
                self._resume(call, entry, finished[entry.id])

    def _resume(self, call: Call, entry: Entry, last: Generation) -> None:
        """Queue a request again if only its stay has ended: it goes on behind all that it has generated."""
        if last.generated_text is not None and last.generated_text.finish_reason is FinishReason.LENGTH:
            call.paused.add(entry.id)
            entry.generated_ids += [token.id for token in last.tokens]
            self._queue.put_first(entry)
            self._halt()

    def _note_computed(self, answer: StepAnswer) -> None:
        """A request's first token says that its whole prompt is in the cache."""
        for request_id in answer.request_ids():
            entry = self._uncomputed.pop(request_id, None)
            if entry is not None and entry.allocation is not None:
                self._allocator.prompt_computed(entry.allocation)

    async def _filter(self, batch: CachedBatch) -> CachedBatch | None:
        """Let the shards drop the requests that have left."""
        keep = [request_id for request_id in batch.request_ids if request_id in self._entries]
        if not keep:
            await self._shards.clear_cache(batch.id)
            return None
        return batch if len(keep) == batch.size else await self._shards.filter_batch(batch.id, keep)

    def _forgotten(self, call: Call, batch: CachedBatch | None) -> list[Entry]:
        """Unfinished requests that the shards have no longer; there are none unless a shard is at fault."""
        remaining = call.members.keys() & self._entries.keys()
        if batch is not None and batch.size == len(remaining):
            return []
        lost = remaining - set(batch.request_ids if batch is not None else ())
        entries = [self._entries.pop(request_id) for request_id in lost]
        for entry in entries:
            entry.push(IncompleteGeneration())
        return entries

    async def _fail(self, call: Call, error: ShardError) -> None:
        """End all requests of a failed call; the shards forget their batches."""
        self.healthy = False
        self._metrics.batches.inference_failure[call.method].add()
        logger.error(f"{call.method} of {len(call.members)} requests failed: {error}")
        if error.lost:
            raise error
        for batch_id in call.batch_ids:
            await self._shards.clear_cache(batch_id)
        self._batches = [batch for batch in self._batches if batch.id not in call.batch_ids]
        for entry in call.members.values():
            del self._entries[entry.id]
            self._release(entry)
            entry.push(GenerationFailed(error.told))

    def _release(self, entry: Entry) -> None:
        self._uncomputed.pop(entry.id, None)
        if entry.allocation is not None:
            self._allocator.release(entry.allocation)
            entry.allocation = None

    def give_up(self, why: str = "the shards are gone") -> None:
        """The shards are gone, or the router is: end everything."""
        self.healthy, self.lost = False, True
        error: ApiError = GenerationFailed(why)
        for entry in self._entries.values():
            entry.push(error)
        self._entries.clear()
        self._queue.fail_all(error)
        self._probes.give_up()
        if self._steps is not None:
            self._steps.halt()

    # -- what others get to see

    def _note_batch(self, added: list[Entry]) -> None:
        batches, cache = self._metrics.batches, self._metrics.cache
        batches.current_size.set(len(self._entries) + len(added))
        batches.current_max_tokens.set(sum(batch.max_tokens for batch in self._batches))
        cache.used_blocks.set(self._allocator.used_blocks)
        cache.cached_blocks.set(self._allocator.cached_blocks)
        if not added:
            return
        batches.next_size.observe(len(added))
        fresh = [entry for entry in added if not entry.generated_ids]
        cache.prompt_tokens.add(sum(len(entry.request.input_ids) for entry in fresh))
        cache.hit_tokens.add(sum(entry.allocation.cache_len for entry in fresh if entry.allocation is not None))
        if self._batches and self._policy.chunking:
            batches.concat["chunking"].add()
        elif self._batches:
            waited = self._steps_since_prefill >= self._policy.max_waiting_tokens
            batches.concat["wait_exceeded" if waited else "backpressure"].add()
