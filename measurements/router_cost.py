"""A router's own processor time for each streamed token, with a shard that answers at once.

Three processes: the shard (`instant_shard.py`), the router as it is started by a launcher, and this one, which reads
all streams. Counted is what the router's process spends in all its threads and in the kernel, from the first request
sent to the last answer read, requests' beginnings included. Prints the median of several rounds for each number of
streams, and writes all of them to bench-out/router_cost.json.
"""

import argparse
import asyncio
import json
import multiprocessing
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import instant_shard
from text_generation_benchmark.http.client import Client
from text_generation_benchmark.http.endpoints import Request, Wishes
from text_generation_benchmark.http.targets import Target
from text_generation_server.settings import hub_settings
from text_generation_server.weights.source import locate

OUR_ROUTER = shlex.join([sys.executable, "-m", "text_generation_router"])
PROMPT = "What is Deep Learning?"
PATIENCE_S = 60.0


def main() -> None:
    """Measure and report."""
    options = _options()
    costs: dict[int, list[float]] = {}
    model = locate(options.model_id, None, hub_settings())
    with (
        tempfile.TemporaryDirectory() as folder,
        shard(Path(folder) / "shard", options.step_ms / 1e3) as master,
        router(options.router, master, model) as (process, url),
    ):
        for streams in options.streams:
            costs[streams] = asyncio.run(measure(process, url, streams, options.tokens, options.rounds))
            low, middle, high = min(costs[streams]), statistics.median(costs[streams]), max(costs[streams])
            print(f"{streams} streams: {middle:.1f} us a token ({low:.1f} to {high:.1f})", flush=True)
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps({"step_ms": options.step_ms, "us_a_token": costs}, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--router", default=OUR_ROUTER, help="command of the router, without options")
    parser.add_argument("--model-id", default="smollm2", help="whose tokenizer the router has")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 128])
    parser.add_argument("--tokens", type=int, default=256, help="of each answer")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--step-ms", type=float, default=0.0, help="how long the shard takes for a step")
    parser.add_argument("--out", type=Path, default=Path("bench-out/router_cost.json"))
    return parser.parse_args()


@contextmanager
def shard(path: Path, step_s: float) -> Iterator[Path]:
    """The shard's socket, while it serves there."""
    process = multiprocessing.get_context("spawn").Process(target=instant_shard.run, args=(path, step_s), daemon=True)
    process.start()
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not path.exists():
            if not process.is_alive() or time.monotonic() > deadline:
                raise SystemExit("the shard did not start")
            time.sleep(0.05)
        yield path
    finally:
        process.terminate()
        process.join()


@contextmanager
def router(command: str, master: Path, tokenizer: Path) -> Iterator[tuple[int, str]]:
    """A router's process id and address, while it serves."""
    port = _free_port()
    flags = {"master-shard-uds-path": master, "tokenizer-name": tokenizer, "hostname": "127.0.0.1", "port": port}
    limits = {"prometheus-port": _free_port(), "max-concurrent-requests": 1024, "max-batch-prefill-tokens": 4096}
    arguments = [f"--{name}={value}" for name, value in (flags | limits).items()]
    with subprocess.Popen([*shlex.split(command), *arguments], stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the router did not start")
                time.sleep(0.05)
            yield process.pid, f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


async def measure(process: int, url: str, streams: int, tokens: int, rounds: int) -> list[float]:
    """Microseconds of the process's time for each token, of every round after the first."""
    client = Client(Target.parse(url), Wishes(), {}, timeout_s=600.0)
    costs = []
    for _ in range(rounds + 1):
        began = cpu_seconds(process)
        answers = await asyncio.gather(*(client.generate(Request(PROMPT, tokens), None) for _ in range(streams)))
        spent = cpu_seconds(process) - began
        if failed := next((answer.error for answer in answers if answer.error is not None), None):
            raise SystemExit(f"a request failed: {failed}")
        costs.append(spent * 1e6 / sum(len(answer.times) for answer in answers))
    client.close()
    return costs[1:]


def cpu_seconds(process: int) -> float:
    """What a process has spent on processors so far, all its threads together (Linux)."""
    # The number of a process's clock, as the kernel's clock_getcpuclockid makes it.
    return time.clock_gettime((~process << 3) | 2)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main()
