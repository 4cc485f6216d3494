"""A router's own processor time for each streamed token, with a shard that answers at once.

Three processes: the shard (`instant_shard.py`), the router as it is started by a launcher, and this one, which reads
all streams. Counted is what the router's processes spend in all their threads and in the kernel, from the first request
sent to the last answer read, requests' beginnings included. Prints for each endpoint and number of streams the median
of several rounds, how many tokens a second that is if one core does it, how many came, and how much longer a step took
than the shard had it; and writes all rounds to bench-out/router_cost.json.
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
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import instant_shard
from text_generation_benchmark.http.client import Client, introduce
from text_generation_benchmark.http.endpoints import Request, Wishes
from text_generation_benchmark.http.targets import Target
from text_generation_server.settings import hub_settings
from text_generation_server.weights.source import locate

OUR_ROUTER = shlex.join([sys.executable, "-m", "text_generation_router"])
PROMPT = "What is Deep Learning?"
PATIENCE_S = 60.0


class Round(NamedTuple):
    """us_a_token: processor time, in microseconds. us_first: of the process that was started, without its workers.
    rate: tokens a second that came. added_ms: a step's time beyond the shard's own, by the mean time between two tokens
    of the stream in the middle."""

    us_a_token: float
    us_first: float
    rate: float
    added_ms: float


def main() -> None:
    """Measure and report."""
    options = _options()
    rounds: dict[str, list[Round]] = {}
    model = locate(options.model_id, None, hub_settings())
    with (
        tempfile.TemporaryDirectory() as folder,
        shard(Path(folder) / "shard", options.step_ms / 1e3, not options.stock) as master,
        router(options.router, master, model) as (process, url),
    ):
        for path in options.paths:
            for streams in options.streams:
                made = asyncio.run(measure(process, url + path, streams, options.tokens, options.rounds))
                rounds[f"{path} {streams}"] = made
                print(f"{path}, {streams} streams: {summary(made)}", flush=True)
    options.out.parent.mkdir(exist_ok=True)
    told = {name: [one._asdict() for one in made] for name, made in rounds.items()}
    options.out.write_text(json.dumps({"step_ms": options.step_ms, "rounds": told}, indent=2))


def summary(rounds: list[Round]) -> str:
    """The medians, and the range of the first."""
    costs = [one.us_a_token for one in rounds]
    cost = statistics.median(costs)
    first, rate, added = (statistics.median(values) for values in list(zip(*rounds, strict=True))[1:])
    apart = f", {first:.1f} without the workers" if first < 0.99 * cost else ""
    return (
        f"{cost:.1f} us a token ({min(costs):.1f} to {max(costs):.1f}{apart}), {1e6 / cost:.0f} tokens/s a core; "
        f"{rate:.0f} came, {added:.2f} ms added a step"
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--router", default=OUR_ROUTER, help="command of the router, without options")
    parser.add_argument("--model-id", default="smollm2", help="whose tokenizer the router has")
    parser.add_argument("--paths", nargs="+", default=["/generate_stream", "/v1/chat/completions"])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16, 128])
    parser.add_argument("--tokens", type=int, default=256, help="of each answer")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--step-ms", type=float, default=0.0, help="how long the shard takes for a step")
    parser.add_argument("--stock", action="store_true", help="a shard of the protocol as it is, which pushes no steps")
    parser.add_argument("--out", type=Path, default=Path("bench-out/router_cost.json"))
    return parser.parse_args()


@contextmanager
def shard(path: Path, step_s: float, pushes: bool) -> Iterator[Path]:
    """The shard's socket, while it serves there. pushes: its steps need not be asked for one by one."""
    given = path, step_s, pushes
    process = multiprocessing.get_context("spawn").Process(target=instant_shard.run, args=given, daemon=True)
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
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the router did not start")
                time.sleep(0.05)
            yield process.pid, f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


async def measure(process: int, url: str, streams: int, tokens: int, rounds: int) -> list[Round]:
    """Every round after the first."""
    target = Target.parse(url)
    client = Client(target, Wishes(), {}, timeout_s=600.0)
    await introduce(client)
    made = []
    for _ in range(rounds + 1):
        spent, stepped, clock = cpu_seconds(process), shard_seconds(target), time.perf_counter()
        answers = await asyncio.gather(*(client.generate(Request(PROMPT, tokens), None) for _ in range(streams)))
        took = time.perf_counter() - clock
        first, whole_cost = (after - before for before, after in zip(spent, cpu_seconds(process), strict=True))
        if failed := next((answer.error for answer in answers if answer.error is not None), None):
            raise SystemExit(f"a request failed: {failed}")
        count = sum(len(answer.times) for answer in answers)
        pauses = [(answer.times[-1] - answer.times[0]) / (len(answer.times) - 1) for answer in answers]
        whole, steps = (after - before for before, after in zip(stepped, shard_seconds(target), strict=True))
        added = statistics.median(pauses) - whole / max(steps, 1)
        made.append(Round(whole_cost * 1e6 / count, first * 1e6 / count, count / took, added * 1e3))
    client.close()
    return made[1:]


def shard_seconds(target: Target) -> tuple[float, float]:
    """What the shard has spent in decodes so far, as it told the router, and how many those were."""
    with urllib.request.urlopen(f"http://{target.host_header}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    found = dict(line.rsplit(" ", 1) for line in lines if line.startswith("tgi_batch_forward_duration_"))
    name = 'tgi_batch_forward_duration_{}{{method="decode"}}'
    return float(found.get(name.format("sum"), 0)), float(found.get(name.format("count"), 0))


def cpu_seconds(process: int) -> tuple[float, float]:
    """What a process has spent on processors so far, all its threads together; and it and its children (Linux)."""
    children = " ".join(path.read_text() for path in Path(f"/proc/{process}/task").glob("*/children"))
    # The number of a process's clock, as the kernel's clock_getcpuclockid makes it.
    first, *others = (time.clock_gettime((~one << 3) | 2) for one in (process, *map(int, children.split())))
    return first, first + sum(others)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1.0):
        return True
    return False


if __name__ == "__main__":
    main()
