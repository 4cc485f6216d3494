"""A shard's server on a real socket, with the stubs of both protocol versions."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from mocks.scripted_engine import ScriptedEngine
from text_generation_protocol.v2 import generate_pb2_grpc as grpc_v2
from text_generation_protocol.v3 import generate_pb2_grpc as grpc_v3
from text_generation_server.engine.loop import EngineLoop
from text_generation_server.engine.types import ShardInfo
from text_generation_server.images.placing import ImagePlacer
from text_generation_server.rpc.prompts import PromptEncoder
from text_generation_server.rpc.server import ShardServer
from text_generation_server.rpc.service import EngineService, ServingEngine, Shard
from text_generation_server.rpc.sockets import socket_path, socket_url
from text_generation_server.rpc.wire_v2 import WireV2
from text_generation_server.rpc.wire_v3 import WireV3
from text_generation_server.tokenization.fast import Text
from text_generation_server.tracing import Tracing

INFO = ShardInfo(
    dtype="torch.float16",
    device_type="cuda",
    attention="flashinfer",
    block_size=1,
    prefix_caching=True,
    chunking=True,
    vocab_size=300,
)

BOS = 300


class BosTokenizer:
    """Ids are bytes, after BOS where special tokens are wanted; fails on `fail`. Remembers its callers' threads."""

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def encode_all(self, texts: Sequence[Text], add_special_tokens: bool) -> list[list[int]]:
        self.threads.add(threading.current_thread().name)
        return [self._encode(text, truncate, add_special_tokens) for text, truncate in texts]

    def _encode(self, text: str, truncate: int, add_special_tokens: bool) -> list[int]:
        if text == "fail":
            raise RuntimeError("no such luck")
        special, ids = [BOS] * add_special_tokens, list(text.encode())
        return special + ids[-(truncate - len(special)) :] if truncate else special + ids


@dataclass
class RunningShard:
    """A serving shard and a connection to it."""

    path: Path
    loop: EngineLoop
    tokenizer: BosTokenizer
    channel: grpc.Channel
    fatal: threading.Event
    v2: grpc_v2.TextGenerationServiceStub = field(init=False)
    v3: grpc_v3.TextGenerationServiceStub = field(init=False)

    def __post_init__(self) -> None:
        self.v2 = grpc_v2.TextGenerationServiceStub(self.channel)
        self.v3 = grpc_v3.TextGenerationServiceStub(self.channel)

    def raw(self, method: str, request: bytes = b"") -> bytes:
        """Call `/generate.vN.TextGenerationService/Method` with bytes, for bytes."""
        return self.channel.unary_unary(f"/{method}")(request, timeout=10)


StartShard = Callable[..., RunningShard]


@pytest.fixture
def start_shard(tmp_path: Path) -> Iterator[StartShard]:
    """Start serving an engine; its loop and server are stopped afterwards."""
    running: list[tuple[RunningShard, ShardServer]] = []

    def start(
        engine: ServingEngine,
        *,
        prefill_logprobs: bool = True,
        name: str = "tgi",
        tracing: Tracing | None = None,
        images: ImagePlacer | None = None,
    ) -> RunningShard:
        path = socket_path(tmp_path / name, 0)
        loop = EngineLoop(engine)
        loop.start()
        tokenizer, fatal = BosTokenizer(), threading.Event()
        takes_images = images is not None
        about = Shard(INFO, (socket_url(path),), takes_images=takes_images)
        wires = WireV2(takes_images), WireV3(prefill_logprobs, takes_images)
        v2, v3 = (EngineService(wire, about, loop, PromptEncoder(tokenizer, images)) for wire in wires)
        server = ShardServer(path, v2, v3, fatal.set, tracing)
        server.start()
        options = [("grpc.max_send_message_length", -1)]
        channel = grpc.insecure_channel(socket_url(path), options=options)
        shard = RunningShard(path, loop, tokenizer, channel, fatal)
        running.append((shard, server))
        return shard

    yield start
    for shard, server in running:
        shard.channel.close()
        server.stop(grace_s=0)
        shard.loop.stop()


@pytest.fixture
def engine() -> Iterator[ScriptedEngine]:
    """The engine behind `shard`; whatever waits for its gate goes on when the test has ended."""
    scripted = ScriptedEngine()
    yield scripted
    scripted.gate.set()


@pytest.fixture
def shard(start_shard: StartShard, engine: ScriptedEngine) -> RunningShard:
    """A shard over a scripted engine."""
    return start_shard(engine)
