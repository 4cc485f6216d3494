"""The whole system as an operator starts it: one launcher, real processes, the embedded small model."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

START_PATIENCE_S = 180
PYTHON = os.environ.get("SERVING_PYTHON", sys.executable)
"""Whose packages the server is made of: `make test-clients` has clients that do not go with it."""

PREFILL_TOKENS = "256"
"""A short warm-up, and prompts beyond it are prefilled in chunks."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass
class Running:
    """A launcher, where it listens, and what it printed."""

    process: subprocess.Popen[str]
    port: int
    prefix: str
    log: Path
    children: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return self.log.read_text()

    def descendants(self) -> list[int]:
        """Pids of all processes below the launcher."""
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            children = Path(f"/proc/{pid}/task/{pid}/children")
            below = [int(p) for p in children.read_text().split()] if children.exists() else []
            found += below
            todo += below
        return found

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_PATIENCE_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.output
            try:
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        raise AssertionError(f"not ready after {START_PATIENCE_S} s:\n{self.output}")

    def stop(self, signum: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signum)
        return self.process.wait(30)

    def assert_nothing_left(self, pids: list[int]) -> None:
        """No process and no socket survives."""
        deadline = time.monotonic() + 10
        while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not [pid for pid in pids if _alive(pid)]
        assert not list(Path(self.prefix).parent.glob(f"{Path(self.prefix).name}-*"))


def _alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


Launch = Callable[..., Running]


def _environment(cache: Path) -> dict[str, str]:
    kept = {
        k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")
    }
    # One thread: several that share busy processors wait for each other many times as long as they compute.
    return {**kept, "XDG_CACHE_HOME": str(cache), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For models that tests make: tiny ones only wait for each other's threads."""
    import torch  # not there beside other clients

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user cache shared by all launchers of the session: the model is converted once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def launch(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Iterator[Launch]:
    """Start launchers; whatever still runs at the end is stopped."""
    started: list[Running] = []

    def start(*options: str, model: str = "smollm2", ready: bool = True) -> Running:
        folder = tmp_path_factory.mktemp("launch")
        port, prefix, log = free_port(), str(folder / "shard"), folder / "log"
        command = [
            PYTHON, "-m", "text_generation_launcher", "--model-id", model, "--hostname", "127.0.0.1",
            "--port", str(port), "--shard-uds-path", prefix, "--master-port", str(free_port()),
            "--max-batch-prefill-tokens", PREFILL_TOKENS, *options,
        ]  # fmt: skip
        with log.open("w") as out:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, text=True, env=_environment(cache)
            )
        running = Running(process, port, prefix, log)
        started.append(running)
        if ready:
            running.wait_ready()
        return running

    yield start
    for running in started:
        running.stop()


@pytest.fixture(scope="session")
def server(launch: Launch) -> Running:
    """One running system for the tests that only ask it things."""
    return launch()


@pytest.fixture(scope="session")
def ranked(launch: Launch) -> Iterator[Running]:
    """The same cut over three ranks, as the small model's 9 heads in 3 groups can be. All of it ends at the end."""
    running = launch("--num-shard", "3", "--dtype", "float32")
    yield running
    pids = running.descendants()
    assert running.stop() == 0
    running.assert_nothing_left(pids)
