"""Starts the shards of a server with random weights, and stops them. Knows no protocol."""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

from surroundings import with_variables

STOP_S = 30.0

MASTER = "127.0.0.1"


@contextlib.contextmanager
def serving(
    directory: Path, options: Sequence[str], log: Path, shards: int = 1, prefix: Path | None = None
) -> Iterator[Path]:
    """The first shard's socket, from when all are there. They are stopped by their pids; what they say is in `log`."""
    prefix = prefix or directory / "shard"
    command = [sys.executable, "-m", "text_generation_server", "serve", str(directory), "--load-format", "dummy"]
    command += ["--dtype", "bfloat16", "--uds-path", str(prefix), *options]
    if shards > 1:
        command.append("--sharded")
    port = free_port()
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("wb"))
        ranks = [stack.enter_context(_running(command, _place(rank, shards, port), output)) for rank in range(shards)]
        for rank, process in enumerate(ranks):
            _wait_for(Path(f"{prefix}-{rank}"), process, log)
        yield Path(f"{prefix}-0")


def _place(rank: int, shards: int, port: int) -> Mapping[str, str]:
    """What the launcher tells a rank."""
    place = {"RANK": rank, "WORLD_SIZE": shards, "MASTER_ADDR": MASTER, "MASTER_PORT": port, "NCCL_NVLS_ENABLE": 0}
    return with_variables(**place)


@contextlib.contextmanager
def _running(
    command: Sequence[str], environment: Mapping[str, str], output: BinaryIO
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(path: Path, process: subprocess.Popen[bytes], log: Path) -> None:
    while not path.exists():
        if process.poll() is not None:
            raise SystemExit(f"the server ended with code {process.returncode}:\n{log.read_text()[-2000:]}")
        time.sleep(0.02)


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((MASTER, 0))
        port: int = probe.getsockname()[1]
        return port
