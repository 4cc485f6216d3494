"""Shards to measure: fakes of any kind in a thread, and one real server in a process of its own."""

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from conformance.tiny_model import tiny_model
from mocks.fake_shard import FakeShard, save_tokenizer
from mocks.launched import wait_for

StartFake = Callable[..., FakeShard]


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a test's files go; Unix sockets cannot have long names."""
    return tmp_path_factory.mktemp("b")


@pytest.fixture
def start_fake(directory: Path) -> Iterator[StartFake]:
    """Start fake shards, which serve from an event loop in a thread until the test ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    started: list[FakeShard] = []

    def wait(job: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(job, loop).result(10)

    def start(**switches: Any) -> FakeShard:
        shard = FakeShard(save_tokenizer(directory), directory / "shard", **switches)
        wait(shard.start())
        started.append(shard)
        return shard

    yield start
    try:
        for shard in started:
            wait(shard.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a tiny model."""
    return tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def shard(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a server of the tiny model."""
    folder = tmp_path_factory.mktemp("b")
    command = [sys.executable, "-m", "text_generation_server", "serve", str(model), "--uds-path", f"{folder}/tgi"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_MEMORY_FRACTION": "0.01"}
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [*command, "--dtype", "float32"], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        socket = folder / "tgi-0"
        wait_for(lambda: socket.exists() or server.poll() is not None, "the server")
        assert server.poll() is None, (folder / "log").read_text()
        yield socket
    finally:
        server.terminate()
        server.wait(20)
