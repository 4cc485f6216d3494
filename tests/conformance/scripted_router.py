"""A router of any generation, reduced to what the shard sees of it; it fails where a real one would panic.

What it does is what docs/protocol.md says of routers.
"""

from dataclasses import dataclass, field
from pathlib import Path

import grpc

from conformance.caller import Caller, Message
from conformance.made_tokenizers import BOS, FAIL
from conformance.router_blocks import Allocation, RouterBlocks
from conformance.router_generations import RouterGeneration
from conformance.router_messages import request_fields, warm_up_requests

PREFILL_BUDGET = 256
DEFAULT_LIMITS = (96, 192)


@dataclass
class Entry:
    """A request in the router's table."""

    id: int
    text: str
    new: int
    allocation: Allocation | None = None
    connected: bool = True
    tokens: list[int] = field(default_factory=list)
    outcome: str = "running"


class ScriptedRouter:
    """`step` is one round of the batching task; `entries` are the requests that it tracks, `done` those that ended."""

    def __init__(self, generation: RouterGeneration, socket: Path) -> None:
        self.generation = generation
        self.healthy = generation.starts_healthy
        self.queue: list[Entry] = []
        self.entries: dict[int, Entry] = {}
        self.done: dict[int, Entry] = {}
        self.batch: Message | None = None
        self.chunks = False
        self.limits: tuple[int, int] = DEFAULT_LIMITS
        self.total_budget = 4096
        self.blocks: RouterBlocks | None = None
        self._socket = socket
        self._next_request = self._next_batch = 0
        self.caller = self._connect()

    def start_up(self) -> None:
        """Everything before the HTTP port opens."""
        if not self.generation.warms_up:
            return
        self.caller.clear()
        info = self.caller.stub.Info(self.caller.pb.InfoRequest())
        assert not info.requires_padding and not info.HasField("window_size")
        self._warm_up()
        if self.caller.version == "v3":
            self.chunks = "chunk_len" in self.generation.fields and info.support_chunking
            size = info.block_size if self.generation.block_size is None else self.generation.block_size
            prefixes = "cache_len" in self.generation.fields and info.use_prefix_caching
            self.blocks = RouterBlocks(self.total_budget, size, prefixes)

    def submit(self, text: str, new: int) -> int:
        """A client's request; its id."""
        self.queue.append(Entry(self._next_request, text, new))
        self._next_request += 1
        return self.queue[-1].id

    def disconnect(self, request_id: int) -> None:
        """The client goes away; noticed with its next token."""
        self.entries[request_id].connected = False

    def put_back(self, text: str) -> None:
        """Allocate a request, find it over the budget, and drop its allocation: H1 of docs/protocol.md#prefixes."""
        assert self.blocks is not None
        self.blocks.release(self.blocks.allocate(prompt_ids(text), 1))

    def step(self) -> bool:
        """One round; whether there was anything to do."""
        if self.batch is None:
            fresh = self._take(PREFILL_BUDGET)
            if not fresh:
                return False
            self.batch = self._prefill(fresh, None)
            return True
        if self.chunks:
            fresh = self._take(PREFILL_BUDGET - self.batch.current_tokens)
            if fresh:
                self.batch = self._prefill(fresh, self.batch)
            batches = [] if self.batch is None else [self.batch]
        else:
            fresh = self._take(PREFILL_BUDGET)
            joined = self._prefill(fresh, None) if fresh else None
            batches = [batch for batch in (self.batch, joined) if batch is not None]
        if batches:
            self.batch = self._decode(batches)
        return True

    def run(self) -> None:
        """Rounds until nothing is left to do."""
        while self.step():
            pass

    def check_health(self) -> None:
        """`/health`: a Prefill while the router thinks that generation is broken."""
        if self.healthy:
            self.caller.health()
            return
        answer = self.caller.liveness(**self.generation.liveness)
        assert len(answer.generations) == 1 and not answer.HasField("batch")
        self.healthy = True

    def _connect(self) -> Caller:
        """Discovery, in the packages that this generation speaks, then a connection to every shard named."""
        for package in self.generation.packages:
            master = Caller(self._socket, package)
            try:
                urls = master.stub.ServiceDiscovery(master.pb.ServiceDiscoveryRequest()).urls
            except grpc.RpcError:
                continue
            finally:
                master.close()
            (url,) = urls
            return Caller(Path(url.removeprefix("unix://")), package)
        raise AssertionError(f"{self.generation.name}: no package was understood")

    def _warm_up(self) -> None:
        given = self.generation.limits
        old_name = self.caller.version == "v2"
        names = ("max_input_length" if old_name else "max_input_tokens", "max_total_tokens")
        limits = {name: value for name, value in zip(names, given, strict=True) if value is not None}
        answer = self.caller.warmup(
            *warm_up_requests(self.caller, self.generation, PREFILL_BUDGET), prefill=PREFILL_BUDGET, **limits
        )
        assert answer.HasField("max_supported_total_tokens")
        self.total_budget = answer.max_supported_total_tokens
        self.limits = (given[0] or DEFAULT_LIMITS[0], given[1] or DEFAULT_LIMITS[1])
        if self.generation.open_limits:
            self.limits = (answer.max_input_tokens, answer.max_total_tokens)
            for value, returned in zip(given, self.limits, strict=True):
                assert value in (None, returned)
        assert self.limits[0] < self.limits[1] <= self.total_budget >= PREFILL_BUDGET

    def _take(self, prefill_budget: int) -> list[Message]:
        """Requests for the next batch, as the budgets allow; with chunks the last may be started only."""
        token_budget = self.total_budget - (0 if self.batch is None else self.batch.max_tokens)
        requests: list[Message] = []
        while self.queue and prefill_budget > 0 and token_budget > 0:
            entry = self.queue[0]
            fields = request_fields(self.caller, self.generation, entry.text)
            rest = len(prompt_ids(entry.text))
            if self.blocks is not None:
                entry.allocation = self.blocks.allocate(prompt_ids(entry.text), entry.new)
                rest -= entry.allocation.cached
                fields |= {"blocks": entry.allocation.blocks, "slots": entry.allocation.slots}
                if "cache_len" in self.generation.fields:
                    fields["cache_len"] = entry.allocation.cached
            if rest > prefill_budget:
                if not self.chunks:
                    if entry.allocation is not None:
                        self.blocks.release(entry.allocation)
                    break
                fields["chunk_len"] = prefill_budget
            prefill_budget -= rest
            token_budget -= len(prompt_ids(entry.text)) + entry.new
            self.queue.pop(0)
            self.entries[entry.id] = entry
            request = self.caller.request(entry.id, entry.text, entry.new, truncate=self.limits[0], **fields)
            requests.append(request)
        return requests

    def _prefill(self, requests: list[Message], cached: Message | None) -> Message | None:
        batch_id = self._next_batch
        self._next_batch += 1
        fresh = [request.id for request in requests]
        try:
            answer = self.caller.prefill(batch_id, *requests, cached=None if cached is None else cached.id)
        except grpc.RpcError:
            self.healthy = False
            self.caller.clear(batch_id)
            self._fail(fresh if cached is None else list(self.entries))
            return None
        self.healthy = True
        return self._settle(answer, set(fresh) if cached is None else set(self.entries))

    def _decode(self, batches: list[Message]) -> Message | None:
        try:
            answer = self.caller.stub.Decode(self.caller.pb.DecodeRequest(batches=batches), timeout=60)
        except grpc.RpcError:
            self.healthy = False
            for batch in batches:
                self.caller.clear(batch.id)
            self._fail(list(self.entries))
            return None
        return self._settle(answer, set(self.entries))

    def _settle(self, answer: Message, members: set[int]) -> Message | None:
        """Hand out tokens, forget who is finished or gone, and tell the shard; `members` are in the answer's batch."""
        for generation in answer.generations:
            assert generation.request_id in members, "a real router panics here"
            self._hand_out(self.entries[generation.request_id], generation)
        members &= self.entries.keys()
        if not answer.HasField("batch"):
            assert not members, "their clients would get an incomplete generation"
            return None
        batch = answer.batch
        assert batch.size == len(batch.request_ids)
        if batch.size == len(members):
            return batch
        keep = [request_id for request_id in batch.request_ids if request_id in members]
        if not keep:
            self.caller.clear(batch.id)
            return None
        return self.caller.filter(batch.id, keep)

    def _hand_out(self, entry: Entry, generation: Message) -> None:
        tokens = generation.tokens
        count = len(tokens.ids)
        assert count >= 1 and len(tokens.logprobs) == len(tokens.texts) == len(tokens.is_special) == count
        entry.tokens += tokens.ids
        if generation.HasField("generated_text"):
            assert generation.generated_text.finish_reason in (0, 1, 2)
            assert generation.generated_text.generated_tokens == len(entry.tokens)
            self._end(entry, "finished")
        elif not entry.connected:
            self._end(entry, "gone")

    def _fail(self, request_ids: list[int]) -> None:
        for request_id in request_ids:
            self._end(self.entries[request_id], "failed")

    def _end(self, entry: Entry, outcome: str) -> None:
        """The slots are free from here on, before the shard hears of it (docs/protocol.md#batches)."""
        entry.outcome = outcome
        self.done[entry.id] = self.entries.pop(entry.id)
        if self.blocks is not None and entry.allocation is not None:
            self.blocks.release(entry.allocation)


def prompt_ids(text: str) -> list[int]:
    """As the router counts them, for the tests' byte-level tokenizer."""
    return [BOS, *text.replace("<fail>", chr(FAIL)).encode("latin-1")]
