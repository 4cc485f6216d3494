"""The server under test: everything real (sockets, engine, sampler, tokenizer) but the model, which is a mock."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from conformance.caller import Caller
from conformance.made_tokenizers import byte_level
from mocks.guessing import AlwaysGuess
from mocks.launched import Launcher
from mocks.mock_adapters import MockAdapters
from mocks.mock_model import MockModel
from text_generation_server.adapters.files import AdapterFiles
from text_generation_server.adapters.loading import StartedAdapters
from text_generation_server.device.stream import ThreadStream
from text_generation_server.distributed.group import SingleRank
from text_generation_server.engine.engine import Engine
from text_generation_server.engine.loop import EngineLoop
from text_generation_server.engine.plan import Fitting, MeasureMemory
from text_generation_server.engine.runner import Runner
from text_generation_server.engine.settings import EngineSettings
from text_generation_server.models.step import ServedModel
from text_generation_server.placement import Placement
from text_generation_server.rpc.adapters import AdapterService
from text_generation_server.rpc.server import ShardServer
from text_generation_server.rpc.sockets import socket_path
from text_generation_server.rpc.steps import StepsService
from text_generation_server.serve import LoadedRank, describe, engine_services, shares_prefixes
from text_generation_server.settings import ServeOptions, server_config
from text_generation_server.tokenization.adapter import TokenizerAdapter

ROWS, SLOTS, MAX_LEN = 16, 512, 256
ROOM = 8192
"""Slots that Warmup finds room for."""


class RoomyRunner(Runner):
    """A runner in whose memory a known number of slots fits, whatever else runs on this machine."""

    def fitting(self, command: MeasureMemory) -> Future[Fitting]:
        fitting: Future[Fitting] = Future()
        fitting.set_result(Fitting(ROOM, command.num_rows))
        return fitting


@dataclass
class RunningShard:
    """A serving shard with a caller of each version."""

    path: Path
    v2: Caller
    v3: Caller
    engine: Engine
    model: ServedModel
    adapters: MockAdapters
    fatal: threading.Event

    def caller(self, version: str) -> Caller:
        """The caller of `v2` or `v3`."""
        return {"v2": self.v2, "v3": self.v3}[version]

    def assert_idle(self) -> None:
        """Nothing is cached, and every row and block is free."""
        pool = self.engine.pool
        assert self.engine.batch_ids == ()
        assert len(pool.rows) == ROWS
        assert pool.blocks.free_tokens == pool.limits.num_slots // pool.blocks.block_size * pool.blocks.block_size


StartShard = Callable[..., RunningShard]


@pytest.fixture(scope="session")
def byte_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TokenizerAdapter:
    """Ids are bytes; BOS comes first where special tokens are wanted."""
    return TokenizerAdapter.load(byte_level(tmp_path_factory.mktemp("byte-level")))


@pytest.fixture
def start(tmp_path: Path, byte_tokenizer: TokenizerAdapter) -> Iterator[StartShard]:
    """Start shards; they are stopped afterwards."""
    running: list[tuple[RunningShard, ShardServer, EngineLoop[Engine]]] = []

    def start(
        *,
        model: ServedModel | None = None,
        tokenizer: TokenizerAdapter = byte_tokenizer,
        run_ahead: bool = True,
        attention: str = "flashinfer",
        max_prefill_tokens: int = 4096,
        num_slots: int = SLOTS,
        max_len: int = MAX_LEN,
        position_limit: int | None = 4096,
        speculate: int = 0,
        warm: bool = True,
        variables: dict[str, str] | None = None,
    ) -> RunningShard:
        model = model or MockModel()
        options = ServeOptions("mock", uds_path=tmp_path / f"tgi{len(running)}", speculate=speculate)
        config = server_config(options, {"ATTENTION": attention, "REQUEST_LOGPROBS": "1"} | (variables or {}))
        own = MockAdapters(model, config.adapters.device_places)
        facts = [own.read(key, Path(source.place)) for key, source in enumerate(config.adapters.named, start=1)]
        adapters = StartedAdapters(own, tuple(zip(config.adapters.named, facts, strict=True)), config.adapters)
        settings = EngineSettings(
            ROWS, config.cache.block_size, run_ahead, memory_fraction=1.0, position_limit=position_limit,
            watermark=config.watermark, speculate=speculate, shares_prefixes=shares_prefixes(model),
            start=None if model.encoder is None else model.encoder.start,
        )  # fmt: skip
        runner = RoomyRunner(model, SingleRank(), ThreadStream(), adapters=own)
        engine = Engine(runner, tokenizer, settings, adapters.registry(runner), AlwaysGuess())
        if warm:
            engine.resize(num_slots, max_len)
        engine.max_prefill_tokens = max_prefill_tokens
        loop = EngineLoop(engine)
        loop.start()
        path, fatal = socket_path(options.uds_path, 0), threading.Event()
        place = Placement(torch.device("cuda"), torch.float16, 1)
        part = LoadedRank(tmp_path, model, place, SingleRank(), adapters)
        about = describe(config, part, lambda: engine.adapters.names)
        files = AdapterFiles(config.adapters.directory, config.hub, lambda _: None)
        services = engine_services(config, about, loop, tokenizer, files)
        server = ShardServer(
            path, *services, on_fatal=fatal.set, adapters=AdapterService(loop, files), steps=StepsService(loop)
        )
        server.start()
        shard = RunningShard(path, Caller(path, "v2"), Caller(path, "v3"), engine, model, own, fatal)
        running.append((shard, server, loop))
        return shard

    yield start
    for shard, server, loop in running:
        shard.v2.close()
        shard.v3.close()
        server.stop(grace_s=0)
        loop.stop()
        shard.engine.runner.close()


@pytest.fixture(params=[True, False], ids=["run-ahead", "no-run-ahead"])
def shard(request: pytest.FixtureRequest, start: StartShard) -> RunningShard:
    """A shard over the mock model, with and without run-ahead."""
    return start(run_ahead=request.param)


@pytest.fixture
def launcher() -> Iterator[Launcher]:
    """Launchers over stub children, all of which are gone afterwards."""
    launcher = Launcher()
    yield launcher
    launcher.end_all()
