"""The batcher against shards that answer when the test says so: what leaves first, and what waits for what."""

import asyncio
from dataclasses import dataclass, field

from text_generation_router.batcher import Batcher, BatchPolicy
from text_generation_router.blocks import BlockAllocator
from text_generation_router.entry import Timeline
from text_generation_router.inbox import Inbox
from text_generation_router.metrics import Metrics
from text_generation_router.queue import WaitingQueue
from text_generation_router.traces import GenerationTrace
from text_generation_router.types import (
    FinishReason,
    GeneratedText,
    Generation,
    Sampling,
    StepTimings,
    Token,
    TokenLimits,
    ValidRequest,
)


@dataclass
class Batch:
    id: int
    request_ids: list[int]
    max_tokens: int = 0

    @property
    def size(self) -> int:
        return len(self.request_ids)

    @property
    def current_tokens(self) -> int:
        return len(self.request_ids)


@dataclass
class Answer:
    log: list[str]
    made: list[Generation]
    batch: Batch | None
    timings: StepTimings = field(default_factory=lambda: StepTimings(1, 1, None))
    goes_on: bool = False

    def request_ids(self):
        return [generation.request_id for generation in self.made]

    def finished(self):
        return [generation for generation in self.made if generation.generated_text is not None]

    def generations(self):
        self.log.append("tokens are read")
        return iter(self.made)


class ManualShards:
    """Calls are noted in `log` when they leave, that is, when the task that sends them first runs."""

    def __init__(self, log: list[str]) -> None:
        self.log = log
        self.calls: asyncio.Queue[asyncio.Future[Answer]] = asyncio.Queue()

    def prefill(self, batch_id, requests, cached, carried):
        return self._send(f"prefill {[wire.id for wire in requests]}")

    def decode(self, batches, carried):
        return self._send(f"decode {[request_id for batch in batches for request_id in batch.request_ids]}")

    async def filter_batch(self, batch_id, keep):
        self.log.append(f"filter {keep}")
        return Batch(batch_id, keep)

    async def clear_cache(self, batch_id=None):
        self.log.append(f"clear {batch_id}")

    def _send(self, name: str) -> asyncio.Future[Answer]:
        answer = asyncio.get_running_loop().create_future()

        async def leave() -> None:
            self.log.append(name)
            self.calls.put_nowait(answer)

        self.task = asyncio.ensure_future(leave())
        return answer


class Scene:
    """A batcher, its shards, and readers that note every token they get."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.shards = ManualShards(self.log)
        metrics = Metrics(TokenLimits(100, 200, 100, 64), 0)
        self.allocator = BlockAllocator(64, 1, prefix_caching=True)
        queue = WaitingQueue(self.allocator, 0, True, 0, metrics.requests)
        self.batcher = Batcher(
            self.shards, queue, self.allocator, BatchPolicy(True, False, 100, None, 1.2, 20), metrics
        )
        self.running = asyncio.ensure_future(self.batcher.run())
        self.readers = []

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        for task in (self.running, *self.readers):
            task.cancel()
        await asyncio.gather(self.running, *self.readers, return_exceptions=True)

    def submit(self, read: bool = True):
        request = ValidRequest(
            inputs="x",
            input_ids=(1, 2, 3),
            truncate=100,
            sampling=Sampling(seed=1),
            max_new_tokens=10,
        )
        inbox = Inbox()
        entry = self.batcher.submit(request, Timeline(0.0), GenerationTrace(), inbox.push)
        if read:
            self.readers.append(asyncio.ensure_future(self._read(inbox)))
        return entry

    async def answer(self, tokens: dict[int, bool], batch: Batch | None) -> None:
        """Answer the next call: a token for each request, the last one where the value is true."""
        call = await self.shards.calls.get()
        end = GeneratedText("t", 1, FinishReason.LENGTH, None)
        token = Token(1, "t", -1.0, False)
        made = [Generation(request, [token], [], [], end if last else None) for request, last in tokens.items()]
        call.set_result(Answer(self.log, made, batch))

    async def settled(self) -> None:
        """Let everything run that can."""
        for _ in range(10):
            await asyncio.sleep(0)

    async def _read(self, inbox) -> None:
        while True:
            generation = await inbox.next()
            self.log.append(f"token of {generation.request_id}")


async def test_the_next_decode_leaves_before_the_last_tokens_are_handed_out():
    async with Scene() as scene:
        scene.submit()
        scene.submit()
        for _ in range(3):
            await scene.answer({0: False, 1: False}, Batch(0, [0, 1]))
        await scene.settled()
        tokens = ["tokens are read", "token of 0", "token of 1"]
        expected = ["prefill [0, 1]"]
        for _ in range(3):
            expected += ["decode [0, 1]", *tokens]
        assert scene.log == expected


async def test_a_request_that_is_ready_joins_before_the_last_tokens_are_handed_out():
    async with Scene() as scene:
        scene.submit()
        await scene.answer({0: False}, Batch(0, [0]))
        await scene.settled()
        scene.submit()
        await scene.answer({0: False}, Batch(0, [0]))
        await scene.settled()
        read = ["tokens are read", "token of 0"]
        assert scene.log == ["prefill [0]", "decode [0]", *read, "prefill [1]", *read]


async def test_nobody_reading_does_not_hold_back_the_next_step():
    async with Scene() as scene:
        scene.submit(read=False)
        for _ in range(5):
            await scene.answer({0: False}, Batch(0, [0]))
        await scene.settled()
        assert scene.log.count("decode [0]") == 5


async def test_finished_requests_that_the_shard_dropped_need_no_filter():
    async with Scene() as scene:
        scene.submit()
        scene.submit()
        await scene.answer({0: True, 1: False}, Batch(0, [1]))
        await scene.settled()
        assert scene.log == ["prefill [0, 1]", "decode [1]", "tokens are read", "token of 0", "token of 1"]


async def test_a_cancelled_request_is_filtered_before_the_next_decode_and_keeps_its_blocks_until_then():
    async with Scene() as scene:
        leaving = scene.submit()
        scene.submit()
        await scene.answer({0: False, 1: False}, Batch(0, [0, 1]))
        await scene.settled()
        held = scene.allocator.used_blocks
        leaving.cancel()
        await scene.settled()
        assert scene.allocator.used_blocks == held
        await scene.answer({0: False, 1: False}, Batch(0, [0, 1]))
        await scene.settled()
        decoded = scene.log.index("decode [0, 1]")
        assert [line for line in scene.log[decoded + 1 :] if "token" not in line] == ["filter [1]", "decode [1]"]
        assert scene.allocator.used_blocks < held


async def test_the_last_request_leaving_clears_the_batch():
    async with Scene() as scene:
        entry = scene.submit()
        await scene.answer({0: False}, Batch(0, [0]))
        await scene.settled()
        entry.cancel()
        await scene.answer({0: False}, Batch(0, [0]))
        await scene.settled()
        assert [line for line in scene.log if "token" not in line] == ["prefill [0]", "decode [0]", "clear 0"]
        assert scene.allocator.used_blocks == 0
