"""The eight calls of a shard, the same for every protocol version. Knows neither protobuf fields nor statuses."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from time import perf_counter_ns
from typing import Any, NoReturn, Protocol, TypeVar

from text_generation_server.adapters.sources import AdapterSource
from text_generation_server.engine.types import (
    BatchView,
    PrefillCommand,
    ShardInfo,
    StepResult,
    WarmupCommand,
    WarmupResult,
)
from text_generation_server.errors import ModelError, NotTheLeader
from text_generation_server.rpc.prompts import PromptEncoder
from text_generation_server.rpc.wire import Message, Wire

T = TypeVar("T")
Context = Any
"""What grpc hands to a call; unused, for errors are raised."""


class Alive(Protocol):
    """Something that can die while the server serves."""

    @property
    def alive(self) -> bool:
        """Whether it still works."""


class ServingEngine(Protocol):
    """The engine as calls need it; on its own thread only. `engine.engine.Engine` says what each does."""

    def warmup(self, command: WarmupCommand) -> WarmupResult: ...

    def prefill(self, command: PrefillCommand) -> StepResult: ...

    def decode(self, batch_ids: Sequence[int]) -> StepResult: ...

    def filter(self, batch_id: int, keep: Sequence[int]) -> BatchView: ...

    def clear(self, batch_id: int | None) -> None: ...


class EngineCalls(Alive, Protocol):
    """The engine thread: calls run one after the other, in the order submitted."""

    def submit(self, call: Callable[[ServingEngine], T]) -> Future[T]:
        """Queue `call(engine)`."""


@dataclass(frozen=True, slots=True)
class Shard:
    """What a shard says of itself. urls: the sockets that routers must call. adapters: those that have names now.

    expects_adapters: requests may name adapters that have none yet. takes_images: prompts may have them.
    """

    info: ShardInfo
    urls: tuple[str, ...]
    adapters: Callable[[], tuple[str, ...]] = tuple
    expects_adapters: bool = False
    takes_images: bool = False

    def now(self) -> ShardInfo:
        """Its description with the adapters of this moment.

        Other routers' prefix trees know neither adapters nor images, and would let one request overwrite what another
        reads.
        """
        names = self.adapters()
        by_adapter = self.info.prefix_caching and (self.expects_adapters or self.takes_images or bool(names))
        return replace(
            self.info,
            adapters=names,
            prefix_caching=self.info.prefix_caching and not by_adapter,
            prefix_caching_by_adapter=by_adapter,
        )


class StatusService:
    """The calls that every rank answers at once, whatever the engine is busy with."""

    def __init__(self, wire: Wire, shard: Shard, worker: Alive) -> None:
        self._wire = wire
        self._shard = shard
        self._worker = worker

    def Info(self, request: Message, context: Context) -> Message:
        """What the shard serves."""
        return self._wire.info(self._shard.now())

    def ServiceDiscovery(self, request: Message, context: Context) -> Message:
        """Where routers must call."""
        return self._wire.discovery(list(self._shard.urls))

    def Health(self, request: Message, context: Context) -> Message:
        """Empty while the worker lives.

        Raises:
            ModelError: it does not.
        """
        if not self._worker.alive:
            raise ModelError("the engine has stopped after an error; the process is about to end")
        return self._wire.health()


class EngineService(StatusService):
    """All calls, on rank 0.

    after_warmup: what is to be done when all is in memory that will stay there. find: which of some names are adapters
    on disk, to be loaded when a request names them; None where they are not to be.
    """

    def __init__(
        self,
        wire: Wire,
        shard: Shard,
        loop: EngineCalls,
        encode: PromptEncoder,
        after_warmup: Callable[[], None] = lambda: None,
        find: Callable[[Iterable[str]], Mapping[str, AdapterSource]] | None = None,
    ) -> None:
        super().__init__(wire, shard, loop)
        self._loop = loop
        self._encode = encode
        self._after_warmup = after_warmup
        self._find = find

    def ClearCache(self, request: Message, context: Context) -> Message:
        """Drop one cached batch, or all; the latter is how routers begin."""
        batch_id = request.id if request.HasField("id") else None
        if batch_id is None:
            self._encode.always_special = False
        self._run(lambda engine: engine.clear(batch_id))
        return self._wire.cleared()

    def FilterBatch(self, request: Message, context: Context) -> Message:
        """Keep the named requests of a cached batch."""
        batch_id, keep = request.batch_id, tuple(request.request_ids)
        return self._wire.filtered(self._run(lambda engine: engine.filter(batch_id, keep)))

    def Warmup(self, request: Message, context: Context) -> Message:
        """Run the largest prefill and size the cache."""
        self._encode.always_special = self._wire.omits_special_tokens(request)
        command = self._wire.warmup_command(request, self._encode)
        result = self._run(lambda engine: engine.warmup(command))
        self._after_warmup()
        return self._wire.warmup_response(result)

    def Prefill(self, request: Message, context: Context) -> Message:
        """Start a batch."""
        began = perf_counter_ns()
        command = self._with_adapters(self._wire.prefill_command(request, self._encode))
        result = self._run(lambda engine: engine.prefill(command))
        return self._wire.prefill_response(result, perf_counter_ns() - began)

    def Decode(self, request: Message, context: Context) -> Message:
        """One step of cached batches."""
        began = perf_counter_ns()
        batch_ids = [batch.id for batch in request.batches]
        result = self._run(lambda engine: engine.decode(batch_ids))
        return self._wire.decode_response(result, perf_counter_ns() - began)

    def _with_adapters(self, command: PrefillCommand) -> PrefillCommand:
        """The same with where adapters are that its requests name and nobody has loaded."""
        named = {request.adapter for request in command.requests if request.adapter is not None}
        unknown = named.difference(self._shard.adapters()) if named and self._find is not None else ()
        return replace(command, found=self._find(unknown)) if unknown and self._find is not None else command

    def _run(self, call: Callable[[ServingEngine], T]) -> T:
        return self._loop.submit(call).result()


class FollowerService(StatusService):
    """A follower rank: rank 0 tells it what to run, routers must not."""

    def _refuse(self, request: Message, context: Context) -> NoReturn:
        """Raises NotTheLeader."""
        raise NotTheLeader(f"this rank only follows; send calls to rank 0, {self._shard.urls[0]}")

    ClearCache = FilterBatch = Warmup = Prefill = Decode = _refuse
